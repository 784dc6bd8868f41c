package harness

import (
	"maps"
	"sync"
	"testing"
)

// A World is a cluster with its Redis and its origin, and everything that visitors have seen of it.
type World struct {
	*Cluster
	Redis  *Redis
	Origin *Origin
	Max    int // slots

	mu     sync.Mutex
	events []Event
}

// NewWorld starts three nodes, a Redis and an origin, with so many slots.
func NewWorld(t testing.TB, slots int, settings Settings) *World {
	t.Helper()
	w := PrepareWorld(t, slots, settings)
	w.Start()
	return w
}

// PrepareWorld is NewWorld without the start of the nodes.
func PrepareWorld(t testing.TB, slots int, settings Settings) *World {
	t.Helper()
	Binary(t) // skips the test before anything has been started
	w := &World{Redis: NewRedis(t), Origin: NewOrigin(t), Max: slots}
	all := Settings{"WR_MAX_ACTIVE": itoa(slots), "WR_LOG_LEVEL": "debug"}
	maps.Copy(all, w.Redis.Settings())
	maps.Copy(all, settings)
	w.Cluster = NewCluster(t, 3, w.Origin.URL, all)
	return w
}

// Browser makes a visitor whose requests are part of the history.
func (w *World) Browser() *Browser {
	return NewBrowser(w.t, func(e Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	})
}

// Events are all requests so far.
func (w *World) Events() []Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Event(nil), w.events...)
}

// Forget drops all that visitors and the origin have seen so far: after harm in which more are let in on purpose than there are slots.
func (w *World) Forget() {
	w.mu.Lock()
	w.events = nil
	w.mu.Unlock()
	w.Origin.mu.Lock()
	w.Origin.hits = nil
	w.Origin.mu.Unlock()
}

// LineUp sends so many new visitors, one after the other, each to the next node. It answers those
// inside and those waiting, in order.
func (w *World) LineUp(count int) (inside, waiting []*Browser) {
	w.t.Helper()
	for i := range count {
		b := w.Browser()
		switch e := b.Visit(w.Nodes[i%len(w.Nodes)], "/"); e.Outcome {
		case Inside:
			inside = append(inside, b)
		case Waiting:
			waiting = append(waiting, b)
		default:
			w.t.Fatalf("a newcomer: %v", e)
		}
	}
	return inside, waiting
}
