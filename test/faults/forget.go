package faults

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/forgetful"
	"github.com/openwaitingroom/owr/test/harness"
)

// syncTime is that of a disk which is neither the fastest nor slow.
const syncTime = 10 * time.Millisecond

// forgetfulDisks are the file systems of forgets, by node.
var forgetfulDisks = map[*harness.Node]*forgetful.Disk{}

// forgets puts a node's data on a file system that forgets, on command, what was not synced.
func forgets(t testing.TB, n *harness.Node) {
	t.Helper()
	dir, backing := t.TempDir(), t.TempDir()
	d, err := forgetful.Mount(dir, backing, syncTime)
	if err != nil {
		t.Skipf("a file system of FUSE is needed, and it cannot be mounted here: %v", err)
	}
	forgetfulDisks[n] = d
	t.Cleanup(func() {
		delete(forgetfulDisks, n)
		n.Kill()
		if err := d.Unmount(); err != nil {
			t.Errorf("unmount the disk of %s: %v", n.ID, err)
		}
	})
	n.Settings["WR_DATA_DIR"] = filepath.Join(dir, "data")
}

// loseUnsynced kills nodes as a power cut does: what they had written and not synced is gone. With torn, about half of the blocks of it had
// reached the disk all the same.
func loseUnsynced(w *world, victims []*harness.Node, torn bool) {
	w.t.Helper()
	for _, n := range victims {
		forgetfulDisks[n].Off()
	}
	for _, n := range victims {
		n.Kill()
	}
	dice := rand.New(rand.NewPCG(chance, 1))
	for _, n := range victims {
		keep := func() bool { return dice.IntN(2) == 0 }
		if !torn {
			keep = nil
		}
		forgotten, err := forgetfulDisks[n].Forget(keep)
		must(w.t, err)
		w.t.Logf("%s forgets %d blocks", n.ID, forgotten)
	}
}

// powerCuts takes the power of one node, which comes back, and then of all.
func powerCuts(w *world, victims []*harness.Node) {
	one := []*harness.Node{w.leader()}
	loseUnsynced(w, one, true)
	rest(w.ctx, 2*time.Second)
	again(w, one)
	one[0].WaitReady()
	rest(w.ctx, 2*time.Second)
	loseUnsynced(w, victims, false)
	for _, n := range victims {
		if _, err := os.Stat(logFile(n)); err != nil {
			w.t.Errorf("the run means nothing: %v", err)
		}
	}
}
