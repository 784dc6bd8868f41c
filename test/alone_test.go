package test

import (
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// TestNodeAlone pauses two of three nodes. The one that is left lets visitors in up to the deadline that the
// others know, and nobody new (I5). When the others are back, those in line come first (I2).
func TestNodeAlone(t *testing.T) {
	const ttl = 3 * time.Second
	w := harness.NewWorld(t, 3, harness.Settings{"WR_ACTIVE_TTL": "3"})
	inside, waiting := w.LineUp(5)
	node := w.Leader()
	others := w.Followers()
	for _, b := range append(inside, waiting...) {
		b.Get(node, "/")
	}
	for _, n := range others {
		n.Pause()
	}
	cut := time.Now()

	// Nobody new gets in while the node is alone, and those inside are out one deadline after the cut.
	newcomer := w.Browser()
	refused := map[*harness.Browser]bool{}
	harness.WaitFor(t, "those inside are refused after their deadline", ttl+5*time.Second, func() bool {
		for _, b := range inside {
			sent := time.Since(cut)
			switch e := b.Get(node, "/"); {
			case e.Outcome == harness.Inside && sent > ttl+time.Second:
				t.Errorf("let in %v after the cut: %v", sent, e)
			case e.Outcome == harness.Waiting:
				refused[b] = true
			}
		}
		if e := newcomer.Visit(node, "/"); e.Outcome == harness.Inside {
			t.Errorf("a newcomer was let in by a node alone: %v", e)
		}
		return len(refused) == len(inside)
	})
	for i, b := range waiting {
		if e := b.Check(node); e.Outcome == harness.Waiting && e.Position != i+1 {
			t.Errorf("a place changed while nothing could commit: %v, want %d", e, i+1)
		}
	}

	for _, n := range others {
		n.Continue()
	}
	for _, n := range w.Nodes {
		n.WaitReady()
	}
	in := map[*harness.Browser]bool{}
	harness.WaitFor(t, "those in line are let in", 20*time.Second, func() bool {
		s, err := node.Status()
		if err == nil && s.Room.Active+s.Room.Released > 3 {
			t.Errorf("%d active and %d released, there are 3 slots (I1)", s.Room.Active, s.Room.Released)
		}
		if !in[newcomer] && newcomer.Visit(node, "/").Outcome == harness.Inside {
			in[newcomer] = true
			// Slots that come free together are given away together. Whoever was before the newcomer has one.
			for _, b := range waiting {
				if e := b.Get(node, "/"); e.Outcome != harness.Inside {
					t.Errorf("the newcomer is inside, one before it is not: %v (I2)", e)
				}
			}
		}
		for _, b := range waiting {
			in[b] = in[b] || b.Enter(node).Outcome == harness.Inside
		}
		return in[waiting[0]] && in[waiting[1]]
	})
	harness.WaitFor(t, "equal tables", 10*time.Second, func() bool {
		var states [3]harness.Status
		for i, n := range w.Nodes {
			s, err := n.Status()
			if err != nil {
				return false
			}
			states[i] = s
		}
		same := states[0].AppliedIndex == states[1].AppliedIndex && states[1].AppliedIndex == states[2].AppliedIndex
		if same && (states[0].TableSum != states[1].TableSum || states[1].TableSum != states[2].TableSum) {
			t.Errorf("at index %d the tables differ (I7)", states[0].AppliedIndex)
		}
		return same
	})
}
