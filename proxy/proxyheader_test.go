package proxy

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// binaryHeader is a header of version 2.
func binaryHeader(command, family byte, rest ...byte) string {
	out := append([]byte(nil), proxySignature...)
	out = append(out, command, family)
	out = binary.BigEndian.AppendUint16(out, uint16(len(rest)))
	return string(append(out, rest...))
}

var (
	four  = []byte{198, 51, 100, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80}
	six   = append(append([]byte{0x20, 1, 0x0d, 0xb8, 15: 7}, make([]byte, 16)...), 0x30, 0x39, 0, 80)
	mixed = append(append([]byte{10: 0xff, 11: 0xff, 12: 198, 13: 51, 14: 100, 15: 7}, make([]byte, 16)...), 0x30, 0x39, 0, 80)
)

func TestProxyHeader(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"v1, IPv4", "PROXY TCP4 198.51.100.7 10.0.0.1 12345 80\r\n", "198.51.100.7"},
		{"v1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 12345 80\r\n", "2001:db8::7"},
		{"v1, IPv4 in IPv6", "PROXY TCP6 ::ffff:198.51.100.7 ::1 12345 80\r\n", "198.51.100.7"},
		{"v1, the longest", "PROXY UNKNOWN " + strings.Repeat("f", proxyLine-16) + "\r\n", "unknown"},
		{"v1, unknown", "PROXY UNKNOWN\r\n", "unknown"},
		{"v2, IPv4", binaryHeader(0x21, 0x11, four...), "198.51.100.7"},
		{"v2, IPv4 and more", binaryHeader(0x21, 0x11, append(append([]byte{}, four...), 0x04, 0, 2, 1, 2)...), "198.51.100.7"},
		{"v2, IPv6", binaryHeader(0x21, 0x21, six...), "2001:db8::7"},
		{"v2, IPv4 in IPv6", binaryHeader(0x21, 0x21, mixed...), "198.51.100.7"},
		{"v2, of no kind", binaryHeader(0x21, 0x00), "unknown"},
		{"v2, a Unix socket", binaryHeader(0x21, 0x31, make([]byte, 216)...), "unknown"},
		{"v2, the balancer itself", binaryHeader(0x20, 0x00), "itself"},
		{"v2, the balancer itself, with addresses", binaryHeader(0x20, 0x11, four...), "itself"},
	} {
		r := strings.NewReader(c.text + "GET /")
		who, err := readProxyHeader(r)
		got := string(appendAddr(nil, who.from))
		if who.itself {
			got = "itself"
		}
		if err != nil || got != c.want || who.itself && who.from.IsValid() {
			t.Errorf("%s: %+v, %v, want %s", c.name, who, err, c.want)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "GET /" {
			t.Errorf("%s: %q is left, want the request whole", c.name, rest)
		}
	}
}

var badProxyHeaders = map[string]string{
	"a request":                "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n",
	"lower case":               "proxy TCP4 198.51.100.7 10.0.0.1 1 2\r\n",
	"no kind":                  "PROXY \r\nPROXY UNKNOWN\r\n",
	"UDP":                      "PROXY UDP4 198.51.100.7 10.0.0.1 1 2\r\n",
	"no destination":           "PROXY TCP4 198.51.100.7 1 2\r\n",
	"two spaces":               "PROXY TCP4  198.51.100.7 10.0.0.1 1 2\r\n",
	"a name":                   "PROXY TCP4 localhost 10.0.0.1 1 2\r\n",
	"IPv6 as IPv4":             "PROXY TCP4 2001:db8::7 10.0.0.1 1 2\r\n",
	"IPv4 as IPv6":             "PROXY TCP6 198.51.100.7 ::1 1 2\r\n",
	"a zone":                   "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
	"a port too high":          "PROXY TCP4 198.51.100.7 10.0.0.1 65536 2\r\n",
	"a port with a sign":       "PROXY TCP4 198.51.100.7 10.0.0.1 +1 2\r\n",
	"a port with a zero":       "PROXY TCP4 198.51.100.7 10.0.0.1 01 2\r\n",
	"a bare LF":                "PROXY TCP4 198.51.100.7 10.0.0.1 1 2\n",
	"too long":                 "PROXY UNKNOWN " + strings.Repeat("f", proxyLine) + "\r\n",
	"v2, version 1":            binaryHeader(0x11, 0x11, four...),
	"v2, another command":      binaryHeader(0x22, 0x11, four...),
	"v2, UDP":                  binaryHeader(0x21, 0x12, four...),
	"v2, addresses too short":  binaryHeader(0x21, 0x11, four[:11]...),
	"v2, IPv6 with IPv4's":     binaryHeader(0x21, 0x21, four...),
	"v2, too long":             binaryHeader(0x21, 0x11, make([]byte, maxProxyTLV+1)...),
	"a signature that is near": strings.Replace(binaryHeader(0x21, 0x11, four...), "QUIT", "QUIX", 1),
}

func TestProxyHeaderRefuses(t *testing.T) {
	for name, text := range badProxyHeaders {
		if got, err := readProxyHeader(strings.NewReader(text)); err == nil {
			t.Errorf("%s: %v is taken", name, got)
		}
	}
	whole := binaryHeader(0x21, 0x11, four...)
	for n := range len(whole) {
		if got, err := readProxyHeader(strings.NewReader(whole[:n])); err == nil {
			t.Errorf("%d bytes of version 2: %v is taken", n, got)
		}
	}
}

// FuzzProxyHeader: no panic, no more is read than a header may have, and an address that is told is one.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 198.51.100.7 10.0.0.1 12345 80\r\nGET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(binaryHeader(0x20, 0x00)))
	f.Add([]byte(binaryHeader(0x21, 0x00)))
	f.Add([]byte(binaryHeader(0x21, 0x11, four...)))
	f.Add([]byte(binaryHeader(0x21, 0x21, six...)))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		who, err := readProxyHeader(r)
		from, read := who.from, len(data)-r.Len()
		if read > proxyFixed+maxProxyTLV {
			t.Fatalf("%d bytes were read", read)
		}
		if err != nil {
			if who != (proxied{}) {
				t.Fatalf("%+v with %v", who, err)
			}
			return
		}
		if from != from.Unmap() || from.Zone() != "" {
			t.Fatalf("%v is no plain address", from)
		}
		if who.itself && (from.IsValid() || data[len(proxySignature)] != 0x20) {
			t.Fatalf("%q is the balancer itself, at %v", data[:read], from)
		}
		again, err := readProxyHeader(bytes.NewReader(data[:read]))
		if err != nil || again != who {
			t.Fatalf("the header alone is %+v, %v, and was %+v", again, err, who)
		}
	})
}

// behindBalancer is a server that believes the PROXY headers of these networks.
func behindBalancer(t *testing.T, room *fakeRoom, origin string, networks ...string) *stand {
	return serve(t, room, origin, func(c *Config) {
		c.ProxyProtocol = true
		for _, n := range networks {
			c.TrustedProxies = append(c.TrustedProxies, netip.MustParsePrefix(n))
		}
	})
}

// dialBehind sends a PROXY header and then, without TLS in one piece with it, what a visitor has to say.
func (s *stand) dialBehind(header, text string) *wire {
	s.t.Helper()
	w := s.dialPlain()
	if s.tls == nil {
		return w.send("%s", header+text)
	}
	return s.greet(w.send("%s", header)).send("%s", text)
}

func TestTheProxyHeaderNamesTheVisitor(t *testing.T) {
	room := newRoom(t, 10)
	site := newSite(t, nil)
	s := behindBalancer(t, room, site.URL, "127.0.0.0/8")
	_, cookie := room.active(t)
	get := request("GET", "/x", "", "Cookie: "+cookie, "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "Forwarded: for=6.6.6.6")
	for _, c := range []struct{ name, header, client string }{
		{"v1", "PROXY TCP4 198.51.100.7 10.0.0.1 12345 80\r\n", "198.51.100.7"},
		{"v2", binaryHeader(0x21, 0x21, six...), "2001:db8::7"},
	} {
		// Together with the request, and each byte for itself.
		for _, whole := range []bool{true, false} {
			var w *wire
			if whole {
				w = s.dialBehind(c.header, get)
			} else {
				w = s.dialPlain()
				for i := range len(c.header) {
					w.send("%s", c.header[i:i+1])
				}
				w = s.greet(w).send("%s", get)
			}
			for i := range 3 { // by a goroutine or a loop, and by a loop that it has gone to
				if i > 0 {
					w.send("%s", get)
				}
				if r := w.mustAnswer("GET"); r.StatusCode != 200 {
					t.Fatalf("%s: %d", c.name, r.StatusCode)
				}
				h := site.last(t).header
				if h.Get("X-Real-Ip") != c.client || h.Get("X-Forwarded-For") != c.client || h.Get("X-Forwarded-Proto") != ownScheme() || h.Get("Forwarded") != "" {
					t.Errorf("%s: the origin got %v, want %s and nothing of what it says of itself", c.name, h, c.client)
				}
			}
		}
	}
	// The balancer itself, which looks whether the node lives, and which is trusted as before.
	w := s.dialBehind(binaryHeader(0x20, 0), get)
	if r := w.mustAnswer("GET"); r.StatusCode != 200 || site.last(t).header.Get("X-Real-Ip") != "6.6.6.6" {
		t.Errorf("LOCAL: %d %v", r.StatusCode, site.last(t).header)
	}
}

// withoutAddress are the headers of a client whose address the balancer does not tell.
var withoutAddress = map[string]string{
	"v1": "PROXY UNKNOWN\r\n", "v1, with addresses": "PROXY UNKNOWN 127.0.0.1 127.0.0.1 1 80\r\n",
	"v2": binaryHeader(0x21, 0x00), "v2, a Unix socket": binaryHeader(0x21, 0x31, make([]byte, 216)...),
}

// A client whose address the balancer does not know is not the balancer: nothing that it says of itself is believed, and it is served.
func TestTheProxyHeaderWithoutAnAddress(t *testing.T) {
	for name, header := range withoutAddress {
		room := newRoom(t, 10)
		site := newSite(t, nil)
		s := serve(t, room, site.URL, func(c *Config) {
			c.ProxyProtocol, c.TrustedProxies = true, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			c.Bind, c.Pow, c.NewPerIPPerMinute, c.MaxConnsPerIP = BindIP, true, 2, 1
		})
		said := []string{"X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6", "X-Forwarded-Proto: gopher", "X-Forwarded-User: root", "X-Forwarded-Host: evil.test", "Forwarded: for=6.6.6.6"}
		first := s.dialBehind(header, request("GET", "/x", "", said...)).mustAnswer("GET")
		if first.StatusCode != 200 || first.ours() == "" {
			t.Fatalf("%s: the first visit: %d", name, first.StatusCode)
		}
		w := s.dialBehind(header, "")
		for range 3 { // by a goroutine and by a loop
			if r := w.send("%s", request("GET", "/x", "", append(said, "Cookie: "+cookieOf(first))...)).mustAnswer("GET"); r.StatusCode != 200 || r.ours() != "" {
				t.Errorf("%s: a visitor inside: %d", name, r.StatusCode)
			}
			h := site.last(t).header
			for line, want := range map[string]string{
				"X-Real-Ip": "unknown", "X-Forwarded-For": "unknown", "X-Forwarded-Proto": ownScheme(), "X-Forwarded-User": "", "X-Forwarded-Host": "shop.test", "Forwarded": "",
			} {
				if got := strings.Join(h[line], " | "); got != want {
					t.Errorf("%s: %s: got %q, want %q", name, line, got, want)
				}
			}
		}
		// To count, they are one address; and what a balancer asks to see whether the node lives is answered, however many there are.
		var statuses []int
		for range 3 {
			statuses = append(statuses, s.dialBehind(header, request("GET", "/x", "")).mustAnswer("GET").StatusCode)
		}
		if !equal(statuses, []int{200, 429, 429}) {
			t.Errorf("%s: new visitors: got %v, want two of a minute in all", name, statuses)
		}
		for _, path := range []string{pathReady, pathHealth} {
			if r := s.dialBehind(header, request("GET", path, "")).mustAnswer("GET"); r.StatusCode != 200 {
				t.Errorf("%s: %s: got %d", name, path, r.StatusCode)
			}
		}
	}
}

func TestATrustedProxyHasToSendItsHeader(t *testing.T) {
	room := newRoom(t, 10)
	site := newSite(t, nil)
	s := behindBalancer(t, room, site.URL, "127.0.0.1/32")
	_, cookie := room.active(t)
	sent := 0
	for name, text := range badProxyHeaders {
		if strings.Contains(name, "short") {
			continue // it waits for the rest
		}
		w := s.dialPlain().send("%s", text+request("GET", "/x", "", "Cookie: "+cookie))
		if *secure { // there is nobody yet who would understand an answer
			if !w.ended() {
				t.Errorf("%s: the connection stays open", name)
			}
		} else if r, err := w.answer("GET"); err != nil || r.StatusCode != 400 || !r.Close {
			t.Errorf("%s: %+v, %v, want 400 and the end", name, r.Response, err)
		}
		sent++
	}
	if n := len(site.seen()); n != 0 {
		t.Errorf("the origin saw %d requests", n)
	}
	if got := testutil.ToFloat64(s.metrics.refused); got != float64(sent) {
		t.Errorf("owr_refused_requests_total is %v, want %d", got, sent)
	}
	eventually(t, "all connections have ended", func() bool { return testutil.ToFloat64(s.metrics.connections) == 0 })
}

// What somebody else says in a PROXY header is a malformed request, and a request without one is served as ever.
func TestTheProxyHeaderOfAStranger(t *testing.T) {
	room := newRoom(t, 10)
	site := newSite(t, nil)
	s := behindBalancer(t, room, site.URL, "192.0.2.0/24")
	_, cookie := room.active(t)
	get := request("GET", "/x", "", "Cookie: "+cookie)
	for name, header := range map[string]string{"v1": "PROXY TCP4 198.51.100.7 10.0.0.1 12345 80\r\n", "v2": binaryHeader(0x21, 0x11, four...)} {
		if r, err := s.dial().send("%s", header+get).answer("GET"); err != nil || r.StatusCode != 400 || !r.Close {
			t.Errorf("%s: %+v, %v, want 400 and the end", name, r.Response, err)
		}
	}
	if n := len(site.seen()); n != 0 {
		t.Errorf("the origin saw %d requests", n)
	}
	if r := s.dial().send("%s", get).mustAnswer("GET"); r.StatusCode != 200 || site.last(t).header.Get("X-Real-Ip") != "127.0.0.1" {
		t.Errorf("without one: %d", r.StatusCode)
	}
}

func TestAProxyHeaderThatDoesNotCome(t *testing.T) {
	room := newRoom(t, 10)
	s := behindBalancer(t, room, newSite(t, nil).URL, "127.0.0.0/8")
	silent, half := s.dialPlain(), s.dialPlain().send("PROXY TCP4 198.")
	begun := time.Now()
	if !silent.ended() || !half.ended() {
		t.Error("a connection without its header stays open")
	}
	if took := time.Since(begun); took < proxyHeaderTimeout/2 {
		t.Errorf("it ended after %v: the header has %v to come", took, proxyHeaderTimeout)
	}
}

// The limit per address counts who is behind the balancer, and not the balancer.
func TestTheProxyHeaderIsWhatCounts(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) {
		c.ProxyProtocol, c.TrustedProxies, c.MaxConnsPerIP = true, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, 2
	})
	header := func(client string) string { return "PROXY TCP4 " + client + " 10.0.0.1 1 80\r\n" }
	var open []*wire
	get := func(client string) int {
		w := s.dialBehind(header(client), request("GET", "/wr_healthcheck", ""))
		open = append(open, w)
		if r, err := w.answer("GET"); err == nil {
			return r.StatusCode
		} else if !*secure || isTimeout(err) {
			t.Fatalf("no answer: %v", err)
		}
		return 429 // over TLS it is closed without a word
	}
	for i, want := range []int{200, 200, 429, 429} {
		if got := get("198.51.100.7"); got != want {
			t.Errorf("connection %d of one client: %d, want %d", i+1, got, want)
		}
	}
	if got := get("198.51.100.8"); got != 200 {
		t.Errorf("another client: %d", got)
	}
	for _, w := range open {
		_ = w.Close()
	}
	eventually(t, "nobody is counted any more", func() bool {
		s.conns.mu.Lock()
		defer s.conns.mu.Unlock()
		return len(s.conns.of) == 0
	})
}
