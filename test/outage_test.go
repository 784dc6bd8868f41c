package test

import (
	"slices"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// TestNoQuorumAdmitsOnRealNodes kills two of three nodes of a full room with WR_NO_QUORUM=admit. The one that is left lets in those who wait, in
// their order, and newcomers behind them, one a second. With the others back the limit is exact again, and everybody has the place it had.
func TestNoQuorumAdmitsOnRealNodes(t *testing.T) {
	const slots, line, late = 3, 4, 3
	const pace = time.Second
	w := harness.NewWorld(t, slots, harness.Settings{"WR_NO_QUORUM": "admit", "WR_NO_QUORUM_PER_MINUTE": "60"})
	watch := w.Watch()
	inside, waiting := w.LineUp(slots + line)
	before := positions(w, waiting)
	left := w.Followers()[0]
	harness.WaitFor(t, left.ID+" knows of all", again, func() bool {
		s, err := left.Status()
		return err == nil && s.Room.Active == slots && s.Room.Queued == line
	})
	apart := func() int {
		t.Helper()
		v, err := left.Metric("owr_no_quorum_admitted_total")
		must(t, err)
		return int(v)
	}
	if got := apart(); got != 0 {
		t.Errorf("%d were let in without a slot before anything was wrong", got)
	}

	begun := time.Now()
	for _, n := range w.Nodes {
		if n != left {
			n.Kill()
		}
	}
	var newcomers, entered []*harness.Browser
	for range late {
		newcomers = append(newcomers, w.Browser())
	}
	outside := slices.Concat(waiting, newcomers)
	harness.WaitFor(t, "all are let in without slots", again+(line+late)*pace, func() bool {
		for _, b := range inside {
			if e := b.Get(left, "/"); e.Outcome != harness.Inside {
				t.Errorf("a visitor inside: %v", e)
			}
		}
		for _, b := range outside {
			e := b.Get(left, "/")
			switch been := slices.Contains(entered, b); {
			case been && e.Outcome != harness.Inside:
				t.Errorf("one who was let in and keeps coming: %v", e)
			case !been && e.Outcome == harness.Inside:
				entered = append(entered, b)
				// The pace begins with the outage, which is not before the nodes were killed.
				if at := time.Since(begun); at < time.Duration(len(entered))*pace {
					t.Errorf("%d are in %v after the nodes were killed, more than one every %v", len(entered), at, pace)
				}
			}
		}
		return len(entered) == len(outside)
	})
	t.Logf("%d were let in %v after the nodes were killed", len(entered), time.Since(begun).Round(10*time.Millisecond))
	if !slices.Equal(entered[:line], waiting) {
		t.Error("those in line were not let in first, in their order (I2)")
	}
	if got := apart(); got != line+late {
		t.Errorf("%d are counted as let in without a slot, want %d", got, line+late)
	}

	for _, n := range w.Nodes {
		if n != left {
			n.Start()
		}
	}
	for _, n := range w.Nodes {
		n.WaitReady()
	}
	w.Forget()
	for range 5 {
		if got := positions(w, waiting); !slices.Equal(got, before) {
			t.Errorf("they wait at %v, and waited at %v", got, before)
		}
		for _, n := range w.Nodes {
			for _, b := range inside {
				if e := b.Get(n, "/"); e.Outcome != harness.Inside {
					t.Errorf("a visitor inside, with a majority again, on %s: %v", n.ID, e)
				}
			}
			for _, b := range outside {
				if e := b.Visit(n, "/"); e.Outcome != harness.Waiting {
					t.Errorf("one who was let in without a slot, with a majority again, on %s: %v", n.ID, e)
				}
			}
		}
	}
	if got := apart(); got != line+late {
		t.Errorf("%d more were let in without a slot after the outage", got-line-late)
	}
	leave(t, w, inside[0])
	harness.WaitFor(t, "the head of the line comes in", again, func() bool { return waiting[0].Enter(left).Outcome == harness.Inside })
	audit(w, watch, nil, slices.Concat(inside[1:], outside)...)
}
