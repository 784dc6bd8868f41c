package test

import (
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

func TestOneVisitorThroughThreeNodes(t *testing.T) {
	w := harness.NewWorld(t, 1, nil)
	watch := w.Watch()
	inside, waiting := w.LineUp(3)
	if len(inside) != 1 || len(waiting) != 2 {
		t.Fatalf("one slot, three visitors: %d inside, %d waiting", len(inside), len(waiting))
	}
	for i, b := range waiting {
		id := b.ID()
		for _, n := range w.Nodes {
			if e := b.Visit(n, "/shop"); e.Outcome != harness.Waiting || e.Position != i+1 || b.ID() != id {
				t.Errorf("on %s: %v, id %s; want place %d, id %s", n.ID, e, b.ID(), i+1, id)
			}
		}
	}
	for _, n := range w.Nodes {
		if e := inside[0].Get(n, "/shop"); e.Outcome != harness.Inside {
			t.Errorf("admitted on one node, on %s: %v", n.ID, e)
		}
	}

	// It gives its slot up on one node, and the head of the line comes in on another.
	if err := inside[0].Leave(w.Nodes[1]); err != nil {
		t.Fatal(err)
	}
	head := waiting[0]
	var in harness.Event
	harness.WaitFor(t, "the head of the line is let in", 3*time.Second, func() bool {
		in = head.Check(w.Nodes[2])
		return in.Outcome == harness.LetIn
	})
	if in.Location != "/shop" {
		t.Errorf("it is sent to %s, not to the page it asked for", in.Location)
	}
	for _, n := range w.Nodes {
		if e := head.Get(n, "/shop"); e.Outcome != harness.Inside {
			t.Errorf("let in, on %s: %v", n.ID, e)
		}
	}
	audit(w, watch, nil, waiting...)
}

// TestVisitorsWhoComeAndGo is the room on a good day: a crowd larger than its slots, nodes picked at random.
func TestVisitorsWhoComeAndGo(t *testing.T) {
	w := harness.NewWorld(t, 5, nil)
	watch := w.Watch()
	crowd := w.NewCrowd(25, 300*time.Millisecond, 1)
	entered(t, w, 40, 30*time.Second)
	audit(w, watch, crowd)
}

// entered waits until so many more visitors have reached the origin.
func entered(t *testing.T, w *harness.World, more int, limit time.Duration) {
	t.Helper()
	before := visitors(w)
	harness.WaitFor(t, "visitors come in", limit, func() bool { return visitors(w) >= before+more })
}

// visitors counts those that have reached the origin.
func visitors(w *harness.World) int {
	seen := map[string]bool{}
	for _, h := range w.Origin.Hits() {
		seen[h.Visitor] = true
	}
	return len(seen)
}
