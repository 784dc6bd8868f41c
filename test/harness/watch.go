package harness

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A Watch looks at every table and at Redis again and again, and remembers the most slots held.
type Watch struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	Tables int // the most that a node's status said; read it after Stop
	Redis  int // the most that the picture showed; read it after Stop
}

// Watch starts a watch. The numbers are valid after Stop.
func (w *World) Watch() *Watch {
	ctx, cancel := context.WithCancel(context.Background())
	watch := &Watch{cancel: cancel}
	nodes := slices.Clone(w.Nodes) // a test may go on with fewer
	look := func() {
		for _, n := range nodes {
			if s, err := n.Status(); err == nil {
				watch.Tables = max(watch.Tables, s.Room.Active+s.Room.Released)
			}
		}
		if p, err := w.Redis.Picture(); err == nil {
			watch.Redis = max(watch.Redis, len(p.Active)+len(p.Released))
		}
	}
	watch.wg.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for ctx.Err() == nil {
			look()
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
		look() // at how it ended, too
	})
	w.t.Cleanup(watch.Stop)
	return watch
}

// Stop ends the watch.
func (w *Watch) Stop() {
	w.cancel()
	w.wg.Wait()
}

// Check fails the test when more slots were held than there are. Call it after Stop.
func (w *Watch) Check(world *World) {
	world.t.Helper()
	if w.Tables > world.Max || w.Redis > world.Max {
		world.t.Errorf("%d slots: a table held %d, Redis showed %d", world.Max, w.Tables, w.Redis)
	}
	if w.Tables == 0 {
		world.t.Error("the watch has seen no slot held")
	}
}
