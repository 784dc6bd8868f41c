package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/queue"
)

// A gatedSite is an origin that answers when it is told to.
func gatedSite(t *testing.T) (origin *site, arrived chan struct{}, open func()) {
	t.Helper()
	arrived, gate := make(chan struct{}, 100), make(chan struct{})
	origin = newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-gate
		_, _ = fmt.Fprint(w, strings.Repeat("x", 600<<10)) // more than a loop passes on itself
	})
	open = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	return origin, arrived, open
}

// Each way through the proxy counts, and each gives back what it has counted.
func TestVisitorConcurrency(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"loops": nil, "goroutines": withoutLoops,
	} {
		t.Run(name, func(t *testing.T) {
			room := newRoom(t, 10)
			origin, arrived, open := gatedSite(t)
			s := serve(t, room, origin.URL, func(c *Config) {
				c.VisitorConcurrency = 3
				if change != nil {
					change(c)
				}
			})
			_, cookie := room.active(t)
			_, other := room.active(t)
			var inside []*wire
			for range 2 {
				inside = append(inside, s.dial().send("%s", request("GET", "/", "", "Cookie: "+cookie)))
				<-arrived
			}
			inside = append(inside, s.dial().send("%s", request("POST", "/", "body", "Cookie: "+cookie)))
			<-arrived
			for _, accept := range []string{"text/html", "application/json"} {
				r := s.ask("GET", "/", "Cookie: "+cookie, "Accept: "+accept)
				ownAnswer(t, r)
				if r.StatusCode != 429 || r.Header.Get("Retry-After") == "" {
					t.Errorf("one too many: got %d, Retry-After %q", r.StatusCode, r.Header.Get("Retry-After"))
				}
			}
			if got := testutil.ToFloat64(s.stays.refused); got != 2 {
				t.Errorf("refused: got %v, want 2", got)
			}
			if r := s.ask("GET", "/wr_check", "Cookie: "+cookie); r.StatusCode != 302 {
				t.Errorf("owr's own answers count: got %d", r.StatusCode)
			}
			s.dial().send("%s", request("GET", "/", "", "Cookie: "+other))
			<-arrived // another visitor is not held up
			open()
			for _, w := range inside {
				if r := w.mustAnswer("GET"); r.StatusCode != 200 {
					t.Errorf("got %d", r.StatusCode)
				}
			}
			eventually(t, "nothing is counted any more", func() bool { return s.stays.here() == 0 })
			if r := s.ask("GET", "/", "Cookie: "+cookie); r.StatusCode != 200 {
				t.Errorf("after that: got %d", r.StatusCode)
			}
		})
	}
}

// Whatever becomes of a request, it is not counted for ever.
func TestConcurrencyIsGivenBack(t *testing.T) {
	for name, origin := range map[string]func(*testing.T) string{
		"no origin": func(*testing.T) string { return "http://127.0.0.1:1" },
		"an origin that hangs up": func(t *testing.T) string {
			t.Helper()
			return rawOrigin(t, answers("", true))
		},
		"an answer cut short": func(t *testing.T) string {
			t.Helper()
			return rawOrigin(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", true))
		},
		"no upgrade": func(t *testing.T) string {
			t.Helper()
			return rawOrigin(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false))
		},
		"an upgrade that ends": func(t *testing.T) string {
			t.Helper()
			return rawOrigin(t, answers("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", true))
		},
	} {
		t.Run(name, func(t *testing.T) {
			room := newRoom(t, 10)
			s := serve(t, room, origin(t), func(c *Config) { c.VisitorConcurrency = 1 })
			_, cookie := room.active(t)
			for _, lines := range [][]string{nil, {"Connection: Upgrade", "Upgrade: websocket"}} {
				for _, method := range []string{"GET", "POST"} {
					w := s.dial().send("%s", request(method, "/", "", append(lines, "Cookie: "+cookie, "Connection: close")...))
					_, _ = w.answer(method)
					_ = w.Close()
					eventually(t, "nothing is counted any more", func() bool { return s.stays.here() == 0 })
				}
			}
			if got := testutil.ToFloat64(s.stays.refused); got != 0 {
				t.Errorf("refused: %v", got)
			}
		})
	}
}

// here is how many visitors have a request under way.
func (c *stays) here() int {
	n := 0
	for i := range c.shards {
		c.shards[i].mu.Lock()
		n += len(c.shards[i].of)
		c.shards[i].mu.Unlock()
	}
	return n
}

func TestStays(t *testing.T) {
	s, err := New(Config{Room: newRoom(t, 1), Backend: mustURL(t, "http://127.0.0.1:1"), VisitorConcurrency: 2})
	if err != nil {
		t.Fatal(err)
	}
	one, two := newToken(), newToken()
	a, b := s.stays.begin(one), s.stays.begin(one)
	if a == nil || b == nil || s.stays.begin(one) != nil || s.stays.begin(two) == nil {
		t.Error("the limit is not that of each visitor")
	}
	a.end()
	a.end() // copies of a presence end more than once
	if s.stays.begin(one) == nil || s.stays.begin(one) != nil {
		t.Error("an end counts twice, or not at all")
	}
	(*stay)(nil).end()
	var v verdict
	v.outcome, v.token = letIn, one
	if p := s.enter(&v); p.stay != nil || v.outcome != limited || v.token == (queue.Token{}) {
		t.Errorf("got %+v", v)
	}
}
