package faults

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// handOverCount is how many leaders are ended one after the other in the cell of hand-overs.
var handOverCount = 100

// handOvers ends and restarts whoever leads, so many times.
func handOvers(times int) func(*world, []*harness.Node) {
	return func(w *world, _ []*harness.Node) {
		for range times {
			n := w.leader()
			terminate(w, []*harness.Node{n})
			w.leader()
			n.Start()
			n.WaitReady()
		}
	}
}

// transferTime is how long a transfer may take, until everything commits again. The library may block for ever in one (hashicorp/raft issue 696).
const transferTime = 5 * time.Second

// slowHandOver is the delay of the ways to a node that is to lead, so that a cut meets every part of a transfer.
const slowHandOver = 20 * time.Millisecond

// transfers has leadership handed over so many times, each time to a node drawn by lot, as soon as all is well after the one before. In every
// tenth one the way between the two is cut for a moment: that one may fail.
func transfers(w *world, times int) {
	dice := rand.New(rand.NewPCG(chance, 2))
	slowest, kept := time.Duration(0), 0
	for i := range times {
		from := w.leader()
		others := slices.DeleteFunc(slices.Clone(w.nodes), func(n *harness.Node) bool { return n == from })
		to, asked := others[dice.IntN(len(others))], w.nodes[dice.IntN(len(w.nodes))]
		cut, mended := i%10 == 9, make(chan struct{})
		if cut {
			asked = from
			after, lasts := between(dice, 0, 200), between(dice, 100, 1000)
			slowed(slowHandOver, 0)(w, []*harness.Node{to})
			go func() {
				defer close(mended)
				rest(w.ctx, after)
				w.part(from, to, true)
				rest(w.ctx, lasts)
				mend(w, nil)
			}()
		} else {
			close(mended)
		}
		begun := time.Now()
		err := asked.ChangeMembers("transfer", to.ID)
		well := harness.Poll(transferTime-time.Since(begun), w.well)
		took := time.Since(begun)
		slowest = max(slowest, took)
		switch {
		case !well:
			w.t.Errorf("transfer %d, %s to %s, cut %v: not over after %v: %v", i, from.ID, to.ID, cut, took, err)
		case err != nil && !cut:
			w.t.Errorf("transfer %d, %s to %s by way of %s: %v", i, from.ID, to.ID, asked.ID, err)
		case err != nil || w.leader() != to:
			kept++
		}
		<-mended
	}
	w.t.Logf("the slowest transfer was over after %v; %d did not make the node lead that was to", slowest.Round(time.Millisecond), kept)
}
