package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// No answer of owr's own may be kept by a cache, taken for another visitor's, or for another type. Pages have a policy besides.
func TestEveryAnswerOfItsOwn(t *testing.T) {
	room := newRoom(t, 1)
	_, inside := room.active(t)
	_, inLine := room.queued(t)
	silent := rawOrigin(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)); <-t.Context().Done() })
	s := serve(t, room, silent, func(c *Config) {
		c.BackendTimeout, c.HeaderTimeout = 200*time.Millisecond, 300*time.Millisecond
	})
	down := serve(t, room, "http://127.0.0.1:1", nil)
	limited := serve(t, room, silent, func(c *Config) { c.VisitorRPS = 1 })
	newcomers := serve(t, room, silent, func(c *Config) { c.NewPerIPPerMinute = 1 })
	inline := serve(t, room, silent, func(c *Config) { c.QueueMode = ModeInline })
	locked := serve(t, newRoom(t, 0), silent, nil)
	locked.room.do(func(r *fakeRoom) { r.keys = nil })
	full := newRoom(t, 0)
	full.queued(t)
	full.limits.QueueMax = 1
	crowded := serve(t, full, silent, nil)
	conns := serve(t, room, silent, func(c *Config) { c.MaxConnsPerIP = 1 })
	first := conns.dial() // keeps its place
	eventually(t, "the first connection is there", func() bool {
		conns.conns.mu.Lock()
		defer conns.conns.mu.Unlock()
		return conns.conns.of[netip.MustParseAddr("127.0.0.1")] == 1
	})
	draining := serve(t, room, silent, nil)
	draining.Drain()

	html, script := "Accept: text/html", "Accept: application/json"
	for name, c := range map[string]struct {
		s      *stand
		raw    string
		status int
	}{
		"health":                     {s, request("GET", "/wr_healthcheck", ""), 200},
		"ready":                      {s, request("GET", "/wr_ready", ""), 200},
		"draining":                   {draining, request("GET", "/wr_ready", ""), 503},
		"the page":                   {s, request("GET", "/queue.html", ""), 200},
		"the page at the address":    {inline, request("GET", "/x", "", html), 503},
		"to the page":                {s, request("GET", "/x", "", html), 302},
		"to the page, with a cookie": {s, request("GET", "/x", "", html, "Cookie: "+inLine), 302},
		"a script":                   {s, request("GET", "/x", "", script), 429},
		"an upload":                  {s, request("POST", "/x", "body", html), 429},
		"an upload that asks":        {s, request("POST", "/x", "", html, "Content-Length: 4", "Expect: 100-continue"), 429},
		"a poll":                     {s, request("GET", "/wr_check", ""), 200},
		"a poll, in line":            {s, request("GET", "/wr_check", "", "Cookie: "+inLine), 200},
		"a poll, inside":             {s, request("GET", "/wr_check", "", "Cookie: "+inside), 302},
		"a poll, no keys":            {locked, request("GET", "/wr_check", ""), 503},
		"no keys":                    {locked, request("GET", "/x", "", html), 503},
		"no keys, a script":          {locked, request("GET", "/x", "", script), 503},
		"full":                       {crowded, request("GET", "/x", "", html), 503},
		"full, a script":             {crowded, request("GET", "/x", "", script), 503},
		"full, a poll":               {crowded, request("GET", "/wr_check", ""), 503},
		"another method":             {s, request("POST", "/wr_check", ""), 405},
		"TRACE":                      {s, request("TRACE", "/", ""), 405},
		"CONNECT":                    {s, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405},
		"an endless Connection":      {s, request("GET", "/", "", "Connection: "+strings.Repeat("a,", 2000)), 400},
		"a port for a host":          {s, "GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400},
		"two hosts":                  {s, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		"no HTTP":                    {s, "hello\r\n\r\n", 400},
		"a bare line feed":           {s, "GET / HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n", 400},
		"a length twice":             {s, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
		"a long target":              {s, request("GET", "/"+strings.Repeat("a", maxTarget+1), ""), 414},
		"a long head":                {s, request("GET", "/", "", "X: "+strings.Repeat("a", 20<<10)), 431},
		"half a head":                {s, "GET / HTTP/1.1\r\nHost: a\r\nX: ", 408},
		"HTTP/2":                     {s, "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
		"too slow an origin":         {s, request("GET", "/", "", html, "Cookie: "+inside), 504},
		"too slow, a script":         {s, request("GET", "/", "", script, "Cookie: "+inside), 504},
		"no origin":                  {down, request("GET", "/", "", html, "Cookie: "+inside), 502},
		"no origin, a script":        {down, request("POST", "/", "x", script, "Cookie: "+inside), 502},
		"no origin, an upgrade":      {down, request("GET", "/", "", script, "Cookie: "+inside, "Connection: Upgrade", "Upgrade: websocket"), 502},
		"too many connections":       {conns, request("GET", "/", ""), 429},
	} {
		if *secure && c.s == conns {
			continue // it is closed before there is anybody to answer
		}
		r, err := c.s.dial().send("%s", c.raw).answer("GET")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		checkOwn(t, name, r, c.status)
	}
	_ = first.Close()
	for name, c := range map[string]struct {
		s   *stand
		raw string
	}{
		"too many of a visitor":             {limited, request("GET", "/wr_check", "", "Cookie: "+inLine)},
		"too many of a visitor, a page":     {limited, request("GET", "/", "", html, "Cookie: "+inLine)},
		"too many new ones":                 {newcomers, request("GET", "/", "", html)},
		"too many new ones, a script":       {newcomers, request("GET", "/", "", script)},
		"too many new ones of all, polling": {newcomers, request("GET", "/wr_check", "")},
	} {
		var r reply
		for range 5 {
			if r = c.s.dial().send("%s", c.raw).mustAnswer("GET"); r.StatusCode == 429 && !strings.Contains(r.text, "in the waiting line") {
				break
			}
		}
		checkOwn(t, name, r, 429)
	}
}

var retried = map[int]bool{429: true, 503: true}

func checkOwn(t *testing.T, name string, r reply, status int) {
	t.Helper()
	if r.StatusCode != status {
		t.Errorf("%s: got %d, want %d", name, r.StatusCode, status)
	}
	for header, want := range map[string]string{"Cache-Control": "no-store", "Vary": "Cookie", "X-Content-Type-Options": "nosniff"} {
		if got := r.Header.Values(header); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %s: got %q, want %q", name, header, got, want)
		}
	}
	if retried[r.StatusCode] && r.Header.Get("Retry-After") == "" {
		t.Errorf("%s: no Retry-After", name)
	}
	if kind := r.Header.Get("Content-Type"); kind == "" && len(r.text) > 0 {
		t.Errorf("%s: a body without a type", name)
	} else if kind != typeHTML {
		return
	}
	policy := r.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'self'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("%s: %q is missing in %q", name, want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || r.Header.Get("Referrer-Policy") != "same-origin" {
		t.Errorf("%s: policy %q, referrer %q", name, policy, r.Header.Get("Referrer-Policy"))
	}
	if scripts := strings.Count(r.text, "<script"); scripts > 0 && strings.Count(policy, "'sha256-") < scripts+1 {
		t.Errorf("%s: %d scripts and %q", name, scripts, policy)
	}
}

// A method that is refused is told which are not (RFC 9110, section 15.5.6).
func TestAllow(t *testing.T) {
	for name, change := range map[string]func(*Config){"loops": nil, "goroutines": withoutLoops} {
		s := serve(t, newRoom(t, 1), newSite(t, nil).URL, change)
		for raw, want := range map[string]string{
			request("TRACE", "/x", ""):                     usualMethods,
			"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n":    usualMethods,
			request("POST", "/wr_check", ""):               "GET, HEAD",
			"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": "",
		} {
			r := s.dial().send("%s", raw).mustAnswer("GET")
			if got := strings.Join(r.Header.Values("Allow"), " | "); got != want || (r.StatusCode == 405) != (want != "") {
				t.Errorf("%s: %.20q: got %d, Allow %q, want %q", name, raw, r.StatusCode, got, want)
			}
		}
	}
}

func TestFrameAncestors(t *testing.T) {
	room := newRoom(t, 0)
	for _, want := range []string{"'self'", "'none'", "'self' https://shop.example https://*.shop.example:8443"} {
		for _, custom := range []string{"", "<!doctype html><p>100% mine"} {
			s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.FrameAncestors, c.Page = want, []byte(custom) })
			room.do(func(r *fakeRoom) { r.limits.QueueMax = 0 })
			r := s.ask("GET", "/queue.html")
			if got := regexp.MustCompile(`frame-ancestors ([^;]*)`).FindStringSubmatch(r.Header.Get("Content-Security-Policy")); got == nil || got[1] != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if !strings.HasSuffix(s.pages.noticePolicy, "; frame-ancestors "+want) {
				t.Errorf("notices: got %q", s.pages.noticePolicy)
			}
		}
	}
	for _, bad := range []string{"*", "shop.example", "'none' 'self'", "'self'; script-src *", "https://a\r\nX: b", "https://", "https://a/b", "javascript:alert(1)", "https://a%s", " "} {
		if _, err := New(Config{Room: room, Backend: mustURL(t, "http://x"), FrameAncestors: bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// An answer of the origin that gains a cookie belongs to one visitor, whatever it says of itself, and to nobody's cache.
func TestAnswersThatGainACookieArePrivate(t *testing.T) {
	for name, change := range map[string]func(*Config){"loops": nil, "goroutines": withoutLoops} {
		for _, says := range []string{"", "public, max-age=60", "s-maxage=60", `private="set-cookie"`, "no-store"} {
			room := newRoom(t, 1)
			s := serve(t, room, newSite(t, func(w http.ResponseWriter, _ *http.Request) {
				if says != "" {
					w.Header().Set("Cache-Control", says)
				}
				w.Header().Set("CDN-Cache-Control", "max-age=60")
				w.Header().Set("Surrogate-Control", "max-age=60")
			}).URL, change)
			r := s.ask("GET", "/")
			control := r.Header.Get("Cache-Control")
			if r.StatusCode != 200 || r.ours() == "" || !strings.HasPrefix(control, "private") || strings.Contains(control, "public") || strings.Contains(control, "s-maxage") {
				t.Errorf("%s: %q becomes %q", name, says, control)
			}
			if r.Header.Get("CDN-Cache-Control")+r.Header.Get("Surrogate-Control") != "" || says == "no-store" && !strings.Contains(control, "no-store") {
				t.Errorf("%s: %q: %v", name, says, r.Header)
			}
			if again := s.ask("GET", "/", "Cookie: "+cookieOf(r)); again.Header.Get("Cache-Control") != says {
				t.Errorf("%s: without a cookie: %q became %q", name, says, again.Header.Get("Cache-Control"))
			}
		}
	}
}

// W17 to W22: wherever a visitor is sent, it is a path of this site or the main page.
func TestNobodyIsSentElsewhere(t *testing.T) {
	room := newRoom(t, 1)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.MainURL = "/welcome" })
	token, inside := room.active(t)
	for _, r := range []string{
		"//evil.example", "https://evil.example", "https:evil.example", "/%2fevil.example", "/%5cevil.example", `/\evil.example`, "%2f%2fevil.example",
		"/%09/evil.example", "/%0d%0aLocation:%20//evil.example", "javascript:alert(1)", "/wr_check", "/queue.html", "", "evil.example", "%", "/%2%",
		"/%252f%252fevil.example/..", "%09//evil.example", "///evil.example", "/%00",
	} {
		for _, query := range []string{"?r=" + r, "?next=" + r, "?url=" + r, "?x=1&r=" + r} {
			for _, host := range []string{"shop.test", "evil.example"} {
				w := s.dial().send("GET /wr_check%s HTTP/1.1\r\nHost: %s\r\nX-Forwarded-Host: evil.example\r\nCookie: %s\r\n\r\n", query, host, inside)
				got, err := w.answer("GET")
				if err != nil {
					t.Errorf("%q: %v", query, err)
					continue
				}
				if got.StatusCode == 400 {
					continue // a backslash in a query is taken, a control byte is not
				}
				location := got.Header.Get("Location")
				if got.StatusCode != 302 || location != "/welcome" && (!strings.HasPrefix(location, "/%25") || strings.Contains(query, "next")) {
					t.Errorf("%q: got %d %q", query, got.StatusCode, location)
				}
			}
		}
	}
	room.set(token, queue.View{})
	room.do(func(r *fakeRoom) { r.limits.MaxActive = 0 })
	for _, target := range []string{"//evil.example/%2e%2e", "/%2f/evil.example", "///evil.example"} {
		r := s.ask("GET", target, "Host: evil.example", "Accept: text/html")
		if location := r.Header.Get("Location"); r.StatusCode != 302 || !strings.HasPrefix(location, "/queue.html") || strings.Contains(location, "evil") {
			t.Errorf("%q: got %d %q", target, r.StatusCode, location)
		}
	}
}
