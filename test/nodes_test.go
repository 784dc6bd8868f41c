package test

import (
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// again is how soon newcomers must get in again after a node was lost: an election and its batches, on a
// busy machine.
const again = 15 * time.Second

func TestLeaderIsKilled(t *testing.T) {
	w := harness.NewWorld(t, 5, nil)
	watch := w.Watch()
	inside, waiting := w.LineUp(8)
	crowd := w.NewCrowd(20, 300*time.Millisecond, 2)
	places(t, w, waiting)

	dead := w.Leader()
	dead.Kill()
	for _, b := range inside {
		for _, n := range w.Alive() {
			if e := b.Get(n, "/"); e.Outcome != harness.Inside {
				t.Errorf("a visitor inside, during the election, on %s: %v", n.ID, e)
			}
		}
	}
	for _, b := range inside {
		leave(t, w, b)
	}
	entered(t, w, 20, again)
	dead.Start()
	dead.WaitReady()
	entered(t, w, 10, again)
	audit(w, watch, crowd, waiting...)
}

func TestFollowerIsKilled(t *testing.T) {
	w := harness.NewWorld(t, 5, nil)
	watch := w.Watch()
	crowd := w.NewCrowd(20, 300*time.Millisecond, 3)
	entered(t, w, 10, again)
	dead := w.Followers()[0]
	dead.Kill()
	entered(t, w, 20, again)
	dead.Start()
	dead.WaitReady()
	entered(t, w, 10, again)
	audit(w, watch, crowd)
}

func TestAllAreKilledAtOnce(t *testing.T) {
	w := harness.NewWorld(t, 3, nil)
	watch := w.Watch()
	inside, waiting := w.LineUp(12)
	before := positions(w, waiting)
	for _, n := range w.Nodes {
		n.Kill()
	}
	w.Start()
	for i, b := range waiting {
		if got := b.Check(w.Nodes[i%3]).Position; got != before[i] {
			t.Errorf("%s waited at %d before and waits at %d after", b.Name, before[i], got)
		}
	}
	for _, b := range inside {
		for _, n := range w.Nodes {
			if e := b.Get(n, "/"); e.Outcome != harness.Inside {
				t.Errorf("a visitor inside, on %s: %v", n.ID, e)
			}
		}
	}
	audit(w, watch, nil, append(inside, waiting...)...)
}

// TestNodesAreRestartedInTurn is an upgrade: each node ends in good order and comes back, and a
// visitor on the other two notices nothing.
func TestNodesAreRestartedInTurn(t *testing.T) {
	w := harness.NewWorld(t, 5, nil)
	watch := w.Watch()
	inside, waiting := w.LineUp(8)
	for _, n := range w.Nodes {
		if code := n.Terminate(30 * time.Second); code != 0 {
			t.Errorf("%s ended with exit code %d", n.ID, code)
		}
		for _, b := range inside {
			for _, other := range w.Alive() {
				if e := b.Get(other, "/"); e.Outcome != harness.Inside {
					t.Errorf("while %s is away: %v", n.ID, e)
				}
			}
		}
		n.Start()
		n.WaitReady()
		places(t, w, waiting)
	}
	audit(w, watch, nil, append(inside, waiting...)...)
}

// positions asks each visitor's place, on one node after the other.
func positions(w *harness.World, waiting []*harness.Browser) []int {
	var all []int
	for i, b := range waiting {
		all = append(all, b.Check(w.Nodes[i%len(w.Nodes)]).Position)
	}
	return all
}

// places checks that the visitors stand in line in their order, asked on all nodes in turn.
func places(t *testing.T, w *harness.World, waiting []*harness.Browser) {
	t.Helper()
	last := 0
	for i, p := range positions(w, waiting) {
		if p <= last {
			t.Errorf("%s waits at %d, behind one that came later", waiting[i].Name, p)
		}
		last = p
	}
}

// leave gives up a visitor's slot on whichever node can.
func leave(t *testing.T, w *harness.World, b *harness.Browser) {
	t.Helper()
	harness.WaitFor(t, b.Name+" leaves", again, func() bool { return b.Leave(w.Alive()[0]) == nil })
}
