package proxy

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestActiveVisitorReachesTheOrigin(t *testing.T) {
	origin := newSite(t, nil)
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, nil)
	_, cookie := room.active(t)
	r := s.ask("GET", "/a/../b%2Fc//d?q=a+b%20c&&x=;", "Cookie: "+cookie)
	if r.StatusCode != 200 || r.Header.Get("X-Origin") != "1" {
		t.Fatalf("got %d %q", r.StatusCode, r.text)
	}
	if got := origin.last(t).target; got != "/a/../b%2Fc//d?q=a+b%20c&&x=;" {
		t.Errorf("target: got %q", got)
	}
	if r.ours() != "" {
		t.Errorf("a known visitor got a cookie: %q", r.ours())
	}
	for _, body := range []string{"abc", string(make([]byte, 300_000))} {
		r = s.askBody("POST", "/x", body, "Cookie: "+cookie)
		if r.StatusCode != 200 || origin.last(t).body != body {
			t.Errorf("POST of %d bytes: got %d %q", len(body), r.StatusCode, r.text)
		}
		w := s.dial().send("POST /x HTTP/1.1\r\nHost: a\r\nCookie: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n", cookie, len(body), body)
		if r := w.mustAnswer("POST"); r.StatusCode != 200 || origin.last(t).body != body || origin.last(t).header.Get("X-Trailer") != "" {
			t.Errorf("chunked POST of %d bytes: got %d", len(body), r.StatusCode)
		}
	}
}

// drip answers in pieces, each after gate has let it through.
func drip(gate <-chan struct{}, head string, pieces ...string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, head)
		for _, p := range pieces {
			<-gate
			if _, err := io.WriteString(c, p); err != nil {
				return
			}
		}
		<-gate
	}
}

func TestResponsesAreStreamed(t *testing.T) {
	for name, origin := range map[string]struct {
		head   string
		pieces []string
	}{
		"chunked":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", []string{"4\r\none\n\r\n", "4\r\ntwo\n\r\n", "0\r\nX: trailer\r\n\r\n"}},
		"with a length":  {"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n", []string{"one\n", "two\n", ""}},
		"until close":    {"HTTP/1.1 200 OK\r\n\r\n", []string{"one\n", "two\n", ""}},
		"events":         {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n", []string{"one\n", "two\n", ""}},
		"HTTP/1.0":       {"HTTP/1.0 200 OK\r\n\r\n", []string{"one\n", "two\n", ""}},
		"odd chunk size": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", []string{"004;x=y\r\none\n\r\n", "0004\r\ntwo\n\r\n", "0\r\n\r\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := make(chan struct{})
			room := newRoom(t, 10)
			s := serve(t, room, rawOrigin(t, drip(gate, origin.head, origin.pieces...)), nil)
			_, cookie := room.active(t)
			w := s.dial().send("%s", request("GET", "/", "", "Cookie: "+cookie))
			r, err := http.ReadResponse(w.br, nil) // the head comes before any of the body
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			for _, want := range []string{"one\n", "two\n"} {
				gate <- struct{}{}
				got := make([]byte, 4)
				if _, err := io.ReadFull(r.Body, got); err != nil || string(got) != want {
					t.Fatalf("got %q, %v, want %q while the origin holds the next back", got, err, want)
				}
			}
			gate <- struct{}{}
			close(gate)
			if rest, err := io.ReadAll(r.Body); err != nil || len(rest) > 0 {
				t.Errorf("the end: got %q, %v", rest, err)
			}
		})
	}
}

func TestRequestBodiesAreStreamed(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		first, whole := make(chan string, 1), make(chan int, 1)
		origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
			buf := make([]byte, 100)
			n, _ := r.Body.Read(buf)
			first <- string(buf[:n])
			rest, _ := io.ReadAll(r.Body)
			whole <- n + len(rest)
		})
		room := newRoom(t, 10)
		s := serve(t, room, origin.URL, nil)
		_, cookie := room.active(t)
		w := s.dial()
		if chunked {
			w.send("POST / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", cookie)
		} else {
			w.send("POST / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\nContent-Length: 6\r\n\r\nabc", cookie)
		}
		// Without a length a small piece may come in two.
		if got := <-first; !strings.HasPrefix("abc", got) || got == "" {
			t.Errorf("chunked %v: the beginning: got %q", chunked, got)
		}
		if chunked {
			w.send("3\r\ndef\r\n0\r\n\r\n")
		} else {
			w.send("def")
		}
		if got := <-whole; got != 6 {
			t.Errorf("chunked %v: got %d bytes", chunked, got)
		}
		if r := w.mustAnswer("POST"); r.StatusCode != 200 {
			t.Errorf("chunked %v: got %d", chunked, r.StatusCode)
		}
	}
}

// Bodies pass through without gathering in memory, whatever their size.
func TestLargeBodiesTakeLittleMemory(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() || raceEnabled {
		size = 256 << 20
	}
	origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if r.Method == "POST" {
			fmt.Fprint(w, n)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = io.CopyN(w, zeros{}, size)
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, nil)
	_, cookie := room.active(t)
	before, stop, peak := heap(), make(chan struct{}), make(chan uint64)
	go func() {
		most := uint64(0)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most = max(most, heap())
			case <-stop:
				peak <- most
				return
			}
		}
	}()
	w := s.dial()
	_ = w.SetDeadline(time.Now().Add(time.Minute))
	w.send("POST / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\nContent-Length: %d\r\n\r\n", cookie, size)
	if _, err := io.CopyN(w.Conn, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	if r := w.mustAnswer("POST"); r.text != fmt.Sprint(size) {
		t.Errorf("upload: the origin got %s bytes", r.text)
	}
	w.send("%s", request("GET", "/", "", "Cookie: "+cookie))
	r, err := http.ReadResponse(w.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, r.Body); n != size || err != nil {
		t.Errorf("download: got %d bytes, %v", n, err)
	}
	close(stop)
	if grown := int64(<-peak) - int64(before); grown > 64<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestClientGoneInAnUploadNeverLooksWhole(t *testing.T) {
	for name, sent := range map[string]string{
		"length":                    "Content-Length: 10\r\n\r\nabc",
		"chunk not finished":        "Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
		"no last chunk":             "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"no end of the last chunk":  "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
		"no end of the trailer":     "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n",
		"size of a chunk cut short": "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began, ended := make(chan struct{}), make(chan error, 1)
			origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = r.Body.Read(make([]byte, 1))
				close(began)
				_, err := io.ReadAll(r.Body)
				ended <- err
			})
			room := newRoom(t, 10)
			s := serve(t, room, origin.URL, nil)
			_, cookie := room.active(t)
			w := s.dial().send("POST / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n%s", cookie, sent)
			<-began
			_ = w.Close()
			if err := <-ended; err == nil {
				t.Error("the origin read a whole body")
			}
		})
	}
}

func TestBadChunksAreRefused(t *testing.T) {
	for _, body := range []string{"0x3\r\nabc\r\n0\r\n\r\n", "-3\r\nabc\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "3\r\nabcXX0\r\n\r\n", "3z\r\nabc\r\n0\r\n\r\n", "\r\n\r\n"} {
		whole := atomic.Bool{}
		origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			whole.Store(err == nil)
		})
		room := newRoom(t, 10)
		s := serve(t, room, origin.URL, nil)
		_, cookie := room.active(t)
		w := s.dial().send("POST / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\nTransfer-Encoding: chunked\r\n\r\n%sGET /smuggled HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n", cookie, body, cookie)
		if r, err := w.answer("POST"); err == nil && (r.StatusCode != 400 || !r.Close) {
			t.Errorf("%q: got %d", body, r.StatusCode)
		}
		if _, err := w.answer("GET"); err == nil {
			t.Errorf("%q: a second answer came", body)
		}
		if whole.Load() {
			t.Errorf("%q: the origin read a whole body", body)
		}
		for _, h := range origin.seen() {
			if h.target == "/smuggled" {
				t.Errorf("%q: a part of it was taken for a request", body)
			}
		}
	}
}

func TestStalledUploadIsEnded(t *testing.T) {
	ended := make(chan error, 1)
	origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		ended <- err
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, func(c *Config) { c.StallTimeout = 100 * time.Millisecond })
	_, cookie := room.active(t)
	w := s.dial().send("POST / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\nContent-Length: 10\r\n\r\nabc", cookie)
	if r := w.mustAnswer("POST"); r.StatusCode != 408 || !w.ended() {
		t.Errorf("got %d, and the connection stays open", r.StatusCode)
	}
	if err := <-ended; err == nil {
		t.Error("the origin read a whole body")
	}
}

func TestClientThatReadsNothingIsEnded(t *testing.T) {
	gone := make(chan struct{})
	origin := rawOrigin(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		_, _ = io.CopyN(c, zeros{}, 1_000_000_000)
		close(gone)
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin, func(c *Config) { c.StallTimeout = 200 * time.Millisecond })
	_, cookie := room.active(t)
	s.dial().send("%s", request("GET", "/", "", "Cookie: "+cookie))
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the origin is still writing to a client that reads nothing")
	}
}

func TestClientGoneInADownloadEndsTheOriginsWork(t *testing.T) {
	gone := make(chan struct{})
	origin := rawOrigin(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		_, _ = io.CopyN(c, zeros{}, 1_000_000_000)
		close(gone)
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin, nil)
	_, cookie := room.active(t)
	w := s.dial().send("%s", request("GET", "/", "", "Cookie: "+cookie))
	_, _ = io.ReadFull(w.br, make([]byte, 100_000))
	_ = w.Close()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the origin is still writing")
	}
	if !strings.Contains(s.ask("GET", "/wr_healthcheck").text, "OK") {
		t.Error("the server does not answer")
	}
}

// An origin that answers before it has read the body: the client gets the answer, and what
// it still sends is nobody's request.
func TestEarlyAnswerOfTheOrigin(t *testing.T) {
	origin := rawOrigin(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin, nil)
	_, cookie := room.active(t)
	w := s.dial().send("POST /up HTTP/1.1\r\nHost: a\r\nCookie: %s\r\nContent-Length: 300000\r\n\r\n%s", cookie, strings.Repeat("x", 100_000))
	if r := w.mustAnswer("POST"); r.StatusCode != 413 || r.text != "no\n" || !r.Close {
		t.Errorf("got %d %q, close %v", r.StatusCode, r.text, r.Close)
	}
	w.send("%s", strings.Repeat("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 10))
	if r, err := w.answer("GET"); err == nil {
		t.Errorf("what came instead of the body was answered with %d", r.StatusCode)
	}
}

// A visitor that waits: its body goes nowhere, and does not become a request.
func TestBodyOfAWaitingVisitorIsDropped(t *testing.T) {
	origin := newSite(t, nil)
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, nil)
	_, waiting := room.queued(t)
	_, active := room.active(t)
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: a\r\nCookie: " + active + "\r\n\r\n"
	for _, c := range []struct {
		name, body string
		closed     bool
	}{
		{"small", strings.Repeat(smuggled, 10), false},
		{"10 MB", strings.Repeat("x", 10<<20), true},
	} {
		w := s.dial()
		go func() {
			_, _ = io.WriteString(w.Conn, request("POST", "/buy", c.body, "Cookie: "+waiting)+request("GET", "/after", "", "Cookie: "+active))
		}()
		if r := w.mustAnswer("POST"); r.StatusCode != 429 {
			t.Errorf("%s: got %d", c.name, r.StatusCode)
		}
		r, err := w.answer("GET")
		if c.closed != (err != nil) || !c.closed && r.text != "GET /after 0" {
			t.Errorf("%s: the next request on the connection: got %q, %v", c.name, r.text, err)
		}
	}
	for _, h := range origin.seen() {
		if h.target != "/after" {
			t.Errorf("the origin saw %s %s", h.method, h.target)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	origin := newSite(t, nil)
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, nil)
	_, waiting := room.queued(t)
	_, active := room.active(t)
	ask := func(cookie string) *wire {
		return s.dial().send("POST /x HTTP/1.1\r\nHost: a\r\nCookie: %s\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", cookie)
	}
	w := ask(active)
	if line, _ := w.br.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("admitted: got %q", line)
	}
	_, _ = w.br.ReadString('\n')
	if r := w.send("abc").mustAnswer("POST"); r.StatusCode != 200 || origin.last(t).body != "abc" || origin.last(t).header.Get("Expect") != "" {
		t.Errorf("admitted: got %d, the origin %+v", r.StatusCode, origin.last(t))
	}
	before := len(origin.seen())
	w = ask(waiting)
	r := w.mustAnswer("POST")
	ownAnswer(t, r)
	if r.StatusCode != 429 || !strings.Contains(r.text, `"position":1`) || !r.Close {
		t.Errorf("waiting: got %d %q", r.StatusCode, r.text)
	}
	w.send("GET /smuggled HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n\r\n", active)
	if _, err := w.answer("GET"); err == nil {
		t.Error("waiting: what came instead of the body was answered")
	}
	w = s.dial().send("GET /wr_healthcheck HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx")
	if first, second := w.mustAnswer("GET"), w.mustAnswer("GET"); first.StatusCode != 100 || second.StatusCode != 200 {
		t.Errorf("our own path: got %d, then %d", first.StatusCode, second.StatusCode)
	}
	if got := len(origin.seen()); got != before {
		t.Errorf("the origin saw %d more requests", got-before)
	}
}

func TestResponsesWithoutABody(t *testing.T) {
	origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("ETag", `"x"`)
			w.WriteHeader(304)
		case "/long":
			w.Header().Set("Content-Length", "1234")
			if r.Method != "HEAD" {
				_, _ = w.Write(make([]byte, 1234))
			}
		case "/big":
			w.Header().Set("X-Big", strings.Repeat("b", 12_000))
		}
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, nil)
	_, cookie := room.active(t)
	w := s.dial()
	for _, c := range []struct {
		method, path string
		status       int
		length       int64
	}{{"HEAD", "/long", 200, 1234}, {"GET", "/204", 204, 0}, {"GET", "/304", 304, 0}, {"HEAD", "/none", 200, -1}, {"GET", "/big", 200, 0}, {"GET", "/long", 200, 1234}, {"GET", "/empty", 200, 0}} {
		w.send("%s", request(c.method, c.path, "", "Cookie: "+cookie))
		r := w.mustAnswer(c.method)
		if r.StatusCode != c.status || r.ContentLength != c.length || c.method == "HEAD" && r.text != "" {
			t.Errorf("%s %s: got %d, length %d, %q", c.method, c.path, r.StatusCode, r.ContentLength, r.text)
		}
		if c.path == "/big" && len(r.Header.Get("X-Big")) != 12_000 {
			t.Error("12 kB of response headers did not pass")
		}
	}
}

func TestHTTP10Client(t *testing.T) {
	origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/chunked" {
			fmt.Fprint(w, "one ")
			w.(http.Flusher).Flush()
		}
		fmt.Fprint(w, "two")
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, nil)
	_, cookie := room.active(t)
	for path, want := range map[string]string{"/chunked": "one two", "/plain": "two"} {
		w := s.dial().send("GET %s HTTP/1.0\r\nHost: a\r\nCookie: %s\r\n\r\n", path, cookie)
		r := w.mustAnswer("GET")
		if r.text != want || len(r.TransferEncoding) > 0 || !w.ended() {
			t.Errorf("%s: got %q, coding %v", path, r.text, r.TransferEncoding)
		}
	}
	w := s.dial().send("GET /1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nCookie: %s\r\n\r\n", cookie)
	w.mustAnswer("GET")
	if r := w.send("GET /2 HTTP/1.0\r\nCookie: %s\r\n\r\n", cookie).mustAnswer("GET"); r.text != "two" {
		t.Errorf("keep-alive without Host: got %q", r.text)
	}
}

func TestLongRequestsKeepTheSlot(t *testing.T) {
	gate := make(chan struct{})
	room := newRoom(t, 10)
	s := serve(t, room, rawOrigin(t, drip(gate, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n", "one\n", "two\n")), nil)
	token, cookie := room.active(t)
	w := s.dial().send("%s", request("GET", "/", "", "Cookie: "+cookie))
	r, err := http.ReadResponse(w.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	room.touches()
	for range 2 {
		room.advance(2 * time.Second)
		gate <- struct{}{}
		_, _ = io.ReadFull(r.Body, make([]byte, 4))
		eventually(t, "a touch while bytes move", func() bool { return room.touches() > 0 })
	}
	close(gate)
	_ = r.Body.Close()

	slow := newSite(t, func(w http.ResponseWriter, r *http.Request) { room.advance(5 * time.Second) })
	s = serve(t, room, slow.URL, nil)
	room.set(token, room.Lookup(token))
	room.touches()
	s.ask("GET", "/", "Cookie: "+cookie)
	eventually(t, "a touch at the end of a long request", func() bool { return room.touches() > 0 })
}

func TestPipelinedRequestsOfTwoVisitors(t *testing.T) {
	origin := newSite(t, nil)
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, nil)
	_, active := room.active(t)
	_, waiting := room.queued(t)
	w := s.dial().send("%s", request("GET", "/1", "", "Cookie: "+active)+request("GET", "/2", "", "Cookie: "+waiting)+request("POST", "/3", "abc", "Cookie: "+active)+request("GET", "/4", "", "Cookie: "+active))
	for _, want := range []string{"GET /1 0", "", "POST /3 3", "GET /4 0"} {
		r := w.mustAnswer("GET")
		if r.text != want || want == "" && r.StatusCode != 302 {
			t.Errorf("got %d %q, want %q", r.StatusCode, r.text, want)
		}
	}
}

func TestHTTPSOrigin(t *testing.T) {
	name := make(chan string, 1)
	origin := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name <- r.TLS.ServerName
		fmt.Fprint(w, "over TLS")
	}))
	origin.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	origin.StartTLS()
	defer origin.Close()
	roots := x509.NewCertPool()
	roots.AddCert(origin.Certificate())
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	s := serve(t, room, origin.URL, func(c *Config) { c.BackendTLS = &tls.Config{RootCAs: roots, ServerName: "example.com"} })
	for range 2 { // the second one on the connection of the first
		if r := s.ask("GET", "/", "Cookie: "+cookie); r.text != "over TLS" || <-name != "example.com" {
			t.Errorf("got %d %q", r.StatusCode, r.text)
		}
	}
	s = serve(t, room, origin.URL, nil)
	if r := s.ask("GET", "/", "Cookie: "+cookie); r.StatusCode != 502 {
		t.Errorf("a certificate nobody knows: got %d", r.StatusCode)
	}
}

func TestDeadlineErrorsAreTimeouts(t *testing.T) {
	if got := asOriginError(os.ErrDeadlineExceeded, faultClosed).status(); got != 504 {
		t.Errorf("got %d", got)
	}
	if got := asOriginError(errors.New("reset"), faultClosed).status(); got != 502 {
		t.Errorf("got %d", got)
	}
}
