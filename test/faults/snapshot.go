package faults

import (
	"cmp"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
	"github.com/openwaitingroom/owr/test/overlay"
)

// bentCompaction has a node look twice a second whether there is anything to cut down, and reads from OWR_FAULTS_THRESHOLD and
// OWR_FAULTS_TRAILING what Compaction's fields of these names are: a cell has no time for some thousand entries.
var bentCompaction = []overlay.Edit{
	{File: "cluster/config.go", From: "import (\n", To: "import (\n\t\"os\"\n\t\"strconv\"\n"},
	{File: "cluster/config.go", From: "return Compaction{cmp.Or(c.Interval, 30*time.Second), cmp.Or(c.Threshold, 8192), cmp.Or(c.Trailing, 10240)}", To: `threshold, err := strconv.ParseUint(os.Getenv("OWR_FAULTS_THRESHOLD"), 10, 64)
	if err != nil {
		return Compaction{cmp.Or(c.Interval, 30*time.Second), cmp.Or(c.Threshold, 8192), cmp.Or(c.Trailing, 10240)}
	}
	trailing, _ := strconv.ParseUint(os.Getenv("OWR_FAULTS_TRAILING"), 10, 64)
	return Compaction{500 * time.Millisecond, threshold, trailing}`},
}

const (
	lowThreshold = 60 // entries, a second or two of a cell's load
	lowTrailing  = 20
	allTrailing  = 1 << 20 // nothing is ever dropped
)

// compacts makes a node write snapshots all the time, and keep so many entries behind them.
func compacts(trailing int) func(testing.TB, *harness.Node) {
	return func(t testing.TB, n *harness.Node) {
		t.Helper()
		bend(t, n)
		n.Settings["OWR_FAULTS_THRESHOLD"], n.Settings["OWR_FAULTS_TRAILING"] = strconv.Itoa(lowThreshold), strconv.Itoa(trailing)
		n.Settings["WR_LOG_LEVEL"] = "debug"
	}
}

// A kept is a snapshot on a node's disk.
type kept struct {
	path  string
	index int
}

// snapshots are those on a node's disk, the newest first.
func snapshots(n *harness.Node) []kept {
	entries, err := os.ReadDir(filepath.Join(dataDir(n), "snapshots"))
	if err != nil {
		return nil
	}
	var found []kept
	for _, e := range entries {
		part := strings.Split(e.Name(), "-") // term, index, time
		if len(part) != 3 || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		if index, err := strconv.Atoi(part[1]); err == nil {
			found = append(found, kept{filepath.Join(dataDir(n), "snapshots", e.Name()), index})
		}
	}
	slices.SortFunc(found, func(a, b kept) int { return cmp.Compare(b.index, a.index) })
	return found
}

// spoiled is the snapshot that spoilSnapshot has changed.
var spoiled string

// spoilSnapshot ends a node once it has two snapshots, and turns some bits in the newer one.
func spoilSnapshot(w *world, victims []*harness.Node) {
	n := victims[0]
	if !harness.Poll(20*time.Second, func() bool { return len(snapshots(n)) > 1 }) {
		w.t.Fatal("the run means nothing: the node writes no snapshots")
	}
	n.Kill()
	spoiled = snapshots(n)[0].path
	file := filepath.Join(spoiled, "state.bin")
	data, err := os.ReadFile(file)
	must(w.t, err)
	dice := rand.New(rand.NewPCG(chance, 0))
	for range 5 {
		data[dice.IntN(len(data))] ^= 1 << dice.IntN(8)
	}
	must(w.t, os.WriteFile(file, data, 0o600))
}

// refusesSnapshot starts a node whose log does not reach back behind the damage: it has to end and name the snapshot. Then it does what
// the message says.
func refusesSnapshot(w *world, victims []*harness.Node) {
	n := victims[0]
	before := len(n.Log())
	n.Start()
	if !harness.Poll(15*time.Second, func() bool { return !n.Alive() }) {
		w.t.Errorf("%s goes on with a damaged snapshot", n.ID)
		return
	}
	if said := n.Log()[before:]; !strings.Contains(said, spoiled) || !strings.Contains(said, "remove this node's whole data directory") {
		w.t.Errorf("%s ended without naming %s and what to do: %.400s", n.ID, spoiled, said)
	}
	must(w.t, os.RemoveAll(dataDir(n)))
	n.Start()
}

// fallsBack starts a node whose log does reach back: it has to come up, without a word from anybody.
func fallsBack(w *world, victims []*harness.Node) {
	n := victims[0]
	n.Start()
	if !harness.Poll(20*time.Second, n.Ready) {
		w.t.Errorf("%s does not fall back to its older snapshot", n.ID)
	}
}

// awayForLong cuts a node off until both others have dropped the entry that it would need next. When it led, its log has a tail of its own by then.
func awayForLong(w *world, victims []*harness.Node) {
	n := victims[0]
	isolate(w, victims)
	s, err := n.Status()
	must(w.t, err)
	gone := func() bool {
		for _, other := range w.nodes {
			if other == n {
				continue
			}
			if list := snapshots(other); len(list) == 0 || list[0].index <= int(s.AppliedIndex)+2*lowTrailing+lowThreshold {
				return false
			}
		}
		return true
	}
	if !harness.Poll(40*time.Second, gone) {
		w.t.Error("the run means nothing: the others' logs still reach back")
	}
}

// The bounds of a return by snapshot.
const (
	returnTime    = 10 * time.Second
	mostSnapshots = 3
)

// backBySnapshot mends the links and waits until the node has what the leader had then.
func backBySnapshot(w *world, victims []*harness.Node) {
	n := victims[0]
	before := len(n.Log())
	mend(w, nil)
	leader, err := w.leader().Status()
	must(w.t, err)
	if !harness.Poll(returnTime, func() bool { s, err := n.Status(); return err == nil && s.AppliedIndex >= leader.AppliedIndex }) {
		w.t.Errorf("%s has not caught up %v after its return", n.ID, returnTime)
	}
	installed := strings.Count(strings.ToLower(n.Log()[before:]), "installed remote snapshot")
	w.t.Logf("%s caught up by %d snapshots", n.ID, installed)
	if installed == 0 || installed > mostSnapshots {
		w.t.Errorf("%s was sent %d snapshots, want 1 to %d", n.ID, installed, mostSnapshots)
	}
}
