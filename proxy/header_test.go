package proxy

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestHeadersToTheOrigin(t *testing.T) {
	origin := newSite(t, nil)
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	plain := serve(t, room, origin.URL, nil)
	trusting := serve(t, room, origin.URL, func(c *Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	})
	for _, c := range []struct {
		name    string
		trusted bool
		lines   []string
		want    map[string]string // header to its values, joined by " | "; empty: absent
	}{
		{name: "nothing special", want: map[string]string{"X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": ownScheme(), "X-Forwarded-Host": "shop.test", "Cookie": "", "Connection": "", "User-Agent": "", "Accept-Encoding": ""}},
		{name: "host with a port", lines: []string{"Host: shop.example:8443"}, want: map[string]string{"X-Forwarded-Host": "shop.example:8443"}},
		{name: "other cookies stay", lines: []string{`Cookie: a={"b":1}; c="d"`, "Cookie: wr_token=x; =n"}, want: map[string]string{"Cookie": `a={"b":1}; c="d" | =n`}},
		{
			name: "hop-by-hop", lines: []string{"Connection: keep-alive, X-Secret", "X-Secret: 1", "Keep-Alive: 3", "Proxy-Connection: keep-alive", "TE: trailers", "Trailer: X", "Upgrade: foo", "HTTP2-Settings: A", "Proxy-Authorization: Basic x", "X-Stays: 1"},
			want: map[string]string{"X-Secret": "", "Keep-Alive": "", "Proxy-Connection": "", "Te": "", "Trailer": "", "Upgrade": "", "Http2-Settings": "", "Proxy-Authorization": "", "X-Stays": "1", "Connection": ""},
		},
		{
			name: "what Connection cannot name", lines: []string{"Connection: Cookie, Host, X-Forwarded-For, X-Real-IP, X-Forwarded-Proto, X-Forwarded-Host, Authorization", "Cookie: site=1", "Authorization: Bearer x"},
			want: map[string]string{"Cookie": "site=1", "X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "X-Forwarded-Proto": ownScheme(), "X-Forwarded-Host": "shop.test", "Authorization": "Bearer x"},
		},
		{
			name: "forged", lines: []string{"X-FORWARDED-FOR: 6.6.6.6", "x-forwarded-for: 6.6.6.7", "X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https", "X-Forwarded-Port: 1", "X_Forwarded_For: 6.6.6.6", "X-Original-URL: /admin", "X-Rewrite-URL: /admin"},
			want: map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "Forwarded": "", "X-Forwarded-Host": "shop.test", "X-Forwarded-Proto": ownScheme(), "X-Forwarded-Port": "", "X_forwarded_for": "", "X-Original-Url": "", "X-Rewrite-Url": ""},
		},
		{
			name: "forged, of any name", lines: []string{"X-Forwarded-User: root", "x-forwarded-client-cert: Subject=root", "X_Forwarded_Email: root@shop.test", "X-Forwarded-Groups: admin"},
			want: map[string]string{"X-Forwarded-User": "", "X-Forwarded-Client-Cert": "", "X_forwarded_email": "", "X-Forwarded-Groups": ""},
		},
		{
			name: "trusted, of any name", trusted: true, lines: []string{"X-Forwarded-User: jo", "X_Forwarded_Email: jo@shop.test"},
			want: map[string]string{"X-Forwarded-User": "jo", "X_forwarded_email": ""},
		},
		{
			name: "trusted", trusted: true, lines: []string{"X-Forwarded-For: 6.6.6.6, 203.0.113.7", "X-Real-IP: 6.6.6.6", "X-Forwarded-Proto: https", "X-Forwarded-Host: public.test", "X-Forwarded-Port: 443"},
			want: map[string]string{"X-Forwarded-For": "6.6.6.6, 203.0.113.7, 127.0.0.1", "X-Real-Ip": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "public.test", "X-Forwarded-Port": "443"},
		},
		{
			name: "a chain of trusted", trusted: true, lines: []string{"X-Forwarded-For: 6.6.6.6, 203.0.113.7", "X-Forwarded-For: 10.1.2.3, 10.1.2.4"},
			want: map[string]string{"X-Forwarded-For": "6.6.6.6, 203.0.113.7, 10.1.2.3, 10.1.2.4, 127.0.0.1", "X-Real-Ip": "203.0.113.7"},
		},
		{name: "all trusted", trusted: true, lines: []string{"X-Forwarded-For: 10.1.2.3"}, want: map[string]string{"X-Real-Ip": "10.1.2.3", "X-Forwarded-Proto": ownScheme()}},
		{name: "no address", trusted: true, lines: []string{"X-Forwarded-For: 203.0.113.7, unknown"}, want: map[string]string{"X-Real-Ip": "127.0.0.1"}},
		{name: "trusted without a chain", trusted: true, lines: []string{"X-Real-IP: 203.0.113.9"}, want: map[string]string{"X-Real-Ip": "203.0.113.9"}},
		{name: "trusted, bad host", trusted: true, lines: []string{"X-Forwarded-Host: a b"}, want: map[string]string{"X-Forwarded-Host": "shop.test"}},
		{name: "trusted IPv6 with a port", trusted: true, lines: []string{"X-Forwarded-For: [2001:db8::1]:4711"}, want: map[string]string{"X-Real-Ip": "2001:db8::1"}},
	} {
		s := plain
		if c.trusted {
			s = trusting
		}
		if r := s.ask("GET", "/", append([]string{"Cookie: " + cookie}, c.lines...)...); r.StatusCode != 200 {
			t.Errorf("%s: got %d", c.name, r.StatusCode)
			continue
		}
		got := origin.last(t).header
		for name, want := range c.want {
			if text := strings.Join(got[name], " | "); text != want {
				t.Errorf("%s: %s: got %q, want %q", c.name, name, text, want)
			}
		}
		for _, h := range c.lines {
			if after, ok := strings.CutPrefix(h, "Host: "); ok && origin.last(t).host != after {
				t.Errorf("%s: Host: got %q", c.name, origin.last(t).host)
			}
		}
	}
}

// Names, order and odd bytes of the visitor's lines reach the origin as they came.
func TestHeadIsPassedOnAsItCame(t *testing.T) {
	got := make(chan string, 1)
	origin := rawOrigin(t, func(c net.Conn) {
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		got <- string(buf[:n])
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin, nil)
	_, cookie := room.active(t)
	s.dial().send("GET /a/../b%%2Fc//d?q=a+b%%20c&&x=; HTTP/1.1\r\nx-lower: 1\r\nHOST: Shop.Test\r\nX-B:  \xe9\xff \r\nx-lower: 2\r\nETag: W/\"x\"\r\nCookie: %s\r\nConnection: keep-alive\r\n\r\n", cookie).mustAnswer("GET")
	want := "GET /a/../b%2Fc//d?q=a+b%20c&&x=; HTTP/1.1\r\nx-lower: 1\r\nHOST: Shop.Test\r\nX-B: \xe9\xff\r\nx-lower: 2\r\nETag: W/\"x\"\r\n" +
		"X-Real-IP: 127.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: " + ownScheme() + "\r\nX-Forwarded-Host: Shop.Test\r\n\r\n"
	if text := <-got; text != want {
		t.Errorf("got  %q\nwant %q", text, want)
	}
}

func TestHeadersToTheClient(t *testing.T) {
	room := newRoom(t, 10)
	_, known := room.active(t)
	origin := rawOrigin(t, answers("HTTP/1.1 200 Fine So Far\r\nDate: Mon, 01 Jan 2001 00:00:00 GMT\r\nServer: one\r\nConnection: X-Secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n"+
		"Proxy-Authenticate: Basic\r\nUpgrade: h2\r\neTaG: \"x\"\r\nSet-Cookie: a=1\r\nset-cookie: wr_token=evil; Path=/\r\nSet-Cookie: a=2\r\nSet-Cookie: wr_token2=b\r\n"+
		"Cache-Control: public, max-age=3600\r\nCDN-Cache-Control: max-age=9\r\nContent-Length: 2\r\n\r\nok", false))
	s := serve(t, room, origin, nil)
	w := s.dial()
	w.send("%s", request("GET", "/", "", "Cookie: "+known))
	head := w.rawHead()
	for _, line := range []string{"HTTP/1.1 200 Fine So Far", "Date: Mon, 01 Jan 2001 00:00:00 GMT", "Server: one", "eTaG: \"x\"", "Set-Cookie: a=1", "Set-Cookie: a=2", "Set-Cookie: wr_token2=b", "Cache-Control: public, max-age=3600", "CDN-Cache-Control: max-age=9", "Content-Length: 2"} {
		if !strings.Contains(head, line+"\r\n") {
			t.Errorf("%q is missing in %q", line, head)
		}
	}
	for _, line := range []string{"X-Secret", "Keep-Alive", "Proxy-Auth", "Upgrade", "evil", "Connection"} {
		if strings.Contains(head, line) {
			t.Errorf("%q is in %q", line, head)
		}
	}

	gained := s.ask("GET", "/")
	if gained.ours() == "" || gained.Header.Get("Cache-Control") != "private, max-age=3600" || gained.Header.Get("Cdn-Cache-Control") != "" {
		t.Errorf("with a new cookie: got %v", gained.Header)
	}
	var names []string
	for _, c := range gained.Cookies() {
		names = append(names, c.Name+"="+strings.Split(c.Value, ".")[0][:1])
	}
	if want := []string{"a=1", "a=2", "wr_token2=b", "wr_token=" + gained.ours()[:1]}; !reflect.DeepEqual(names, want) {
		t.Errorf("cookies: got %v, want %v", names, want)
	}
}

// rawHead reads up to the empty line.
func (w *wire) rawHead() string {
	w.t.Helper()
	head := ""
	for !strings.HasSuffix(head, "\r\n\r\n") {
		line, err := w.br.ReadString('\n')
		if err != nil {
			w.t.Fatalf("head: %v after %q", err, head)
		}
		head += line
	}
	return head
}

func TestCacheControlBecomesPrivate(t *testing.T) {
	for value, want := range map[string]string{
		"public, max-age=3600": ", max-age=3600", "no-store": ", no-store", "private": "", "s-maxage=9, PUBLIC ,max-age=1": ", max-age=1",
		"": "", ",": "", `private="Set-Cookie, X", max-age=9`: "", `no-store, private="X"`: ", no-store", "no-cache,must-revalidate": ", no-cache, must-revalidate",
	} {
		if got := string(appendPrivate(nil, []byte(value))); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

func TestCookieAttributes(t *testing.T) {
	room := newRoom(t, 0)
	origin := newSite(t, nil)
	for _, c := range []struct {
		name, cookie, proto string
		secure              bool
	}{{"http", "wr_token", "http", false}, {"https in front", "wr_token", "https", true}, {"a name that demands it", "__Host-room", "http", true}} {
		s := serve(t, room, origin.URL, func(cfg *Config) {
			cfg.CookieName = c.cookie
			cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		})
		r := s.ask("GET", "/", "X-Forwarded-Proto: "+c.proto)
		if len(r.Cookies()) != 1 {
			t.Fatalf("%s: got %d cookies", c.name, len(r.Cookies()))
		}
		got := r.Cookies()[0]
		if got.Name != c.cookie || got.Path != "/" || !got.HttpOnly || got.SameSite != http.SameSiteLaxMode || got.MaxAge != 86400 || got.Domain != "" || got.Secure != c.secure {
			t.Errorf("%s: got %q", c.name, got.Raw)
		}
	}
	room.do(func(r *fakeRoom) { r.limits.QueueTTL = 48 * 3600 * 1e9 })
	s := serve(t, room, origin.URL, nil)
	if got := s.ask("GET", "/", "X-Forwarded-Proto: https").Cookies()[0]; got.MaxAge != 2*86400 || got.Secure != (ownScheme() == "https") {
		t.Errorf("a long queue_ttl, an untrusted https: got %q", got.Raw)
	}
}
