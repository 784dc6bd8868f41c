package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/queue"
)

// mustBeFree waits until nothing is left of any request, and ends the server, which does not wait for more.
func (s *stand) mustBeFree(what string) {
	s.t.Helper()
	for name, left := range map[string]func() float64{
		"tunnels": func() float64 { return testutil.ToFloat64(s.metrics.tunnels) }, "requests in flight": func() float64 { return testutil.ToFloat64(s.metrics.inFlight) },
		"connections": func() float64 { return testutil.ToFloat64(s.metrics.connections) }, "requests of the visitor": func() float64 { return float64(s.stays.here()) },
	} {
		eventually(s.t, what+": no "+name, func() bool { return left() == 0 })
	}
	eventually(s.t, what+": no connections to the origin in use", func() bool {
		s.origin.mu.Lock()
		defer s.origin.mu.Unlock()
		return len(s.origin.all) == len(s.origin.idle)
	})
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		s.t.Errorf("%s: shutdown: %v", what, err)
	}
	if got := testutil.ToFloat64(s.metrics.originConns); got != 0 {
		s.t.Errorf("%s: %v connections to the origin", what, got)
	}
}

// hijacks are the two ways in which a request outlives its handler.
var hijacks = map[string]struct{ request, answer string }{
	"a tunnel":                  {"GET /ws HTTP/1.1\r\n" + handshake, switched},
	"an answer until the close": {"GET / HTTP/1.0\r\n", "HTTP/1.1 200 OK\r\n\r\n"},
}

// fasthttp takes a connection that has ended meanwhile for no connection to hand over. Whatever the request holds is given back then too.
func TestABrokenConnectionIsNotTakenOver(t *testing.T) {
	for name, c := range hijacks {
		stands := make(chan *stand, 1)
		origin := rawOrigin(t, func(conn net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
				return
			}
			s := <-stands
			for _, client := range s.conns.list() {
				client.cut() // the handler waits for the answer, and finds it gone
			}
			_, _ = io.WriteString(conn, c.answer)
			_, _ = io.Copy(io.Discard, conn)
		})
		room := newRoom(t, 10)
		s := serve(t, room, origin, func(c *Config) { c.VisitorConcurrency = 1 })
		stands <- s
		_, cookie := room.active(t)
		if w := s.dial().send("%sHost: shop.test\r\nCookie: %s\r\n\r\n", c.request, cookie); !w.ended() {
			t.Errorf("%s: the connection is open", name)
		}
		s.mustBeFree(name)
	}
}

// defective is a room with so many defects in store.
type defective struct {
	*fakeRoom
	touches, lookups atomic.Int32
}

func (r *defective) Touch(t queue.Token) {
	if r.touches.Add(-1) >= 0 {
		panic("defect")
	}
	r.fakeRoom.Touch(t)
}

func (r *defective) Lookup(t queue.Token) queue.View {
	if r.lookups.Add(-1) >= 0 {
		panic("defect")
	}
	return r.fakeRoom.Lookup(t)
}

// A defect behind the handler costs the request that has met it, with all that it holds, and nobody else.
func TestADefectBehindTheHandler(t *testing.T) {
	for name, c := range hijacks {
		for defect, count := range map[string]struct{ touches, lookups int32 }{
			"while bytes move": {1, 0}, "and another one at the end": {2, 0}, "while nothing moves": {0, 1},
		} {
			if name != "a tunnel" && count.lookups > 0 {
				continue // it does not look
			}
			t.Run(name+"/"+defect, func(t *testing.T) {
				gate := make(chan struct{})
				origin := rawOrigin(t, func(conn net.Conn) {
					if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
						return
					}
					_, _ = io.WriteString(conn, c.answer+"one")
					<-gate
					_, _ = io.WriteString(conn, "two")
					_, _ = io.Copy(io.Discard, conn)
				})
				room := &defective{fakeRoom: newRoom(t, 10)}
				log := &lockedBuffer{}
				s := serve(t, room.fakeRoom, origin, func(c *Config) { c.Room, c.VisitorConcurrency, c.Logger = room, 1, textLogger(log) })
				_, cookie := room.active(t)
				w := s.dial().send("%sHost: shop.test\r\nCookie: %s\r\n\r\n", c.request, cookie)
				if _, err := http.ReadResponse(w.br, nil); err != nil {
					t.Fatal(err)
				}
				w.expect("one")
				room.advance(2 * time.Second) // the next byte is worth a touch
				room.touches.Store(count.touches)
				room.lookups.Store(count.lookups)
				if count.touches > 0 {
					close(gate)
				} else {
					defer close(gate)
				}
				if _, err := io.Copy(io.Discard, w.br); isTimeout(err) {
					t.Error("the connection is open")
				}
				want := 1.0
				if name != "a tunnel" {
					want = float64(count.touches) // a tunnel's end is no sign of life
				}
				eventually(t, "the defects are counted", func() bool { return testutil.ToFloat64(s.metrics.panics) == want })
				room.touches.Store(0)
				s.mustBeFree(defect)
			})
		}
	}
}
