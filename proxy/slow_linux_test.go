package proxy

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A head that comes in pieces waits in the loop, and is served there once it is whole.
func TestLoopWaitsForAHead(t *testing.T) {
	room := newRoom(t, 10)
	origin := newSite(t, nil)
	s := serve(t, room, origin.URL, oneLoop)
	w := inLoop(t, room, s)
	text := request("GET", "/pieces", "", "Cookie: "+w.cookie, "X-Long: "+strings.Repeat("a", 5000))
	for len(text) > 0 {
		n := min(997, len(text))
		w.send("%s", text[:n])
		text = text[n:]
		if len(text) > 0 {
			w.mustBeInLoop()
		}
	}
	if r := w.mustAnswer("GET"); r.StatusCode != 200 || origin.last(t).target != "/pieces" || len(origin.last(t).header.Get("X-Long")) != 5000 {
		t.Errorf("got %d for %s", r.StatusCode, origin.last(t).target)
	}
	if r := w.get("/next").mustAnswer("GET"); r.StatusCode != 200 {
		t.Errorf("the next one: got %d", r.StatusCode)
	}
	w.mustBeInLoop()
}

// What is no head for a loop is refused elsewhere, once it is whole.
func TestLoopRefusesNoHead(t *testing.T) {
	s := serve(t, newRoom(t, 10), newSite(t, nil).URL, oneLoop)
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n\r\n", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\r\n\r\n", "\r\n\r\n\r\n:\r\n\r\n"} {
		if r, err := s.dial().send("%s", text).answer("GET"); err != nil || r.StatusCode != 400 {
			t.Errorf("%q: got %v, %v", text, r.Response, err)
		}
	}
}

// Who ends its side within a head is not waited for.
func TestLoopEndsACutHead(t *testing.T) {
	plainOnly(t) // a goroutine answers 400
	s := serve(t, newRoom(t, 10), newSite(t, nil).URL, oneLoop)
	w := s.dial().send("GET / HTTP/1.1\r\nHost: sh")
	if err := w.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if !w.ended() {
		t.Error("the connection is still open")
	}
	eventually(t, "it is forgotten", func() bool { return testutil.ToFloat64(s.metrics.connections) == 0 })
}

// The time for a head begins with its first byte, and moves for none.
func TestLoopEndsASlowHead(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.Loops, c.HeaderTimeout = 1, 1500*time.Millisecond })
	fresh, used := s.dial(), inLoop(t, room, s)
	begun := time.Now()
	for _, w := range []*wire{fresh, used.wire} {
		w.send("GET / HT")
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		for range 8 {
			<-tick.C
			fresh.send("T")
			used.send("T")
		}
	}()
	for name, w := range map[string]*wire{"a new connection": fresh, "one that was used": used.wire} {
		if r := w.mustAnswer("GET"); r.StatusCode != 408 || !w.ended() {
			t.Errorf("%s: got %d", name, r.StatusCode)
		}
	}
	if took := time.Since(begun); took < time.Second {
		t.Errorf("after %v", took)
	}
	if got := testutil.ToFloat64(s.metrics.refused); got != 2 {
		t.Errorf("owr_refused_requests_total: got %v, want 2", got)
	}
}

// A request whose head is under way when the node is told to stop is served.
func TestDrainWaitsForAHead(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, newSite(t, nil).URL, oneLoop)
	w := inLoop(t, room, s)
	w.send("GET /last HTTP/1.1\r\nHost: shop.test\r\n")
	awaits := func() bool {
		found := make(chan bool, 1)
		l := s.loops[0]
		l.post(func() {
			for _, c := range l.idle {
				if len(c.partial) > 0 {
					found <- true
					return
				}
			}
			found <- false
		})
		return <-found
	}
	eventually(t, "the loop has the beginning of the head", awaits)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(ctx) }()
	eventually(t, "the server drains", s.draining.Load)
	if r := w.send("Cookie: %s\r\n\r\n", w.cookie).mustAnswer("GET"); r.StatusCode != 200 || !r.Close {
		t.Errorf("got %d, close %v", r.StatusCode, r.Close)
	}
	if err := <-ended; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}
