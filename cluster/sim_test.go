package cluster

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/openwaitingroom/owr/queue"
)

// The simulation runs what this package does above Raft, batches, forwarding, terms, touches, the clock, snapshots, on a few nodes
// in one goroutine, with visitors that ask any node, while messages are late, lost or there twice and nodes crash, pause
// and are cut off. A seed decides everything, so a seed that fails fails again:
//
//	go test ./cluster -run TestSimulation -sim-seed 4711 -sim-log
//
// Time is that of a synctest bubble; each node has a clock of its own that runs a little fast or slow.
var (
	simSeeds = flag.Int("sim-seeds", 300, "how many seeds are simulated")
	simSeed  = flag.Uint64("sim-seed", 0, "the only seed; 0: as many as -sim-seeds says")
	simLog   = flag.Bool("sim-log", false, "tell what happens")
	simDrift = flag.Float64("sim-drift", 1e-3, "how much faster or slower than the time the fastest and the slowest clock are")
)

// onceFailed are seeds with which a defect, of owr or of the simulation, was found.
var onceFailed = []uint64{
	186, // a leader that had stopped for a while went on with expiring, before the others could say who had been there
	448, // after all nodes were down, a follower took the index of a leader that had not read its log for the newest
}

func TestSimulation(t *testing.T) {
	seeds := slices.Clone(onceFailed)
	for i := range *simSeeds {
		seeds = append(seeds, uint64(i)+1)
	}
	if *simSeed != 0 {
		seeds = []uint64{*simSeed}
	}
	var mu sync.Mutex
	var sum simTally
	t.Run("seeds", func(t *testing.T) {
		for part := range 2 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for i := part; i < len(seeds) && !t.Failed(); i += 2 {
					synctest.Test(t, func(t *testing.T) {
						w := newSimWorld(t, seeds[i])
						w.run()
						mu.Lock()
						defer mu.Unlock()
						sum.add(w.tally)
					})
				}
			})
		}
	})
	t.Logf("%d seeds: %+v", len(seeds), sum)
	if len(seeds) >= 100 && (sum.Elections < len(seeds) || sum.Promoted < len(seeds) || sum.Expired < len(seeds) || sum.Restored == 0 || sum.Late < len(seeds) || sum.Held == 0 || sum.Unknown == 0 || sum.TakenBack < len(seeds)/8 || sum.Lapsed < len(seeds)/20 ||
		sum.HeadAgain == 0) {
		t.Errorf("the simulation does not get around: %+v", sum)
	}
}

// TestSimulationRepeats runs one seed twice: nothing but the seed may decide.
func TestSimulationRepeats(t *testing.T) {
	var told [2]simTally
	for i := range told {
		synctest.Test(t, func(t *testing.T) {
			w := newSimWorld(t, 42)
			w.run()
			told[i] = w.tally
		})
	}
	if told[0] != told[1] {
		t.Errorf("the same seed gave\n%+v and\n%+v", told[0], told[1])
	}
}

// A simTally counts what has happened.
type simTally struct {
	Entries, Elections, Crashes, Cuts, Pauses, Late, Held, Restored, Told, Passed, Promoted, Expired, Unknown, TakenBack, Lapsed, HeadAgain int
	Sum                                                                                                                                     uint64
}

func (s *simTally) add(o simTally) {
	s.Entries += o.Entries
	s.Elections += o.Elections
	s.Crashes += o.Crashes
	s.Cuts += o.Cuts
	s.Pauses += o.Pauses
	s.Late += o.Late
	s.Held += o.Held
	s.Restored += o.Restored
	s.Told += o.Told
	s.Passed += o.Passed
	s.Promoted += o.Promoted
	s.Expired += o.Expired
	s.Unknown += o.Unknown
	s.TakenBack += o.TakenBack
	s.Lapsed += o.Lapsed
	s.HeadAgain += o.HeadAgain
}

const (
	simSlots  = 3
	simTTL    = 2 * time.Second
	simFirst  = 600 * time.Millisecond
	simClaim  = 3 * time.Second
	simAbsent = 3 * time.Second
	simFaulty = 30 * time.Second // after that everything is mended
	simCalm   = 10 * time.Second
	simRPC    = 2 * time.Second
)

// --- the world --------------------------------------------------------------------------------

type simEvent struct {
	at  time.Time
	seq int
	do  func()
}

type simEvents []simEvent

func (e simEvents) Len() int { return len(e) }
func (e simEvents) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq
}
func (e simEvents) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *simEvents) Push(x any)   { *e = append(*e, x.(simEvent)) }
func (e *simEvents) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

type simWorld struct {
	t      *testing.T
	seed   uint64
	random *rand.Rand
	begun  time.Time
	events simEvents
	seq    int
	failed bool

	nodes    []*simNode
	visitors []*simVisitor
	loss     float64 // of messages
	twice    float64
	slowest  time.Duration
	cut      map[[2]int]bool // from, to
	healed   bool

	truth *simTruth
	tally simTally
}

func newSimWorld(t *testing.T, seed uint64) *simWorld {
	w := &simWorld{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 7)), begun: time.Now(), cut: map[[2]int]bool{}}
	w.loss, w.twice = 0.03*w.random.Float64(), 0.1*w.random.Float64()
	w.slowest = time.Duration(5+w.random.IntN(60)) * time.Millisecond
	size := 3
	if w.random.IntN(4) == 0 {
		size = 5
	}
	w.truth = newSimTruth(w)
	for i := range size {
		n := &simNode{w: w, id: i, rate: 1 + *simDrift*(2*w.random.Float64()-1), offset: time.Duration(w.random.IntN(7200)-3600) * time.Second}
		n.disk.votedFor = -1
		w.nodes = append(w.nodes, n)
	}
	for _, n := range w.nodes {
		n.start()
	}
	for i := range 8 + w.random.IntN(6) {
		v := &simVisitor{w: w, id: i, token: queue.MakeToken([16]byte{byte(i + 1), byte(seed), byte(seed >> 8), byte(seed >> 16)})}
		w.visitors = append(w.visitors, v)
		w.after(w.upTo(3*time.Second), v.act)
	}
	w.after(2*time.Second, w.harm)
	return w
}

func (w *simWorld) now() time.Time { return time.Now() }

func (w *simWorld) upTo(d time.Duration) time.Duration {
	return time.Duration(w.random.Int64N(int64(d)))
}

func (w *simWorld) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.events, simEvent{w.now().Add(d), w.seq, do})
}

func (w *simWorld) run() {
	for len(w.events) > 0 && !w.failed {
		e := heap.Pop(&w.events).(simEvent)
		if e.at.Sub(w.begun) > simFaulty+simCalm {
			break
		}
		time.Sleep(time.Until(e.at))
		e.do()
	}
	if !w.failed {
		w.atEnd()
	}
}

func (w *simWorld) fatalf(format string, args ...any) {
	if !w.failed {
		w.t.Errorf("seed %d, %v: %s", w.seed, w.now().Sub(w.begun), fmt.Sprintf(format, args...))
	}
	w.failed = true
}

func (w *simWorld) logf(format string, args ...any) {
	if *simLog {
		w.t.Logf("%8v %s", w.now().Sub(w.begun).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
}

// send delivers a message of Raft's, perhaps late, twice or not at all.
func (w *simWorld) send(from, to *simNode, do func()) {
	if w.random.Float64() >= w.loss {
		w.deliver(from, to, do)
	}
}

// sendFrame delivers one of ours. It is lost when its connection breaks, now and then; then nobody hears of that for up to an RPC's
// time, and for so long neither node can tell the others of its visitors.
func (w *simWorld) sendFrame(from, to *simNode, do func()) {
	if w.random.Float64() < w.loss/4 {
		for _, n := range []*simNode{from, to} {
			n.trouble = w.now().Add(simRPC)
		}
		return
	}
	w.deliver(from, to, do)
}

func (w *simWorld) deliver(from, to *simNode, do func()) {
	times := 1
	if w.random.Float64() < w.twice {
		times = 2
	}
	if w.cut[[2]int{from.id, to.id}] {
		return
	}
	for range times {
		life := to.life
		to.later(w.upTo(w.slowest), func() {
			if to.life == life && !w.cut[[2]int{from.id, to.id}] {
				do()
			}
		})
	}
}

// harm does something bad from time to time, until everything is mended.
func (w *simWorld) harm() {
	if w.now().Sub(w.begun) > simFaulty {
		w.heal()
		return
	}
	n := w.nodes[w.random.IntN(len(w.nodes))]
	if w.random.IntN(2) == 0 { // leaders are more interesting
		for _, l := range w.nodes {
			if l.leading {
				n = l
			}
		}
	}
	last := 300*time.Millisecond + w.upTo(4*time.Second)
	switch w.random.IntN(9) {
	case 0, 1:
		w.tally.Crashes++
		w.logf("node %d crashes for %v", n.id, last)
		n.crash()
		w.after(last, func() {
			if !n.up {
				n.start()
			}
		})
	case 2, 3:
		w.tally.Pauses++
		w.logf("node %d pauses for %v", n.id, last)
		n.pausedTo = w.now().Add(last)
		n.trouble = n.pausedTo
	case 4, 5:
		w.tally.Cuts++
		both := w.random.IntN(3) > 0
		only := -1
		if w.random.IntN(3) == 0 {
			only = w.random.IntN(len(w.nodes))
		}
		w.logf("node %d is cut off for %v, both ways %v, from %d", n.id, last, both, only)
		for _, o := range w.nodes {
			if o != n && (only < 0 || only == o.id) {
				w.cut[[2]int{n.id, o.id}] = true
				w.cut[[2]int{o.id, n.id}] = both
				n.trouble, o.trouble = w.now().Add(last), w.now().Add(last)
			}
		}
		w.after(last, func() {
			for _, o := range w.nodes {
				delete(w.cut, [2]int{n.id, o.id})
				delete(w.cut, [2]int{o.id, n.id})
			}
			n.trouble = w.now()
		})
	case 6:
		w.logf("all nodes crash for %v", last)
		for _, o := range w.nodes {
			o.crash()
			w.after(last+w.upTo(time.Second), func() {
				if !o.up {
					o.start()
				}
			})
		}
	case 7:
		for _, o := range w.nodes {
			if o.up {
				o.compact()
			}
		}
	case 8: // it lives, and what it sees has to count all the same (see vigil)
		w.tally.Late++
		w.logf("node %d hands nothing in for %v", n.id, last*3/4)
		n.lateTo = w.now().Add(last * 3 / 4)
	}
	w.after(200*time.Millisecond+w.upTo(2*time.Second), w.harm)
}

func (w *simWorld) heal() {
	w.logf("everything is mended")
	w.loss, w.healed = 0, true
	clear(w.cut)
	for _, n := range w.nodes {
		if !n.up {
			n.start()
		}
	}
}

// atEnd checks that the cluster has come to one table, and that it works.
func (w *simWorld) atEnd() {
	for _, n := range w.nodes {
		s := n.table().Stats()
		if n.applied < w.truth.index-20 {
			w.fatalf("node %d has applied %d of %d, long after everything was mended", n.id, n.applied, w.truth.index)
		}
		if want, ok := w.truth.sums[s.Index]; ok && want != s.Sum {
			w.fatalf("node %d: at entry %d its table differs (I7)", n.id, s.Index)
		}
	}
	if w.truth.at.Sub(w.begun) < simFaulty+simCalm-2*time.Second {
		w.fatalf("nothing has committed since %v", w.truth.at.Sub(w.begun))
	}
	w.tally.Sum = w.truth.fsm.table.Load().Stats().Sum
}

// --- the truth ----------------------------------------------------------------------------------

// simTruth is the log as it committed, and its table: what every node has to come to.
type simTruth struct {
	w       *simWorld
	fsm     *fsm
	feed    *queue.Feed
	index   uint64
	at      time.Time // of the newest entry
	log     map[uint64]simEntry
	sums    map[uint64]uint64
	state   map[queue.Token]queue.State
	tickets map[queue.Token]uint64 // of those in line
	back    []uint64               // tickets that came back into the line, since their visitors did not claim or had their slot taken back
	changes int
	entered map[queue.Token]time.Time
	taken   map[queue.Token]bool // those whose slot was taken back, or lapsed unused, and who have not been seen since

	reserved map[queue.Token]bool // those whose slot was taken by a poll and who have not been seen since
	born     map[queue.Token]int  // rising: in which order they came in or joined the line
}

func newSimTruth(w *simWorld) *simTruth {
	r := &simTruth{
		w: w, log: map[uint64]simEntry{}, sums: map[uint64]uint64{}, state: map[queue.Token]queue.State{}, tickets: map[queue.Token]uint64{},
		taken: map[queue.Token]bool{}, reserved: map[queue.Token]bool{}, born: map[queue.Token]int{}, entered: map[queue.Token]time.Time{},
	}
	r.fsm = newFSM(newClusterClock(time.Now), func(err error) { w.fatalf("the log cannot be read: %v", err) })
	_, r.feed = r.fsm.table.Load().Follow(1 << 20)
	return r
}

// committed takes in that a leader has committed up to an index.
func (w *simWorld) committed(leader *simNode, index uint64) {
	r := w.truth
	for i := max(r.index, leader.disk.base) + 1; i <= index; i++ {
		r.index, r.at = i, w.now()
		e := leader.disk.entry(i)
		r.log[i] = e
		if e.data == nil {
			continue
		}
		w.tally.Entries++
		r.fsm.Apply(&raft.Log{Index: i, Term: e.term, Data: e.data})
		table := r.fsm.table.Load()
		if err := table.CheckInvariants(); err != nil {
			w.fatalf("entry %d: %v", i, err)
		}
		s := table.Stats()
		if s.Counts.Held() > simSlots {
			w.fatalf("entry %d: %d slots are held (I1)", i, s.Counts.Held())
		}
		r.sums[s.Index] = s.Sum
		changes, _, _ := r.feed.Take(nil)
		for _, c := range changes {
			r.change(i, c)
		}
	}
}

func (r *simTruth) change(index uint64, c queue.Change) {
	w := r.w
	if r.state[c.Token] != c.Before {
		w.fatalf("entry %d: %s was %s and the change says %s", index, c.Token, r.state[c.Token], c.Before)
	}
	r.state[c.Token] = c.After
	if c.Before == queue.Unknown {
		r.born[c.Token], r.entered[c.Token] = r.changes, w.now()
	}
	r.changes++
	w.logf("entry %d: visitor %d %s → %s", index, w.visitorOf(c.Token).id, c.Before, c.After)
	switch {
	case c.Before == queue.Active && c.After.Waits() && r.reserved[c.Token]:
		w.tally.Lapsed++
		r.taken[c.Token] = true
		w.visitorOf(c.Token).expired(index)
	case c.Before == queue.Active && c.After.Waits():
		w.tally.TakenBack++
		r.tickets[c.Token], r.taken[c.Token] = r.fsm.table.Load().Lookup(c.Token).Ticket, true
		w.visitorOf(c.Token).takenBack(index)
	}
	if c.Before == queue.Released && c.After == queue.Active || r.reserved[c.Token] {
		r.reserved[c.Token] = c.After == queue.Active && r.fsm.table.Load().Lookup(c.Token).Reserved
	}
	if c.Before.Holds() && c.After.Waits() {
		r.back = append(r.back, r.tickets[c.Token])
	}
	if c.Before == queue.Absent && r.taken[c.Token] {
		delete(r.taken, c.Token)
		for token, ticket := range r.tickets {
			if r.state[token] == queue.Queued && ticket < r.tickets[c.Token] && r.born[token] > r.born[c.Token] {
				w.fatalf("entry %d: %s is back with ticket %d, behind one with %d who came later (I2)", index, c.Token, r.tickets[c.Token], ticket)
			}
		}
		w.tally.HeadAgain++
	}
	switch {
	case c.After.Waits() && !c.Before.Waits():
		view := r.fsm.table.Load().Lookup(c.Token)
		if old := r.tickets[c.Token]; old != 0 && view.Ticket != 0 && old != view.Ticket {
			w.fatalf("entry %d: %s had ticket %d and has %d (I3)", index, c.Token, old, view.Ticket)
		}
		if view.Ticket != 0 {
			r.tickets[c.Token] = view.Ticket
		}
	case c.Before == queue.Queued && c.After == queue.Released:
		w.tally.Promoted++
		mine := r.tickets[c.Token]
		for token, ticket := range r.tickets {
			if r.state[token] == queue.Queued && ticket < mine && mine != 0 {
				w.fatalf("entry %d: %s with ticket %d goes before one with %d (I2)", index, c.Token, mine, ticket)
			}
		}
	case c.After == queue.Active && !r.reserved[c.Token]:
		delete(r.tickets, c.Token)
	case c.Before.Waits() && c.After == queue.Unknown:
		w.fatalf("entry %d: the place of %s is lost (I3)", index, c.Token)
	case c.Before == queue.Active && c.After == queue.Unknown:
		w.tally.Expired++
		w.visitorOf(c.Token).expired(index)
	}
}

func (w *simWorld) visitorOf(t queue.Token) *simVisitor {
	for _, v := range w.visitors {
		if v.token == t {
			return v
		}
	}
	panic("nobody has this token")
}
