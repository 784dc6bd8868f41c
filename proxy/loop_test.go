//go:build linux

package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/queue"
)

// looped is a client's connection that a loop has, by a visitor inside.
type looped struct {
	*wire
	s      *stand
	cookie string
}

func inLoop(t *testing.T, room *fakeRoom, s *stand) *looped {
	t.Helper()
	_, cookie := room.active(t)
	w := &looped{s.dial(), s, cookie}
	w.get("/first").mustAnswer("GET")
	w.mustBeInLoop()
	return w
}

func (w *looped) get(target string) *wire {
	return w.send("%s", request("GET", target, "", "Cookie: "+w.cookie))
}

// mustBeInLoop waits until no goroutine has a connection.
func (w *looped) mustBeInLoop() {
	w.t.Helper()
	plainOnly(w.t)
	eventually(w.t, "a loop has the connection", func() bool {
		return len(w.s.conns.list()) == 0 && testutil.ToFloat64(w.s.metrics.connections) > 0
	})
}

func oneLoop(c *Config) { c.Loops = 1 }

// Every form that an answer can have passes through a loop, whole and several times over one connection.
func TestLoopPassesEveryKindOfAnswer(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	kinds := map[string]struct {
		body  string
		serve http.HandlerFunc
	}{
		"/none":    {"", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }},
		"/old":     {"", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Etag", `"1"`); w.WriteHeader(304) }},
		"/empty":   {"", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "0") }},
		"/small":   {"small", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "small") }},
		"/chunked": {"one two", func(w http.ResponseWriter, _ *http.Request) { flush(w, "one "); flush(w, "two") }},
		"/slow": {"half whole", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			flush(w, "half ")
			<-time.After(20 * time.Millisecond)
			flush(w, "whole")
		}},
		"/middling": {string(long[:100<<10]), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(100<<10))
			_, _ = w.Write(long[:100<<10])
		}},
		"/long": {string(long), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(long)))
			_, _ = w.Write(long)
		}},
		"/endless": {string(long), func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(long) }},
		"/first":   {"", func(http.ResponseWriter, *http.Request) {}},
	}
	origin := newSite(t, func(w http.ResponseWriter, r *http.Request) { kinds[r.URL.Path].serve(w, r) })
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, oneLoop)
	w := inLoop(t, room, s)
	for range 3 {
		for path, kind := range kinds {
			r := w.get(path).mustAnswer("GET")
			if r.text != kind.body || r.Header.Get("X-Origin") != "1" {
				t.Fatalf("%s: got %d, %d bytes, want %d", path, r.StatusCode, len(r.text), len(kind.body))
			}
		}
	}
	w.mustBeInLoop()
	eventually(t, "nothing is in flight", func() bool { return testutil.ToFloat64(s.metrics.inFlight) == 0 })
}

func flush(w http.ResponseWriter, text string) {
	_, _ = io.WriteString(w, text)
	w.(http.Flusher).Flush()
}

// What is not for a loop goes through fasthttp, on the same connection and in order.
func TestLoopLeavesTheRest(t *testing.T) {
	origin := newSite(t, nil)
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, oneLoop)
	for name, text := range map[string]string{
		"a body":    request("POST", "/x", "abc", "Cookie: COOKIE"),
		"pipelined": request("GET", "/1", "", "Cookie: COOKIE") + request("GET", "/2", "", "Cookie: COOKIE"),
		"no cookie": request("GET", "/x", ""),
		"a poll":    request("GET", "/wr_check", "", "Cookie: COOKIE"),
		"malformed": "GET /x HTTP/1.1\r\nHost : a\r\n\r\n",
		"HEAD":      request("HEAD", "/x", "", "Cookie: COOKIE"),
		"large":     request("GET", "/x", "", "Cookie: COOKIE", "X-Large: "+strings.Repeat("a", 9000)),
		"absolute":  "GET http://shop.test/x HTTP/1.1\r\nHost: shop.test\r\nCookie: COOKIE\r\n\r\n",
	} {
		w := inLoop(t, room, s)
		beside := s.dial() // a connection that was never in a loop says what the answer has to be
		text = strings.ReplaceAll(text, "COOKIE", w.cookie)
		method, _, _ := strings.Cut(text, " ")
		for range strings.Count(text, "HTTP/1.1\r\n") {
			w.send("%s", text)
			beside.send("%s", text)
			text = ""
			got, want := w.mustAnswer(method), beside.mustAnswer(method)
			if got.StatusCode != want.StatusCode || got.text != want.text || got.Close != want.Close {
				t.Errorf("%s: got %d %q, close %v; want %d %q, close %v", name, got.StatusCode, got.text, got.Close, want.StatusCode, want.text, want.Close)
			}
		}
		w.Close()
		beside.Close()
		eventually(t, "both are gone", func() bool { return testutil.ToFloat64(s.metrics.connections) == 0 })
	}
}

// The page is owr's own for a visitor inside too, and so is every other path of its own.
func TestLoopKeepsOwnPaths(t *testing.T) {
	origin := newSite(t, nil)
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, oneLoop)
	w := inLoop(t, room, s)
	before := len(origin.seen())
	for path, want := range map[string]int{pathQueue: 200, pathQueue + "?r=%2Fx": 200, pathCheck: 302, pathHealth: 200, pathReady: 200} {
		r := w.get(path).mustAnswer("GET")
		if r.StatusCode != want || r.Header.Get("X-Origin") != "" {
			t.Errorf("%s: got %d, by the origin: %q", path, r.StatusCode, r.Header.Get("X-Origin"))
		}
	}
	if got := len(origin.seen()); got != before {
		t.Errorf("%d requests have reached the origin", got-before)
	}
}

// A client that takes its answer slowly gets all of it, and is not waited for by the others.
func TestLoopAndASlowReader(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 8<<20)
	origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			w.Header().Set("Content-Length", fmt.Sprint(len(long)))
			_, _ = w.Write(long)
		}
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, oneLoop)
	slow, other := inLoop(t, room, s), inLoop(t, room, s)
	slow.get("/long")
	for range 20 {
		other.get("/").mustAnswer("GET")
	}
	if r := slow.mustAnswer("GET"); len(r.text) != len(long) {
		t.Errorf("%d of %d bytes", len(r.text), len(long))
	}
	slow.get("/").mustAnswer("GET")
}

// A GET is tried once more when a connection that had been used before ends without a byte; and only then.
func TestLoopTriesOnceMore(t *testing.T) {
	var asked atomic.Int32
	var always atomic.Bool
	origin := rawOrigin(t, func(c net.Conn) {
		answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false)(&hangUpOn{Conn: c, asked: &asked, always: &always})
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin, oneLoop)
	w := inLoop(t, room, s)
	w.get("/").mustAnswer("GET") // the loop has a connection of its own from here on
	asked.Store(0)
	if r := w.get("/hangup").mustAnswer("GET"); r.StatusCode != 200 || asked.Load() != 2 {
		t.Errorf("got %d, asked %d times", r.StatusCode, asked.Load())
	}
	always.Store(true)
	asked.Store(0)
	if r := w.get("/hangup").mustAnswer("GET"); r.StatusCode != 502 || asked.Load() != 2 {
		t.Errorf("where it always hangs up: got %d, asked %d times", r.StatusCode, asked.Load())
	}
	if r := w.get("/").mustAnswer("GET"); r.StatusCode != 200 {
		t.Errorf("after that: got %d", r.StatusCode)
	}
}

// hangUpOn is a connection whose origin hangs up when it is asked for /hangup, the first time or always.
type hangUpOn struct {
	net.Conn
	asked  *atomic.Int32
	always *atomic.Bool
}

func (c *hangUpOn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bytes.Contains(p[:n], []byte("/hangup")) && (c.asked.Add(1) == 1 || c.always.Load()) {
		return 0, io.EOF
	}
	return n, err
}

func TestLoopAndABrokenOrigin(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		closes bool
		status int // 0: the client's connection ends in the middle
	}{
		"garbage":         {"garbage\r\n\r\n", true, 502},
		"two lengths":     {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokX", true, 502},
		"half a head":     {"HTTP/1.1 200 OK\r\nContent-", true, 502},
		"half a body":     {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", true, 0},
		"half a chunk":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsh", true, 0},
		"a bad chunk":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nok\r\n0\r\n\r\n", true, 0},
		"never":           {"", false, 504},
		"never a body":    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, 0},
		"a switch":        {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", false, 502},
		"hints first":     {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, 200},
		"a head too long": {"HTTP/1.1 200 OK\r\nX-Big: " + strings.Repeat("a", 70000) + "\r\n\r\n", false, 502},
	} {
		t.Run(name, func(t *testing.T) {
			good, bad := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", atomic.Bool{}
			origin := rawOrigin(t, func(conn net.Conn) {
				answers("", false)(&answersWith{Conn: conn, text: func() (string, bool) {
					if bad.Load() {
						return c.answer, c.closes
					}
					return good, false
				}})
			})
			room := newRoom(t, 10)
			s := serve(t, room, origin, func(cfg *Config) { cfg.Loops, cfg.BackendTimeout = 1, 300*time.Millisecond })
			w := inLoop(t, room, s)
			w.get("/").mustAnswer("GET")
			bad.Store(true)
			r, err := w.get("/").answer("GET")
			switch {
			case c.status == 0 && err == nil:
				t.Errorf("it looks whole: %d %q", r.StatusCode, r.text)
			case c.status != 0 && (err != nil || r.StatusCode != c.status):
				t.Errorf("got %v, %v; want %d", r.Response, err, c.status)
			}
			if c.status == 0 && !w.ended() {
				t.Error("the connection stays open")
			}
			bad.Store(false)
			if r := s.ask("GET", "/", "Cookie: "+w.cookie); r.StatusCode != 200 || r.text != "ok" {
				t.Errorf("the next request: %d %q", r.StatusCode, r.text)
			}
			if c.status != 0 {
				if r := w.get("/").mustAnswer("GET"); r.StatusCode != 200 || r.text != "ok" {
					t.Errorf("the next request of the same client: %d %q", r.StatusCode, r.text)
				}
			}
			eventually(t, "nothing is in flight", func() bool { return testutil.ToFloat64(s.metrics.inFlight) == 0 })
		})
	}
}

// answersWith is a connection whose answers are text's, in place of what is written.
type answersWith struct {
	net.Conn
	text func() (answer string, closes bool)
}

func (c *answersWith) Write([]byte) (int, error) {
	answer, closes := c.text()
	n, err := io.WriteString(c.Conn, answer)
	if err == nil && closes {
		err = io.EOF
	}
	return n, err
}

// Bytes that an origin sends without being asked are nobody's answer.
func TestLoopAndUnaskedBytes(t *testing.T) {
	origin := rawOrigin(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", false))
	room := newRoom(t, 10)
	s := serve(t, room, origin, oneLoop)
	w := inLoop(t, room, s)
	for range 50 {
		if r := w.get("/").mustAnswer("GET"); r.text != "ok" {
			t.Fatalf("got %q", r.text)
		}
	}
}

func TestLoopEndsItsClients(t *testing.T) {
	gate := make(chan struct{})
	origin := newSite(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-gate
		}
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, func(c *Config) { c.Loops, c.IdleTimeout = 1, 300*time.Millisecond })
	idle := inLoop(t, room, s)
	if !idle.ended() {
		t.Error("an idle connection outlives the idle time")
	}
	gone := inLoop(t, room, s)
	gone.get("/wait")
	half := inLoop(t, room, s)
	half.get("/wait")
	_ = half.Conn.(*net.TCPConn).CloseWrite()
	_ = gone.Conn.(*net.TCPConn).SetLinger(0)
	_ = gone.Close()
	eventually(t, "the client that is gone is forgotten", func() bool { return testutil.ToFloat64(s.metrics.connections) == 1 })
	close(gate)
	if r := half.mustAnswer("GET"); r.StatusCode != 200 || !half.ended() {
		t.Errorf("a client that only listens: %d, or its connection stays open", r.StatusCode)
	}
}

func TestLoopDrains(t *testing.T) {
	gate, began := make(chan struct{}), make(chan struct{}, 1)
	origin := newSite(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			began <- struct{}{}
			<-gate
		}
	})
	room := newRoom(t, 10)
	s := serve(t, room, origin.URL, oneLoop)
	idle, busy := inLoop(t, room, s), inLoop(t, room, s)
	busy.get("/wait")
	<-began
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	if !idle.ended() {
		t.Error("an idle connection stays open")
	}
	close(gate)
	if r := busy.mustAnswer("GET"); r.StatusCode != 200 || !r.Close {
		t.Errorf("the request under way: %d, close %v", r.StatusCode, r.Close)
	}
	if err := <-done; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// A defect costs the request that met it, in a loop as elsewhere.
func TestLoopSurvivesADefect(t *testing.T) {
	room := &panickyRoom{fakeRoom: newRoom(t, 10)}
	log := &lockedBuffer{}
	s := serve(t, room.fakeRoom, newSite(t, nil).URL, func(c *Config) { c.Room, c.Loops, c.Logger = room, 1, textLogger(log) })
	w, other := inLoop(t, room.fakeRoom, s), inLoop(t, room.fakeRoom, s)
	room.broken.Store(true)
	if r := w.get("/").mustAnswer("GET"); r.StatusCode != 500 || !r.Close || !w.ended() {
		t.Errorf("got %d", r.StatusCode)
	}
	room.broken.Store(false)
	if r := other.get("/").mustAnswer("GET"); r.StatusCode != 200 {
		t.Errorf("the next one: got %d", r.StatusCode)
	}
	if got := testutil.ToFloat64(s.metrics.panics); got != 1 {
		t.Errorf("owr_panics_total: got %v, want 1", got)
	}
}

// brokenLog has a defect that shows when one thing is logged for the first time.
type brokenLog struct {
	slog.Handler
	text string
	met  *atomic.Bool
}

func (brokenLog) Enabled(context.Context, slog.Level) bool { return true }

func (h brokenLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == h.text && !h.met.Swap(true) {
		panic("defect")
	}
	return h.Handler.Handle(ctx, r)
}

// So it does in the goroutine that makes a connection to the origin, whether that has been made by then or not.
func TestLoopSurvivesADefectInADial(t *testing.T) {
	plainOnly(t)
	for text, status := range map[string]int{"origin is unreachable": 502, "origin is back": 200} {
		room := newRoom(t, 10)
		origin := newSite(t, nil).URL
		if status == 502 {
			origin = "http://127.0.0.1:1"
		}
		s := serve(t, room, origin, func(c *Config) {
			c.Loops, c.VisitorConcurrency = 1, 1
			c.Logger = slog.New(brokenLog{slog.DiscardHandler, text, new(atomic.Bool)})
		})
		s.origin.down.Store(status == 200)
		_, cookie := room.active(t)
		w := &looped{s.dial(), s, cookie}
		if r := w.get("/").mustAnswer("GET"); r.StatusCode != 502 {
			t.Errorf("%s: got %d", text, r.StatusCode)
		}
		if got, conns := testutil.ToFloat64(s.metrics.panics), testutil.ToFloat64(s.metrics.originConns); got != 1 || conns != 0 {
			t.Errorf("%s: owr_panics_total is %v, and there are %v connections to the origin", text, got, conns)
		}
		if r := w.get("/").mustAnswer("GET"); r.StatusCode != status {
			t.Errorf("%s: the next one: got %d, want %d", text, r.StatusCode, status)
		}
	}
}

// A visitor whose slot is gone is not let in by a connection that was.
func TestLoopDecidesEachRequest(t *testing.T) {
	room := newRoom(t, 1)
	s := serve(t, room, newSite(t, nil).URL, oneLoop)
	token, cookie := room.active(t)
	w := &looped{s.dial(), s, cookie}
	w.get("/").mustAnswer("GET")
	w.mustBeInLoop()
	room.do(func(r *fakeRoom) { delete(r.views, token) })
	room.active(t) // somebody else has the slot
	if r := w.get("/").mustAnswer("GET"); r.StatusCode != 302 {
		t.Errorf("got %d", r.StatusCode)
	}
}

// A poll is answered in a loop: at once where this replica can say, and without holding up anybody where the cluster has to.
func TestLoopAnswersPolls(t *testing.T) {
	room := newRoom(t, 1)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.Loops, c.DecisionTimeout = 1, 500*time.Millisecond })
	inside, _ := room.active(t)
	_, cookie := room.queued(t)
	w := &looped{s.dial(), s, cookie}
	poll := func() reply { return w.get("/wr_check?r=%2Fshop").mustAnswer("GET") }
	poll()
	w.mustBeInLoop()
	if r := poll(); r.StatusCode != 200 || !strings.Contains(r.text, `"position":1`) || r.Header.Get("Retry-After") == "" {
		t.Errorf("waiting: %d %q", r.StatusCode, r.text)
	}
	room.do(func(r *fakeRoom) {
		v := r.views[tokenOf(cookie)]
		v.State = queue.Absent
		r.views[tokenOf(cookie)] = v
		r.submitErr = errNoQuorum
	})
	if r := poll(); r.StatusCode != 200 || !strings.Contains(r.text, `"position":1`) {
		t.Errorf("absent, and the cluster cannot say: %d %q", r.StatusCode, r.text)
	}
	room.do(func(r *fakeRoom) {
		delete(r.views, inside)
		r.line = nil
		r.views[tokenOf(cookie)] = queue.View{State: queue.Released, Ticket: 1}
	})
	if r := poll(); r.StatusCode != 503 || !strings.Contains(r.text, "error") {
		t.Errorf("released, and the cluster cannot say: %d %q", r.StatusCode, r.text)
	}
	room.do(func(r *fakeRoom) { r.submitErr = nil })
	if r := poll(); r.StatusCode != 302 || r.Header.Get("Location") != "/shop" || r.ours() == "" {
		t.Errorf("released: %d %q", r.StatusCode, r.Header.Get("Location"))
	}
	if r := poll(); r.StatusCode != 302 || r.Header.Get("Location") != "/shop" {
		t.Errorf("inside: %d", r.StatusCode)
	}
	if r := w.get("/").mustAnswer("GET"); r.StatusCode != 200 {
		t.Errorf("and then: %d", r.StatusCode)
	}
	w.mustBeInLoop()
}

// A client that hangs up while the cluster decides is forgotten.
func TestLoopForgetsWhoDoesNotWait(t *testing.T) {
	room := &slowRoom{fakeRoom: newRoom(t, 1), then: make(chan func(), 1)}
	s := serve(t, room.fakeRoom, newSite(t, nil).URL, func(c *Config) { c.Room, c.Loops, c.DecisionTimeout = room, 1, 300*time.Millisecond })
	_, cookie := room.queued(t)
	w := &looped{s.dial(), s, cookie}
	w.get("/wr_check").mustAnswer("GET")
	w.mustBeInLoop()
	room.set(tokenOf(cookie), queue.View{State: queue.Released, Ticket: 1})
	if r := w.get("/wr_check").mustAnswer("GET"); r.StatusCode != 503 {
		t.Errorf("no decision in time: %d", r.StatusCode)
	}
	(<-room.then)() // it comes too late
	w.get("/wr_check")
	late := <-room.then
	_ = w.Conn.(*net.TCPConn).SetLinger(0)
	_ = w.Close()
	eventually(t, "the client is forgotten", func() bool { return testutil.ToFloat64(s.metrics.connections) == 0 })
	late()
	if got := testutil.ToFloat64(s.metrics.inFlight); got != 0 {
		t.Errorf("%v requests in flight", got)
	}
}

// slowRoom hands its decisions to the test.
type slowRoom struct {
	*fakeRoom
	then chan func()
}

func (r *slowRoom) SubmitFunc(_ time.Time, c queue.Command, then func(queue.Decision, error)) error {
	r.then <- func() { then(queue.Decision{State: queue.Active, Index: 101}, nil) }
	return nil
}

// Everything that is posted is called, in order, however it comes.
func TestLoopHeedsEverything(t *testing.T) {
	plainOnly(t)
	s := serve(t, newRoom(t, 1), newSite(t, nil).URL, oneLoop)
	eventually(t, "the loop runs", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.loops) == 1
	})
	l := s.loops[0]
	const writers, each = 4, 5000
	var called atomic.Int32
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			last := -1
			for i := range each {
				l.post(func() {
					if i != last+1 {
						t.Errorf("%d is called after %d", i, last)
					}
					last = i
					called.Add(1)
				})
				if i%997 == 0 {
					<-time.After(time.Millisecond) // waves: the loop has caught up, or not
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all are called", func() bool { return called.Load() == writers*each })
}

// tokenOf is the token in a cookie pair.
func tokenOf(cookie string) queue.Token {
	token, _, _ := ParseCookie([]byte(strings.TrimPrefix(cookie, "wr_token=")))
	return token
}

func FuzzWholeChunks(f *testing.F) {
	f.Add([]byte("2\r\nok\r\n0\r\n\r\n"))
	f.Add([]byte("2;a=b\r\nok\r\n1\r\n!\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, whole := appendWholeChunks(nil, data)
		if !whole {
			return
		}
		again, stays := appendWholeChunks(nil, out)
		if !stays || !bytes.Equal(out, again) {
			t.Fatalf("%q became %q, and that %q", data, out, again)
		}
	})
}

// The limit of a visitor is kept by the loops: it does not send a connection to a goroutine.
func TestVisitorRPSInALoop(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.Loops, c.VisitorRPS = 1, 2 })
	w := inLoop(t, room, s)
	var statuses []int
	for range 6 {
		statuses = append(statuses, w.get("/").mustAnswer("GET").StatusCode)
	}
	w.mustBeInLoop()
	if statuses[0] != 200 || statuses[5] != 429 {
		t.Errorf("got %v", statuses)
	}
}
