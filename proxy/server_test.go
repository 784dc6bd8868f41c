package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/queue"
)

func TestOwnEndpoints(t *testing.T) {
	room := newRoom(t, 10)
	origin := newSite(t, nil)
	s := serve(t, room, origin.URL, nil)
	_, cookie := room.active(t)
	r := s.ask("GET", "/wr_healthcheck")
	ownAnswer(t, r)
	if r.StatusCode != 200 || strings.TrimSpace(r.text) != "OK" || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") || r.ours() != "" {
		t.Errorf("health: got %d %q", r.StatusCode, r.text)
	}
	if r = s.ask("GET", "/wr_ready"); r.StatusCode != 200 || strings.TrimSpace(r.text) != "OK" {
		t.Errorf("ready: got %d %q", r.StatusCode, r.text)
	}
	room.do(func(r *fakeRoom) { r.ready = errors.New("no leader in reach") })
	if r = s.ask("GET", "/wr_ready"); r.StatusCode != 503 || !strings.Contains(r.text, "no leader in reach") {
		t.Errorf("not ready: got %d %q", r.StatusCode, r.text)
	}
	room.do(func(r *fakeRoom) { r.ready = nil })
	for _, path := range []string{"/wr_healthcheck", "/wr_ready", "/queue.html", "/wr_check"} {
		if r := s.askBody("POST", path, "abc"); r.StatusCode != 405 || r.Header.Get("Allow") == "" {
			t.Errorf("POST %s: got %d", path, r.StatusCode)
		}
		if r := s.ask("HEAD", path, "Cookie: "+cookie); r.StatusCode >= 400 || r.text != "" {
			t.Errorf("HEAD %s: got %d %q", path, r.StatusCode, r.text)
		}
		for _, other := range []string{"/." + path, "/x/.." + path, path + "/", strings.ToUpper(path), strings.Replace(path, "_", "%5f", 1) + ".", "/" + path} {
			if r := s.ask("GET", other, "Cookie: "+cookie); r.Header.Get("X-Origin") != "1" || origin.last(t).target != other {
				t.Errorf("%s: not the site's own: got %d %q", other, r.StatusCode, r.text)
			}
		}
	}
	s.Drain()
	if r = s.ask("GET", "/wr_ready"); r.StatusCode != 503 || !strings.Contains(r.text, "draining") {
		t.Errorf("draining: got %d %q", r.StatusCode, r.text)
	}
	if r = s.ask("GET", "/", "Cookie: "+cookie); r.StatusCode != 200 || r.Close {
		t.Errorf("draining, a request: got %d, close %v", r.StatusCode, r.Close)
	}
}

func TestShutdownFinishesWhatIsUnderWay(t *testing.T) {
	gate := make(chan struct{})
	began := make(chan struct{}, 2)
	origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half ")
		w.(http.Flusher).Flush()
		began <- struct{}{}
		<-gate
		_, _ = io.WriteString(w, "whole")
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, nil)
	_, cookie := room.active(t)
	busy := s.dial().send("%s", request("GET", "/", "", "Cookie: "+cookie))
	<-began
	idle := s.dial().send("%s", request("GET", "/wr_healthcheck", ""))
	idle.mustAnswer("GET")
	fresh := s.dial() // accepted, and nothing sent
	eventually(t, "three connections", func() bool { return testutil.ToFloat64(s.metrics.connections) == 3 })

	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	if !idle.ended() || !fresh.ended() {
		t.Error("idle connections stay open")
	}
	eventually(t, "the listener is closed", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	close(gate)
	if r := busy.mustAnswer("GET"); r.text != "half whole" {
		t.Errorf("the request under way: got %q", r.text)
	}
	if !busy.ended() {
		t.Error("its connection stays open")
	}
	if err := <-done; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := s.Serve(nopListener{}); err == nil {
		t.Error("it serves again")
	}
	if n := testutil.ToFloat64(s.metrics.connections) + testutil.ToFloat64(s.metrics.inFlight) + testutil.ToFloat64(s.metrics.originConns); n != 0 {
		t.Errorf("%v connections or requests are left over", n)
	}
}

type nopListener struct{ net.Listener }

func (nopListener) Close() error { return nil }

func TestAnswersCloseTheConnectionWhileDraining(t *testing.T) {
	gate := make(chan struct{})
	began := make(chan struct{}, 1)
	origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-gate
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, nil)
	_, cookie := room.active(t)
	w := s.dial().send("%s", request("GET", "/", "", "Cookie: "+cookie))
	<-began
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	eventually(t, "draining", s.draining.Load)
	close(gate)
	if r := w.mustAnswer("GET"); !r.Close {
		t.Error("the answer does not say Connection: close")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShutdownCutsOffWhatTakesTooLong(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, rawOrigin(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), nil)
	_, cookie := room.active(t)
	s.dial().send("%s", request("GET", "/", "", "Cookie: "+cookie))
	s.dial().send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nCookie: %s\r\n\r\nabc", cookie)
	eventually(t, "two requests in flight", func() bool { return testutil.ToFloat64(s.metrics.inFlight) == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestHeadLimits(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, newSite(t, nil).URL, nil)
	_, cookie := room.active(t)
	for _, c := range []struct {
		name, target string
		lines        []string
		want         int
	}{
		{"12 kB of headers", "/", []string{"X-A: " + strings.Repeat("a", 6000), "X-B: " + strings.Repeat("b", 6000)}, 200},
		{"a target of 6,000 bytes", "/" + strings.Repeat("a", 6000), nil, 200},
		{"a target of 9,000 bytes", "/" + strings.Repeat("a", 9000), nil, 414},
		{"20 kB of headers", "/", []string{"X-A: " + strings.Repeat("a", 20_000)}, 431},
		{"4 MB of headers", "/", []string{"X-A: " + strings.Repeat("a", 4_000_000)}, 431},
	} {
		w := s.dial()
		go func() {
			_, _ = io.WriteString(w.Conn, request("GET", c.target, "", append(c.lines, "Cookie: "+cookie)...))
		}()
		if r := w.mustAnswer("GET"); r.StatusCode != c.want || r.Close != (c.want >= 400) {
			t.Errorf("%s: got %d, close %v", c.name, r.StatusCode, r.Close)
		}
	}
}

func TestSlowAndSilentClients(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) {
		c.HeaderTimeout, c.IdleTimeout = 150*time.Millisecond, 150*time.Millisecond
	})
	slow := s.dial().send("GET / HTTP/1.1\r\nHost: a\r\nX-A: ")
	if r := slow.mustAnswer("GET"); r.StatusCode != 408 || !slow.ended() {
		t.Errorf("half a head: got %d", r.StatusCode)
	}
	bare := s.dial().send("GET / HTTP/1.1\nHost: a\n\n")
	if r, err := bare.answer("GET"); err == nil && r.StatusCode != 408 && r.StatusCode != 400 {
		t.Errorf("bare LF alone: got %d", r.StatusCode)
	}
	silent := s.dial()
	if _, err := silent.answer("GET"); err == nil {
		t.Log("a client that says nothing gets an answer") // 408, which browsers expect on a spare connection
	}
	idle := s.dial().send("%s", request("GET", "/wr_healthcheck", ""))
	idle.mustAnswer("GET")
	if !idle.ended() {
		t.Error("an idle connection stays open")
	}
}

func TestRequestLineEndedByABareLF(t *testing.T) {
	room := newRoom(t, 10)
	origin := newSite(t, nil)
	s := serve(t, room, origin.URL, nil)
	_, cookie := room.active(t)
	rest := "Host: a\r\nCookie: " + cookie + "\r\n\r\n"
	for text, want := range map[string]int{"GET /x HTTP/1.1\n": 400, "\r\nGET /x HTTP/1.1\n": 400, "\r\nGET /x HTTP/1.1\r\n": 200} {
		if r := s.dial().send("%s%s", text, rest).mustAnswer("GET"); r.StatusCode != want {
			t.Errorf("%q: got %d, want %d", text, r.StatusCode, want)
		}
	}
	// Byte by byte, and twice on one connection, bodies with bare LFs included.
	w := s.dial()
	for range 2 {
		for _, b := range []byte("POST /x HTTP/1.1\r\nContent-Length: 4\r\n" + rest + "a\nb\n") {
			_, _ = w.Write([]byte{b})
		}
		if r := w.mustAnswer("POST"); r.StatusCode != 200 {
			t.Errorf("byte by byte: got %d", r.StatusCode)
		}
	}
	w.send("%s", strings.Repeat("POST /x HTTP/1.1\r\nContent-Length: 4\r\n"+rest+"a\nb\n", 3))
	for range 3 {
		if r := w.mustAnswer("POST"); r.StatusCode != 200 {
			t.Errorf("pipelined: got %d", r.StatusCode)
		}
	}
}

// panickyRoom has a defect.
type panickyRoom struct {
	*fakeRoom
	broken atomic.Bool
}

func (r *panickyRoom) Lookup(t queue.Token) queue.View {
	if r.broken.Load() {
		panic("defect")
	}
	return r.fakeRoom.Lookup(t)
}

func TestADefectCostsOneRequest(t *testing.T) {
	room := &panickyRoom{fakeRoom: newRoom(t, 10)}
	_, cookie := room.active(t)
	room.broken.Store(true)
	log := &lockedBuffer{}
	s := serve(t, room.fakeRoom, newSite(t, nil).URL, func(c *Config) {
		c.Room = room
		c.Logger = textLogger(log)
	})
	r := s.ask("GET", "/", "Cookie: "+cookie)
	ownAnswer(t, r)
	if r.StatusCode != 500 || !r.Close || strings.Contains(r.text, "defect") {
		t.Errorf("got %d %q", r.StatusCode, r.text)
	}
	s.dial().send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nCookie: %s\r\n\r\n", cookie).mustAnswer("POST")
	if got := testutil.ToFloat64(s.metrics.panics); got != 2 {
		t.Errorf("owr_panics_total: got %v, want 2", got)
	}
	if !strings.Contains(log.String(), "defect") {
		t.Error("it is not in the log")
	}
	room.broken.Store(false)
	if r := s.ask("GET", "/", "Cookie: "+cookie); r.StatusCode != 200 {
		t.Errorf("the next request: got %d", r.StatusCode)
	}
}

func TestNoTokenInTheLog(t *testing.T) {
	room := newRoom(t, 0)
	s := serve(t, room, newSite(t, nil).URL, nil)
	token, cookie := room.queued(t)
	s.ask("GET", "/", "Cookie: "+cookie)
	s.dial().send("GET / HTTP/1.1\r\nHost: a\r\nCookie: %s\r\nX A: b\r\n\r\n", cookie).mustAnswer("GET")
	if strings.Contains(s.log.String(), text(token)) {
		t.Errorf("the token is in the log:\n%s", s.log)
	}
}

func TestConfigIsChecked(t *testing.T) {
	room := newRoom(t, 1)
	good := func() Config { return Config{Room: room, Backend: mustURL(t, "http://backend:8080")} }
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"Room":              func(c *Config) { c.Room = nil },
		"Backend":           func(c *Config) { c.Backend = nil },
		"ftp":               func(c *Config) { c.Backend = mustURL(t, "ftp://x") },
		"/sub":              func(c *Config) { c.Backend = mustURL(t, "http://x/sub") },
		"u:xxxxx@":          func(c *Config) { c.Backend = mustURL(t, "http://u:secret@x") },
		"BackendTimeout":    func(c *Config) { c.BackendTimeout = -1 },
		"MaxHeader":         func(c *Config) { c.MaxHeader = 10 },
		"MaxConnsPerIP":     func(c *Config) { c.MaxConnsPerIP = -1 },
		"MainURL":           func(c *Config) { c.MainURL = "//evil" },
		"CookieName":        func(c *Config) { c.CookieName = "a b" },
		"QueueMode":         func(c *Config) { c.QueueMode = "sideways" },
		"QueueStatus":       func(c *Config) { c.QueueStatus = 404 },
		"neither a path":    func(c *Config) { c.MainURL = "javascript:alert(1)" },
		"VisitorRPS":        func(c *Config) { c.VisitorRPS = -1 },
		"PollRPS":           func(c *Config) { c.PollRPS = -1 },
		"MinRate":           func(c *Config) { c.MinRate = -1 },
		"NewPerIPPerMinute": func(c *Config) { c.NewPerIPPerMinute = -1 },
	} {
		cfg := good()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, u := range []string{"/", "/start?from=room", "https://shop.example/enter", "http://x"} {
		cfg := good()
		cfg.MainURL = u
		if err := cfg.Validate(); err != nil {
			t.Errorf("MainURL %s: %v", u, err)
		}
	}
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	cfg := Config{Room: newRoom(t, 1), Backend: mustURL(t, "http://x"), Registerer: registry}
	if _, err := New(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); err == nil {
		t.Error("two servers share one registry")
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, f := range families {
		names[f.GetName()] = true
	}
	for _, want := range []string{"owr_decisions_total", "owr_origin_errors_total", "owr_requests_in_flight", "owr_tunnels", "owr_connections", "owr_no_quorum_admitted_total", "owr_invalid_cookies_total"} {
		if !names[want] {
			t.Errorf("%s is missing", want)
		}
	}
}

// brokenListener fails for a while, as one does that has run out of file descriptors.
type brokenListener struct {
	net.Listener
	fails atomic.Int32
}

func (l *brokenListener) Accept() (net.Conn, error) {
	if l.fails.Add(-1) >= 0 {
		return nil, errors.New("too many open files")
	}
	return l.Listener.Accept()
}

func TestAcceptErrorsPass(t *testing.T) {
	plainOnly(t)
	room := newRoom(t, 1)
	s := serve(t, room, newSite(t, nil).URL, nil)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &brokenListener{Listener: inner}
	l.fails.Store(3)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	c, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, request("GET", "/wr_healthcheck", ""))
	if r, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || r.StatusCode != 200 {
		t.Errorf("got %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if n := strings.Count(s.log.String(), "cannot accept"); n != 1 {
		t.Errorf("said %d times", n)
	}
}
