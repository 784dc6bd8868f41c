package proxy

import (
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A connection too many takes the place of the one that was idle for the longest time.
func TestMaxConnsClosesIdleOnes(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.MaxConns = 3 })
	var old []*wire
	for range 3 {
		w := s.dial()
		if r := w.send("%s", request("GET", "/queue.html", "")).mustAnswer("GET"); r.StatusCode != 200 {
			t.Fatalf("within the limit: got %d", r.StatusCode)
		}
		old = append(old, w)
	}
	eventually(t, "a newcomer is served", func() bool {
		w := s.dial()
		r, err := w.send("%s", request("GET", "/queue.html", "")).answer("GET")
		return err == nil && r.StatusCode == 200
	})
	if got := testutil.ToFloat64(s.metrics.limited[limitIdle]); got != 1 {
		t.Errorf("owr_limited_total{reason=\"idle_closed\"}: got %v, want 1", got)
	}
	open := 0
	for _, w := range old {
		r, err := w.send("%s", request("GET", "/queue.html", "")).answer("GET")
		if err == nil && r.StatusCode == 200 {
			open++
		}
	}
	if open != 2 {
		t.Errorf("%d of the three connections are left, want 2", open)
	}
}

// Nobody's request is ended to make room: then the newest is one too many.
func TestMaxConnsRefusesTheNewest(t *testing.T) {
	plainOnly(t) // over TLS the newest is closed without a word
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	gate := make(chan struct{})
	s := serve(t, room, newSite(t, func(http.ResponseWriter, *http.Request) { <-gate }).URL, func(c *Config) { c.MaxConns, c.BackendTimeout = 2, time.Minute })
	busy := []*wire{s.dial(), s.dial()}
	for _, w := range busy {
		w.send("%s", request("GET", "/slow", "", "Cookie: "+cookie))
	}
	eventually(t, "two requests are under way", func() bool { return testutil.ToFloat64(s.metrics.inFlight) == 2 })
	if r := s.dial().mustAnswer("GET"); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || !r.Close {
		t.Errorf("one too many: got %d", r.StatusCode)
	}
	if got := testutil.ToFloat64(s.metrics.limited[limitConns]); got != 1 {
		t.Errorf("owr_limited_total{reason=\"max_conns\"}: got %v, want 1", got)
	}
	close(gate)
	for _, w := range busy {
		if r := w.mustAnswer("GET"); r.StatusCode != 200 {
			t.Errorf("a request under way: got %d", r.StatusCode)
		}
		w.Close()
	}
	eventually(t, "there is room again", func() bool {
		w := s.dial()
		defer w.Close()
		r, err := w.send("%s", request("GET", "/queue.html", "")).answer("GET")
		return err == nil && r.StatusCode == 200
	})
}

// Connections to the origin take what clients leave of the descriptors, and no more.
func TestDescriptorsAreShared(t *testing.T) {
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	gate := make(chan struct{})
	origin := newSite(t, func(http.ResponseWriter, *http.Request) { <-gate })
	s := serve(t, room, origin.URL, func(c *Config) { c.MaxDescriptors, c.BackendTimeout = 20, time.Minute })
	var all []*wire
	for range 25 {
		w := s.dial()
		w.send("%s", request("GET", "/slow", "", "Cookie: "+cookie))
		all = append(all, w)
	}
	eventually(t, "some have no connection to the origin", func() bool {
		return testutil.ToFloat64(s.metrics.limited[limitDescriptors]) > 0 && len(origin.seen())+int(testutil.ToFloat64(s.metrics.limited[limitDescriptors])) == 25
	})
	close(gate)
	statuses := map[int]int{}
	for _, w := range all {
		statuses[w.mustAnswer("GET").StatusCode]++
	}
	if statuses[200] == 0 || statuses[503] == 0 || len(statuses) != 2 {
		t.Errorf("got %v", statuses)
	}
}
