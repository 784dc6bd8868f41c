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

// Many small bodies over one connection, each of which is waited for a while, are no slow one.
func TestSmallBodiesAreNoSlowOne(t *testing.T) {
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.StallTimeout, c.MinRate = time.Second, 10_000 })
	w := s.dial()
	for i := range 22 {
		w.send("POST /small HTTP/1.1\r\nHost: shop.test\r\nCookie: %s\r\nContent-Length: 3\r\n\r\na", cookie)
		<-time.After(100 * time.Millisecond) // the way there and back
		w.send("b")
		<-time.After(10 * time.Millisecond) // in pieces: who has sent its last byte is not told that it is slow
		if r := w.send("c").mustAnswer("POST"); r.StatusCode != 200 || r.Close {
			t.Fatalf("request %d: got %d, close %v", i+1, r.StatusCode, r.Close)
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

// A body that is too long is refused with its head where that says how long it is, and cut off where it does not. No origin ever has
// such a body whole, and who asks first is not told to go on.
func TestMaxBody(t *testing.T) {
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	origin := newSite(t, nil)
	s := serve(t, room, origin.URL, func(c *Config) { c.MaxBody = 10 })
	head := "POST /upload HTTP/1.1\r\nHost: shop.test\r\nCookie: " + cookie + "\r\n"
	for _, c := range []struct {
		name, raw string
		status    int
	}{
		{"as long as it may be", head + "Content-Length: 10\r\n\r\n0123456789", 200},
		{"one byte too long", head + "Content-Length: 11\r\n\r\n0123456789a", 413},
		{"too long, and not sent yet", head + "Content-Length: 1000000\r\n\r\n", 413},
		{"too long, and asked for first", head + "Content-Length: 11\r\nExpect: 100-continue\r\n\r\n", 413},
		{"chunked, as long as it may be", head + "Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n", 200},
		{"chunked, one byte too long", head + "Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n6\r\n56789a\r\n0\r\n\r\n", 413},
		{"of a visitor that is outside", "POST /upload HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 11\r\n\r\n0123456789a", 413},
	} {
		w := s.dial()
		r := w.send("%s", c.raw).mustAnswer("POST")
		if r.StatusCode != c.status {
			t.Errorf("%s: got %d, want %d", c.name, r.StatusCode, c.status)
		}
		if c.status == 413 && !w.ended() {
			t.Errorf("%s: the connection goes on", c.name)
		}
	}
	whole := 0
	for _, h := range origin.seen() {
		if h.err == nil {
			whole++
		}
	}
	if whole != 2 {
		t.Errorf("the origin takes %d bodies for whole, want 2", whole)
	}
}
