package test

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// TestSlotsOfClientsWithoutCookies: a flood of clients that keep no cookies takes every slot, once. Those who wait have the slots as soon
// as first_hit_ttl is over, and a client that brings its cookie after all is at the head of the line.
func TestSlotsOfClientsWithoutCookies(t *testing.T) {
	const slots, flood, wait = 100, 1000, 30
	w := harness.NewWorld(t, slots, harness.Settings{"WR_FIRST_HIT_TTL": "3"})
	room := func() harness.Status {
		s, err := w.Nodes[0].Status()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	harness.WaitFor(t, "the limit is in force on every node", again, func() bool {
		for _, n := range w.Nodes {
			if s, err := n.Status(); err != nil || s.Room.FirstHitTTL != 3 {
				return false
			}
		}
		return true
	})

	ghost := w.Browser() // the first of all: it keeps its cookie and does not come back for a while
	if e := ghost.Get(w.Nodes[0], "/"); e.Outcome != harness.Inside {
		t.Fatalf("a first visit: %v", e)
	}
	guest := w.Browser() // comes back at once
	for range 2 {
		if e := guest.Get(w.Nodes[1], "/"); e.Outcome != harness.Inside {
			t.Fatalf("a visitor with a cookie: %v", e)
		}
	}
	var in atomic.Int64
	var wg sync.WaitGroup
	client := &http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for part := range 10 {
		wg.Go(func() {
			for i := range flood / 10 {
				res, err := client.Get(w.Nodes[(part+i)%3].URL + "/")
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					in.Add(1)
				}
			}
		})
	}
	wg.Wait()
	client.CloseIdleConnections()
	harness.WaitFor(t, "the guest is confirmed", again, func() bool { return room().Room.Unconfirmed == slots-1 })
	if s := room(); in.Load() != slots-2 || s.Room.Active != slots || s.Room.Queued != 0 {
		t.Errorf("%d of the flood were let in, %+v; want %d, all slots held, and nobody in line", in.Load(), s.Room, slots-2)
	}

	_, waiting := w.LineUp(wait)
	if len(waiting) != wait {
		t.Fatalf("%d of %d wait", len(waiting), wait)
	}
	begun := time.Now()
	inside := make([]bool, wait)
	harness.WaitFor(t, "all who wait are let in", 30*time.Second, func() bool {
		left := 0
		for i, b := range waiting {
			if !inside[i] {
				inside[i] = b.Enter(w.Nodes[i%3]).Outcome == harness.Inside
			}
			if !inside[i] {
				left++
			}
		}
		return left == 0
	})
	t.Logf("%d who waited were inside %v after the last of them came", wait, time.Since(begun).Round(10*time.Millisecond))
	// The last of them may have entered through another node than the one that is asked here.
	harness.WaitFor(t, "the first node knows of the last entry", again, func() bool { return room().Room.Active == slots })
	if s := room(); s.Room.TakenBack != wait {
		t.Errorf("%+v; want %d slots taken back and no more", s.Room, wait)
	}
	if e := guest.Get(w.Nodes[2], "/"); e.Outcome != harness.Inside {
		t.Errorf("whoever had come back: %v", e)
	}

	// The slots that the rest of the flood holds go to the next ones too; so the room is made full of those who stay.
	_, late := w.LineUp(1)
	if len(late) != 1 {
		t.Fatal("nobody waits")
	}
	if e := ghost.Visit(w.Nodes[1], "/"); e.Outcome == harness.Waiting && e.Position != 1 {
		t.Errorf("the first one of all, back: %v, want it at the head of the line", e)
	}
	harness.WaitFor(t, "it is inside again", again, func() bool { return ghost.Enter(w.Nodes[2]).Outcome == harness.Inside })
}
