package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// A scripted connection is read from and nothing else, in pieces of a size.
type scripted struct {
	net.Conn
	data  []byte
	piece int
}

func (c *scripted) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.data[:min(len(c.data), max(c.piece, 1))])
	c.data = c.data[n:]
	return n, nil
}

// FuzzRequest gives a connection's bytes to the intake and fasthttp, as the server does, and holds what is forwarded against
// net/http's reading of it and of the bytes that came. Three readers have to agree about everything that is forwarded.
func FuzzRequest(f *testing.F) {
	const host = "Host: shop.test\r\n"
	for _, text := range []string{
		chromeHead,
		"POST /x HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabcGET /y HTTP/1.1\r\n" + host + "\r\n",
		"POST /x HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX-A: b\r\n\r\nGET /y HTTP/1.1\r\n" + host + "\r\n",
		"GET http://shop.test/x HTTP/1.1\r\n" + host + "Connection: close, X-A\r\nX-A: b\r\nCookie: a=b; wr_token=c\r\n\r\n",
		"GET /x HTTP/1.0\r\n\r\n",
		"GET /x HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
		"GET /x HTTP/1.1\n" + host + "\n",
		"\r\nOPTIONS * HTTP/1.1\r\n" + host + "X-Forwarded-For: 1.2.3.4\r\nX_Real_IP: a\r\n\r\n",
	} {
		f.Add([]byte(text), uint16(1<<15))
		f.Add([]byte(text), uint16(3))
	}
	s, err := New(Config{Room: newRoom(f, 1), Backend: mustURL(f, "http://origin.test"), Loops: -1})
	if err != nil {
		f.Fatal(err)
	}
	from := &sender{peer: netip.MustParseAddr("192.0.2.1"), client: netip.MustParseAddr("192.0.2.1")}
	f.Fuzz(func(t *testing.T, data []byte, piece uint16) {
		script := &scripted{data: data, piece: int(piece)}
		c := &clientConn{Conn: script}
		br := bufio.NewReaderSize(c, 16<<10)
		for range 4 {
			begun := len(data) - len(script.data) - len(c.unread)
			var req fasthttp.Request
			req.Header.DisableNormalizing()
			err := req.Header.Read(br)
			if c.x == nil || c.intake.refusal != nil {
				return
			}
			h := &c.x.head
			if err != nil {
				if laneParse(c.intake.head, new(head)) {
					t.Errorf("the lane takes what fasthttp refuses (%v): %q", err, c.intake.head)
				}
				return
			}
			agreesWithFasthttp(t, h, &req)
			if req.ContinueReadBodyStream(br, 1, false) != nil {
				return
			}
			var body []byte
			if stream := req.BodyStream(); stream != nil {
				if body, err = io.ReadAll(stream); err != nil {
					return
				}
			}
			if !c.intake.whole() {
				return // fasthttp takes the end of the connection for the end of a body; upload does not
			}
			if br.Buffered() > 0 {
				t.Fatalf("fasthttp has got %d bytes of the next request", br.Buffered())
			}
			if h.length >= 0 && int64(len(body)) != h.length {
				t.Fatalf("a body of %d bytes, with a length of %d", len(body), h.length)
			}
			ended := len(data) - len(script.data) - len(c.unread)
			agreesWithNetHTTP(t, "as it came", bytes.TrimLeft(data[begun:ended], "\r\n"), h, body)
			agreesWithNetHTTP(t, "as it goes", forwarded(s, h, from, body), h, body)
			c.intake.next()
			c.x = nil
		}
	})
}

func agreesWithFasthttp(t *testing.T, h *head, req *fasthttp.Request) {
	t.Helper()
	uri := req.Header.RequestURI()
	if string(req.Header.Method()) != string(h.method) || uri[0] == '/' && string(uri) != string(h.target) {
		t.Errorf("fasthttp reads %q %q, the proxy %q %q", req.Header.Method(), uri, h.method, h.target)
	}
	if n := req.Header.ContentLength(); int64(max(n, 0)) != max(h.length, 0) || (n == -1) != (h.length < 0) {
		t.Errorf("fasthttp reads a length of %d, the proxy one of %d", n, h.length)
	}
	if h.names(closeName) && !req.Header.ConnectionClose() || req.Header.IsHTTP11() == h.http10 {
		t.Errorf("fasthttp keeps a connection that is to be closed, or reads another version")
	}
}

// forwarded is a request as it goes to the origin.
func forwarded(s *Server, h *head, from *sender, body []byte) []byte {
	out := s.appendOriginHead(nil, h, from)
	if h.length >= 0 {
		return append(out, body...)
	}
	if len(body) > 0 {
		out = append(strconv.AppendInt(out, int64(len(body)), 16), "\r\n"...)
		out = append(append(out, body...), "\r\n"...)
	}
	return append(out, lastChunk...)
}

// agreesWithNetHTTP reads raw as one request and nothing else. The target is left out: net/http wants it to be a proper URL.
func agreesWithNetHTTP(t *testing.T, what string, raw []byte, h *head, body []byte) {
	t.Helper()
	line, rest, _ := bytes.Cut(raw, []byte("\r\n"))
	method, target, _ := bytes.Cut(line, []byte{' '})
	target, proto, _ := bytes.Cut(target, []byte{' '})
	if what == "as it goes" && (string(target) != string(h.target) || string(proto) != "HTTP/1.1") {
		t.Errorf("%q goes as %q", h.target, line)
	}
	text := string(method) + " / " + string(proto) + "\r\n" + string(rest)
	br := bufio.NewReader(strings.NewReader(text))
	r, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("%s, net/http refuses it: %v\n%q", what, err, text)
	}
	got, err := io.ReadAll(r.Body)
	if err != nil || !bytes.Equal(got, body) {
		t.Fatalf("%s, net/http reads the body %q (%v), the proxy %q\n%q", what, got, err, body, text)
	}
	if n, _ := io.Copy(io.Discard, br); n > 0 {
		t.Fatalf("%s, net/http has %d bytes left\n%q", what, n, text)
	}
	if r.Method != string(h.method) || len(h.host) > 0 && r.Host != string(h.host) || r.ContentLength != h.length {
		t.Errorf("%s, net/http reads %s at %q with %d bytes, the proxy %s at %q with %d\n%q", what, r.Method, r.Host, r.ContentLength, h.method, h.host, h.length, text)
	}
	if what != "as it goes" {
		return
	}
	for name := range r.Header {
		switch kindOf([]byte(name)) {
		case fieldHop, fieldExpect, fieldForwarded, fieldRewrite:
			t.Errorf("%s goes on to the origin\n%q", name, text)
		}
	}
	if values := r.Header["X-Forwarded-For"]; len(values) != 1 || values[0] != "192.0.2.1" {
		t.Errorf("X-Forwarded-For is %q\n%q", values, text)
	}
}

// FuzzChunkedBody holds the three decoders of a chunked body against each other and against net/http's: what the intake lets
// through from a client, what is read from an origin, and what a loop passes on in one piece.
func FuzzChunkedBody(f *testing.F) {
	for _, text := range []string{"3\r\nabc\r\n0\r\n\r\n", "3;a=\"b\"\r\nabc\r\n00\r\nX-A: b\r\n\r\n", "1 \r\na\r\nA\r\n0123456789\r\n0\r\n\r\nmore", "3\nabc\n0\n\n", "0\r\n\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		netHTTP := func(text []byte) (body []byte, left int, err error) {
			br := bufio.NewReader(io.MultiReader(strings.NewReader("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(text)))
			r, err := http.ReadRequest(br)
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(r.Body); err != nil {
				return nil, 0, err
			}
			rest, err := io.ReadAll(br)
			return body, len(rest), err
		}
		var in intake
		in.body(-1)
		n, _ := in.take(data)
		if in.whole() {
			want, left, err := netHTTP(data[:n])
			if err != nil || left > 0 {
				t.Fatalf("the intake takes %q; net/http has %d bytes left (%v)", data[:n], left, err)
			}
			origin := newBodyReader(bufio.NewReaderSize(bytes.NewReader(data[:n]), maxOriginHead), lengthChunked)
			if got, err := io.ReadAll(&origin); err == nil && !bytes.Equal(got, want) {
				t.Fatalf("%q: from a client it is %q, from an origin %q", data[:n], want, got)
			}
		}
		br := bufio.NewReaderSize(bytes.NewReader(data), maxOriginHead)
		origin := newBodyReader(br, lengthChunked)
		body, err := io.ReadAll(&origin)
		loop, whole := appendWholeChunks(nil, data)
		if whole {
			if err != nil {
				t.Fatalf("%q: a loop takes it, a goroutine does not: %v", data, err)
			}
			got, left, err := netHTTP(loop)
			if err != nil || left > 0 || !bytes.Equal(got, body) {
				t.Fatalf("%q: a loop passes on %q, a goroutine %q; %d bytes left (%v)", data, got, body, left, err)
			}
		}
	})
}

// FuzzForwarding holds what the origin is told about a visitor against net/http's reading of it.
func FuzzForwarding(f *testing.F) {
	f.Add("1.2.3.4", "", "https", "shop.test", true)
	f.Add("1.2.3.4, 192.0.2.7", "5.6.7.8", "http", "a.test, b.test", true)
	f.Add("[::1]:80", "unknown", "HTTPS,http", "", false)
	f.Add("a\tb", "1.2.3.4", "", "evil\x80", true)
	room := newRoom(f, 1)
	servers := map[bool]*Server{}
	for _, trusted := range []bool{false, true} {
		cfg := Config{Room: room, Backend: mustURL(f, "http://origin.test"), Loops: -1}
		if trusted {
			cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		s, err := New(cfg)
		if err != nil {
			f.Fatal(err)
		}
		servers[trusted] = s
	}
	peer := netip.MustParseAddr("192.0.2.1")
	f.Fuzz(func(t *testing.T, list, realIP, proto, host string, trusted bool) {
		raw := "GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: " + list + "\r\nX-Real-IP: " + realIP + "\r\nX-Forwarded-Proto: " + proto + "\r\nX-Forwarded-Host: " + host + "\r\nForwarded: for=" + list + "\r\n\r\n"
		var h head
		if h.readRaw([]byte(raw)) != nil {
			return
		}
		s := servers[trusted]
		from := s.senderOf(peer, h.fields)
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(s.appendOriginHead(nil, &h, &from))))
		if err != nil {
			t.Fatalf("net/http refuses the head: %v", err)
		}
		one := func(name string) string {
			if len(r.Header[name]) != 1 {
				t.Fatalf("%s: %q", name, r.Header[name])
			}
			return r.Header[name][0]
		}
		client, err := netip.ParseAddr(one("X-Real-Ip"))
		if err != nil || client != from.client {
			t.Errorf("X-Real-IP is %v (%v), the visitor %v", client, err, from.client)
		}
		if got := one("X-Forwarded-Proto"); got != "http" && got != "https" {
			t.Errorf("X-Forwarded-Proto is %q", got)
		}
		if !validHost([]byte(one("X-Forwarded-Host"))) {
			t.Errorf("X-Forwarded-Host is %q", one("X-Forwarded-Host"))
		}
		if got := one("X-Forwarded-For"); got != peer.String() && (!trusted || !strings.HasSuffix(got, ", "+peer.String())) {
			t.Errorf("X-Forwarded-For is %q", got)
		}
		if !trusted && (client != peer || one("X-Forwarded-Proto") != "http" || one("X-Forwarded-Host") != "shop.test" || r.Header["Forwarded"] != nil) {
			t.Errorf("somebody who is not trusted is believed: %v", r.Header)
		}
	})
}
