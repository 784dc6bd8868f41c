package test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/openwaitingroom/owr/test/harness"
)

// TestEverythingIsLostButABackup makes a backup on a follower, loses all nodes with their data, and starts three new ones from it.
// Every cookie says that its visitor was told something by the old cluster, after the backup too.
func TestEverythingIsLostButABackup(t *testing.T) {
	w := harness.NewWorld(t, 5, nil)
	watch := w.Watch()
	inside, waiting := w.LineUp(12)
	before := positions(w, waiting)
	file := backup(t, w.Followers()[0])
	late, _ := w.LineUp(1) // its place is lost, and it must not wait for a table that will never come
	if len(late) != 0 {
		t.Fatal("the line was overtaken")
	}
	lose(t, w.Nodes...)
	restore(t, w, file)

	sameStory(t, w, inside, waiting, before)
	audit(w, watch, nil, append(inside, waiting...)...)
}

// TestTwoOfThreeAreLost goes on with the third alone, and later makes three of it, as docs/operations.md says.
func TestTwoOfThreeAreLost(t *testing.T) {
	w := harness.NewWorld(t, 5, nil)
	watch := w.Watch()
	inside, waiting := w.LineUp(12)
	before := positions(w, waiting)
	all, left := w.Nodes, w.Nodes[2]
	left.Kill()
	lose(t, w.Nodes[:2]...)
	if code, said := left.Run("recover"); code != 2 || !strings.Contains(said, "--yes") {
		t.Errorf("recover without a yes: %d %s", code, said)
	}
	code, said := left.Run("recover", "--yes")
	if code != 0 {
		t.Fatalf("recover: %d %s", code, said)
	}
	peers := left.Settings["WR_PEERS"]
	_, left.Settings["WR_PEERS"], _ = strings.Cut(strings.TrimSpace(said), "WR_PEERS=")
	w.Nodes = all[2:]
	must(t, w.Redis.Client.FlushAll(context.Background()).Err()) // as in restore: it is another cluster
	w.Start()
	sameStory(t, w, inside, waiting, before)
	leave(t, w, inside[0])
	harness.WaitFor(t, "the head of the line comes in", again, func() bool { return waiting[0].Enter(left).Outcome == harness.Inside })
	inside, waiting = append(inside[1:], waiting[0]), waiting[1:]

	before = positions(w, waiting)
	file := backup(t, left)
	lose(t, left)
	left.Settings["WR_PEERS"] = peers
	w.Nodes = all
	restore(t, w, file)
	sameStory(t, w, inside, waiting, before)
	audit(w, watch, nil, append(inside, waiting...)...)
}

func backup(t *testing.T, n *harness.Node) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "owr.backup")
	if code, said := n.Run("backup", "--out", file); code != 0 {
		t.Fatalf("backup: %d %s", code, said)
	}
	return file
}

// lose kills nodes and takes their data away.
func lose(t *testing.T, nodes ...*harness.Node) {
	t.Helper()
	for _, n := range nodes {
		n.Kill()
		must(t, os.RemoveAll(n.DataDir()))
	}
}

// restore starts all nodes from a backup. Redis would show the old cluster's picture for half a minute more.
func restore(t *testing.T, w *harness.World, file string) {
	t.Helper()
	must(t, w.Redis.Client.FlushAll(context.Background()).Err())
	for _, n := range w.Nodes {
		if code, said := n.Run("restore", "--from", file); code != 0 {
			t.Fatalf("restore of %s: %d %s", n.ID, code, said)
		}
	}
	w.Start()
}

// sameStory checks that everybody is where it was, on every node.
func sameStory(t *testing.T, w *harness.World, inside, waiting []*harness.Browser, before []int) {
	t.Helper()
	if got := positions(w, waiting); !slices.Equal(got, before) {
		t.Errorf("they wait at %v, and waited at %v", got, before)
	}
	for _, b := range inside {
		for _, n := range w.Nodes {
			if e := b.Get(n, "/"); e.Outcome != harness.Inside {
				t.Errorf("a visitor inside, on %s: %v", n.ID, e)
			}
		}
	}
}
