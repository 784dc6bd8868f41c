package faults

import (
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
	"github.com/openwaitingroom/owr/test/overlay"
)

// bentClock has the clock that cluster time is made of say OWR_FAULTS_CLOCK, a duration, more than it does, and run at
// OWR_FAULTS_CLOCK_RATE, a number. As on a machine whose clock is wrong, all readings of it agree with one another: what it says
// of the time of day, of the time that has passed, and of when the leader was last heard. Timers are left alone.
var bentClock = []overlay.Edit{
	{File: "cluster/clock.go", From: "\t\"sync/atomic\"\n", To: "\t\"os\"\n\t\"strconv\"\n\t\"sync/atomic\"\n"},
	{File: "cluster/clock.go", From: "func newClusterClock(", To: `var bent = struct {
	begun time.Time
	by    time.Duration
	rate  float64
}{begun: time.Now(), rate: 1}

func init() {
	bent.by, _ = time.ParseDuration(os.Getenv("OWR_FAULTS_CLOCK"))
	if rate, err := strconv.ParseFloat(os.Getenv("OWR_FAULTS_CLOCK_RATE"), 64); err == nil {
		bent.rate = rate
	}
}

func bentAt(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return bent.begun.Add(bent.by + time.Duration(float64(t.Sub(bent.begun))*bent.rate))
}

func bentNow() time.Time { return bentAt(time.Now()) }

func newClusterClock(`},
	{File: "cluster/node.go", From: "newClusterClock(time.Now)", To: "newClusterClock(bentNow)"},
	{File: "cluster/leader.go", From: "contact := n.raft.LastContact()", To: "contact := bentAt(n.raft.LastContact())"},
}

// apart gives the nodes clocks that are an hour ahead, right, and an hour behind.
func apart(t testing.TB, n *harness.Node) {
	t.Helper()
	bend(t, n)
	n.Settings["OWR_FAULTS_CLOCK"] = map[string]string{"n1": "1h", "n2": "0s", "n3": "-1h"}[n.ID]
}

// rates gives n1 a clock that is too fast and n3 one that is too slow.
func rates(fast, slow string) func(testing.TB, *harness.Node) {
	return func(t testing.TB, n *harness.Node) {
		t.Helper()
		bend(t, n)
		n.Settings["OWR_FAULTS_CLOCK_RATE"] = map[string]string{"n1": fast, "n2": "1", "n3": slow}[n.ID]
	}
}

// theFast is the node whose clock is too fast.
func theFast(w *world) []*harness.Node { return []*harness.Node{w.node("n1")} }

// ratedLimits are limits of so many times those of other cells, and rules by which the others' are kept to, though they may
// take longer by another factor.
func ratedLimits(times, late float64) *[2]Rules {
	in, kept := rules, rules
	in.ActiveTTL, in.ClaimTTL, in.QueueAbsent = times*in.ActiveTTL, times*in.ClaimTTL, times*in.QueueAbsent
	kept.Late = late
	return &[2]Rules{in, kept}
}

// slowThenFast has the node with the slow clock lead for a while, then the one with the fast clock, which is killed.
func slowThenFast(w *world, _ []*harness.Node) {
	w.handTo(w.node("n3"))
	rest(w.ctx, 3*time.Second)
	w.handTo(w.node("n1"))
	rest(w.ctx, 4*time.Second)
	w.node("n1").Kill()
}
