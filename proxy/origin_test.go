package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// What a bad origin does costs one request, and the next visitor gets its own answer.
func TestHostileOrigins(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil\n"
	for _, c := range []struct {
		name, answer string
		then         string // close, hang, or keep
		want         string // status and body; "cut" after an answer that must not look whole
		fault        originFault
	}{
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "keep", "502", faultAnswer},
		{"length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, "keep", "502", faultAnswer},
		{"length abc", "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nok", "close", "502", faultAnswer},
		{"gzip, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "close", "502", faultAnswer},
		{"bad status", "HTTP/1.1 OK 200\r\n\r\n", "close", "502", faultAnswer},
		{"garbage", "\x00\x01\x02 no http", "hang", "502", faultAnswer},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "hang", "502", faultAnswer},
		{"folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "hang", "502", faultAnswer},
		{"space in a name", "HTTP/1.1 200 OK\r\nX A: b\r\n\r\n", "hang", "502", faultAnswer},
		{"large head", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", "close", "502", faultAnswer},
		{"101 unasked", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "hang", "502", faultAnswer},
		{"interim without end", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxInterim+1), "hang", "502", faultAnswer},
		{"closes", "", "close", "502", faultClosed},
		{"head cut", "HTTP/1.1 200 OK\r\nContent-Le", "close", "502", faultClosed},
		{"never", "", "hang", "504", faultTimeout},
		{"half a head", "HTTP/1.1 200 OK\r\nX-A: b\r\n", "hang", "504", faultTimeout},
		{"body cut", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "close", "cut", faultCut},
		{"chunks cut", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "close", "cut", faultCut},
		{"no end of the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "close", "cut", faultCut},
		{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nZZ\r\nno\r\n0\r\n\r\n", "keep", "cut", faultCut},
		{"chunk too long", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokXX0\r\n\r\n", "keep", "cut", faultCut},
		{"body stalls", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "hang", "cut", faultTimeout},
		{"100 and 103 first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok, "keep", "200 ok", ""},
		{"until close", "HTTP/1.1 200 OK\r\n\r\nuntil the end", "close", "200 until the end", ""},
		{"204 with a body", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nevil\n", "keep", "204 ", ""},
		{"304 with a body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nevil\n", "keep", "304 ", ""},
		{"answer and more", ok + evil, "keep", "200 ok", ""},
		{"more without end", ok + strings.Repeat("x", 5000), "keep", "200 ok", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			origin := rawOrigin(t, hostile(c.answer, c.then))
			room := newRoom(t, 10)
			s := serve(t, room, origin, func(cfg *Config) { cfg.BackendTimeout = 300 * time.Millisecond })
			_, cookie := room.active(t)
			w := s.dial().send("%s", request("GET", "/bad", "", "Cookie: "+cookie))
			r, err := w.answer("GET")
			got := "cut"
			if err == nil {
				got = strings.TrimSpace(r.Status[:3] + " " + r.text)
				if r.StatusCode >= 500 {
					got = r.Status[:3]
					ownAnswer(t, r)
					if strings.Contains(r.text, "127.0.0.1") || strings.Contains(r.text, "origin") {
						t.Errorf("the error page tells internals: %q", r.text)
					}
				}
			}
			if got != strings.TrimSpace(c.want) {
				t.Errorf("got %q (%v), want %q", got, err, c.want)
			}
			if c.fault != "" && testutil.ToFloat64(s.metrics.originErrors[c.fault]) != 1 {
				t.Errorf("owr_origin_errors_total{reason=%q} is not 1", c.fault)
			}
			for range 2 {
				if r := s.ask("GET", "/good", "Cookie: "+cookie); r.text != "fine" {
					t.Errorf("the next request: got %d %q", r.StatusCode, r.text)
				}
			}
		})
	}
}

// hostile answers /bad with text and does then; anything else it answers well.
func hostile(text, then string) func(net.Conn) {
	return func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if r.URL.Path != "/bad" {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
				continue
			}
			_, _ = io.WriteString(c, text)
			switch then {
			case "close":
				return
			case "hang":
				_, _ = io.Copy(io.Discard, br)
				return
			}
		}
	}
}

func TestOriginUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + l.Addr().String()
	_ = l.Close()
	room := newRoom(t, 10)
	s := serve(t, room, address, nil)
	token, cookie := room.active(t)
	page := s.ask("GET", "/", "Cookie: "+cookie, "Accept: text/html")
	if page.StatusCode != 502 || !strings.Contains(page.text, "<h1") || page.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("navigation: got %d %q", page.StatusCode, page.text)
	}
	r := s.askBody("POST", "/", "abc", "Cookie: "+cookie)
	if r.StatusCode != 502 || r.Header.Get("Content-Type") != typeProblem {
		t.Errorf("POST: got %d as %q", r.StatusCode, r.Header.Get("Content-Type"))
	}
	if room.Lookup(token).State.String() != "active" || strings.Count(s.log.String(), "origin is unreachable") != 1 {
		t.Errorf("the slot is lost, or it was not said once:\n%s", s.log)
	}
}

// A request may reach the origin twice only when that cannot do anything twice.
func TestAtMostOnce(t *testing.T) {
	for _, c := range []struct {
		method, body string
		again        bool
	}{{"GET", "", true}, {"HEAD", "", true}, {"OPTIONS", "", true}, {"POST", "abc", false}, {"PUT", "abc", false}, {"DELETE", "", false}, {"GET", "abc", false}} {
		var asked atomic.Int32
		origin := rawOrigin(t, func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				r, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				if r.URL.Path == "/once" && asked.Add(1) == 1 {
					return // the connection that had been used before ends without an answer
				}
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			}
		})
		room := newRoom(t, 10)
		s := serve(t, room, origin, withoutLoops)
		_, cookie := room.active(t)
		s.ask("GET", "/first", "Cookie: "+cookie) // leaves an idle connection
		r := s.askBody(c.method, "/once", c.body, "Cookie: "+cookie)
		want, times := 502, int32(1)
		if c.again {
			want, times = 204, 2
		}
		if r.StatusCode != want || asked.Load() != times {
			t.Errorf("%s with body %q: got %d, asked %d times", c.method, c.body, r.StatusCode, asked.Load())
		}
	}
	// A first connection that ends is no stale one: nobody is asked again.
	var asked atomic.Int32
	room := newRoom(t, 10)
	s := serve(t, room, rawOrigin(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		asked.Add(1)
	}), nil)
	_, cookie := room.active(t)
	if r := s.ask("GET", "/", "Cookie: "+cookie); r.StatusCode != 502 || asked.Load() != 1 {
		t.Errorf("fresh connection: got %d, asked %d times", r.StatusCode, asked.Load())
	}
}

// An idle connection that the origin has ended, or written to, is not used again.
func TestStaleConnectionsAreNotUsed(t *testing.T) {
	for name, after := range map[string]func(net.Conn){
		"ended":      func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() },
		"written to": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil") },
	} {
		done := make(chan struct{}, 10)
		origin := rawOrigin(t, func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				r, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				if r.URL.Path == "/first" {
					<-time.After(20 * time.Millisecond) // apart from the answer
					after(c)
					done <- struct{}{}
				}
			}
		})
		room := newRoom(t, 10)
		s := serve(t, room, origin, nil)
		_, cookie := room.active(t)
		s.ask("GET", "/first", "Cookie: "+cookie)
		<-done
		if r := s.askBody("POST", "/second", "abc", "Cookie: "+cookie); r.StatusCode != 200 || r.text != "ok" {
			t.Errorf("%s: got %d %q", name, r.StatusCode, r.text)
		}
	}
}

func TestOriginConnectionsAreReusedAndSwept(t *testing.T) {
	var accepted atomic.Int32
	origin := rawOrigin(t, func(c net.Conn) {
		accepted.Add(1)
		answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false)(c)
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin, withoutLoops)
	_, cookie := room.active(t)
	for range 5 {
		s.ask("GET", "/", "Cookie: "+cookie)
		s.askBody("POST", "/", "abc", "Cookie: "+cookie)
	}
	if got := accepted.Load(); got != 1 {
		t.Errorf("10 requests one after the other took %d connections", got)
	}
	age := func(change func(*originConn)) {
		s.origin.mu.Lock()
		defer s.origin.mu.Unlock()
		for _, c := range s.origin.idle {
			change(c)
		}
	}
	age(func(c *originConn) { c.born = time.Now().Add(-maxAge) })
	s.ask("GET", "/", "Cookie: "+cookie)
	if got := accepted.Load(); got != 2 {
		t.Errorf("a connection past its age was used: %d connections", got)
	}
	age(func(c *originConn) { c.idleFrom = time.Now().Add(-maxIdle) })
	s.ask("GET", "/", "Cookie: "+cookie)
	if got := accepted.Load(); got != 3 {
		t.Errorf("a connection idle for too long was used: %d connections", got)
	}
	age(func(c *originConn) { c.idleFrom = time.Now().Add(-maxIdle) })
	eventually(t, "the sweeper closes it", func() bool { return testutil.ToFloat64(s.metrics.originConns) == 0 })
}

func TestBackendAddress(t *testing.T) {
	for text, want := range map[string]string{
		"http://backend:8080": "backend:8080", "http://backend": "backend:80", "https://backend/": "backend:443", "http://[::1]": "[::1]:80",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := backendAddress(u); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), false)
	f.Add([]byte("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), true)
	f.Add([]byte("HTTP/1.0 304\r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, data []byte, isHead bool) {
		method := []byte("GET")
		if isHead {
			method = []byte("HEAD")
		}
		var r, again response
		br := bufio.NewReaderSize(bytes.NewReader(data), maxOriginHead)
		size, err := r.read(br, method, false)
		if n, err2 := again.readBytes(data, method); (err == nil) != (err2 == nil && n > 0) || err == nil && (again.status != r.status || again.length != r.length || again.keep != r.keep) {
			t.Fatalf("%q: a goroutine reads %d, %d (%v), a loop %d, %d (%v)", data, r.status, r.length, err, again.status, again.length, err2)
		}
		if err != nil {
			return
		}
		passedOn(t, &r, method)
		if r.status < 200 || size <= 0 {
			t.Fatalf("%q: status %d, %d bytes", data, r.status, size)
		}
		length := r.length
		_, _ = br.Discard(size)
		body := newBodyReader(br, length)
		n, err := io.Copy(io.Discard, struct{ io.Reader }{&body})
		if err == nil && length >= 0 && n != length {
			t.Errorf("%q: %d bytes of %d taken for all", data, n, length)
		}
		if n > int64(len(data)) {
			t.Errorf("%q: %d bytes of a body", data, n)
		}
	})
}

// passedOn holds the head that a client gets against net/http's reading of it.
func passedOn(t *testing.T, r *response, method []byte) {
	s := &Server{cfg: Config{CookieName: "wr_token"}}
	out := s.appendLaneHead(nil, r, false, gain{})
	got, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(out)), &http.Request{Method: string(method)})
	if err != nil {
		t.Fatalf("net/http refuses %q: %v", out, err)
	}
	_ = got.Body.Close()
	chunked := len(got.TransferEncoding) == 1
	if got.StatusCode != r.status || string(method) != "HEAD" && (chunked != (r.length < 0) || r.length > 0 && got.ContentLength != r.length) {
		t.Errorf("net/http reads %d with %d bytes, chunked: %v; the proxy %d with %d\n%q", got.StatusCode, got.ContentLength, chunked, r.status, r.length, out)
	}
	for _, c := range got.Cookies() {
		if c.Name == "wr_token" {
			t.Errorf("the origin sets our cookie: %q", out)
		}
	}
}
