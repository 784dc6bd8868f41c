package test

import (
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/test/harness"
)

// TestLostAnswersOfPollsCostNoPlace: the answers that tell a visitor to come in are lost, and it looks away. Its slot goes to the next one
// when active_ttl is over, and it has its place again.
func TestLostAnswersOfPollsCostNoPlace(t *testing.T) {
	w := harness.NewWorld(t, 1, harness.Settings{"WR_ACTIVE_TTL": "1"})
	for _, n := range w.Nodes {
		harness.WaitFor(t, "the newest feature level", again, func() bool {
			s, err := n.Status()
			return err == nil && s.FeatureLevel == cluster.FeatureLevel
		})
	}
	_, waiting := w.LineUp(5)
	if len(waiting) != 4 {
		t.Fatalf("%d wait, want 4", len(waiting))
	}
	unlucky, next, third, last := waiting[0], waiting[1], waiting[2], waiting[3]
	// Who is inside asks for nothing more, so its slot comes free.
	harness.WaitFor(t, "it is the first one's turn", again, func() bool { return unlucky.Check(w.Nodes[0]).Outcome == harness.LetIn })
	begun := time.Now()
	for _, n := range w.Nodes {
		// The others hear of it with the next entry; what their answers say is lost too.
		harness.WaitFor(t, "every node would let it in", again, func() bool { return unlucky.Check(n).Outcome == harness.LetIn })
	}
	harness.WaitFor(t, "the next one is let in", again, func() bool { return next.Enter(w.Nodes[1]).Outcome == harness.Inside })
	if took := time.Since(begun); took < time.Second {
		t.Errorf("the slot was taken away after %v, active_ttl is 1s (I4)", took)
	}
	for _, n := range w.Nodes {
		if e := unlucky.Check(n); e.Outcome != harness.Waiting || e.Position != 1 {
			t.Errorf("back again: %v, want the first place", e)
		}
		if e := third.Check(n); e.Outcome != harness.Waiting || e.Position != 2 {
			t.Errorf("the one behind it: %v, want the second place", e)
		}
	}
	harness.WaitFor(t, "it is let in", again, func() bool { return unlucky.Enter(w.Nodes[2]).Outcome == harness.Inside })
	// Now it has been inside, and what it comes back to is a new place.
	harness.WaitFor(t, "the third one is let in", again, func() bool { return third.Enter(w.Nodes[0]).Outcome == harness.Inside })
	if e := unlucky.Visit(w.Nodes[1], "/"); e.Outcome != harness.Waiting || e.Position != 2 {
		t.Errorf("it comes again: %v, want a place behind the one that still waits", e)
	}
	if e := last.Check(w.Nodes[1]); e.Outcome != harness.Waiting || e.Position != 1 {
		t.Errorf("who still waits: %v, want the first place", e)
	}
}
