package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestFlowLooksAtTheTimeThatIsWaited(t *testing.T) {
	const window = time.Minute
	waited := func(f *flow, d time.Duration, n int) error { return f.end(time.Now().Add(-d), n) }
	f := &flow{least: 100, window: window}
	if err := waited(f, window/2, 0); err != nil {
		t.Errorf("before the window is over: %v", err)
	}
	if err := waited(f, window/2, 100*60+100); err != nil {
		t.Errorf("just fast enough: %v", err)
	}
	if err := waited(f, window, 100*60-100); !errors.Is(err, errTooSlow) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a little too slow: %v", err)
	}
	for range 100 {
		if err := waited(f, time.Millisecond, 1); err != nil {
			t.Errorf("hardly any wait: %v", err)
		}
	}
	if err := waited(&flow{window: window}, time.Hour, 0); err != nil {
		t.Errorf("no limit: %v", err)
	}
}

// A body that drips, one byte well within each stall time, ends with 408, and the origin has not got it for a whole one.
func TestSlowBodyIsEnded(t *testing.T) {
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	origin := newSite(t, nil)
	s := serve(t, room, origin.URL, func(c *Config) { c.StallTimeout, c.MinRate = 500*time.Millisecond, 10_000 })
	w := s.dial()
	w.send("POST /upload HTTP/1.1\r\nHost: shop.test\r\nCookie: %s\r\nContent-Length: 100000\r\n\r\n", cookie)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				w.send("x")
			}
		}
	}()
	r, err := w.answer("POST")
	close(stop)
	<-done
	if err != nil || r.StatusCode != 408 {
		t.Fatalf("got %v, %v", r.Response, err)
	}
	if got := testutil.ToFloat64(s.metrics.limited[limitRate]); got != 1 {
		t.Errorf("owr_limited_total{reason=\"min_rate\"}: got %v, want 1", got)
	}
	for _, h := range origin.seen() {
		if h.err == nil {
			t.Errorf("the origin takes %d bytes for the whole body", len(h.body))
		}
	}
}

// A reader that takes a little now and then is ended, and the origin's connection with it.
func TestSlowReaderIsEnded(t *testing.T) {
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	origin := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		piece := make([]byte, 64<<10)
		for range 1600 { // more than the kernel's buffers hold
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	s := serve(t, room, origin.URL, func(c *Config) { c.StallTimeout, c.MinRate = 500*time.Millisecond, maxTestRate })
	w := s.dial()
	w.send("%s", request("GET", "/big", "", "Cookie: "+cookie))
	piece := make([]byte, 16<<10)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(2 * patience); testutil.ToFloat64(s.metrics.limited[limitRate]) == 0; <-tick.C {
		if time.Now().After(until) {
			t.Fatal("it is served on")
		}
		if _, err := io.ReadFull(w.Conn, piece); err != nil {
			break
		}
	}
	eventually(t, "the origin's connection is released", func() bool { return testutil.ToFloat64(s.metrics.originConns) == 0 })
}

// maxTestRate is more than a client takes that reads 800 KB a second.
const maxTestRate = 50_000_000

// An origin that drips, as with server-sent events, is no slowness of its reader's.
func TestAnAnswerInDropsIsNoSlowReader(t *testing.T) {
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	origin := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for range 20 {
			<-tick.C
			_, _ = io.WriteString(w, "data: x\n\n")
			w.(http.Flusher).Flush()
		}
	})
	s := serve(t, room, origin.URL, func(c *Config) { c.StallTimeout, c.MinRate = 200*time.Millisecond, maxTestRate })
	if r := s.ask("GET", "/events", "Cookie: "+cookie); r.StatusCode != 200 || len(r.text) != 20*9 {
		t.Errorf("got %d, %d bytes", r.StatusCode, len(r.text))
	}
}
