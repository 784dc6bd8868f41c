package cluster

import (
	"bytes"
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
	"github.com/prometheus/client_golang/prometheus"

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
	if len(seeds) >= 100 && (sum.Elections < len(seeds) || sum.Promoted < len(seeds) || sum.Expired < len(seeds) || sum.Restored == 0 || sum.Unknown == 0) {
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
	Entries, Elections, Crashes, Cuts, Pauses, Restored, Told, Passed, Promoted, Expired, Unknown int
	Sum                                                                                           uint64
}

func (s *simTally) add(o simTally) {
	s.Entries += o.Entries
	s.Elections += o.Elections
	s.Crashes += o.Crashes
	s.Cuts += o.Cuts
	s.Pauses += o.Pauses
	s.Restored += o.Restored
	s.Told += o.Told
	s.Passed += o.Passed
	s.Promoted += o.Promoted
	s.Expired += o.Expired
	s.Unknown += o.Unknown
}

const (
	simSlots  = 3
	simTTL    = 2 * time.Second
	simClaim  = 3 * time.Second
	simAbsent = 3 * time.Second
	simFaulty = 30 * time.Second // after that everything is mended
	simCalm   = 10 * time.Second
	simDrift  = 1e-3
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
		n := &simNode{w: w, id: i, rate: 1 + simDrift*(2*w.random.Float64()-1), offset: time.Duration(w.random.IntN(7200)-3600) * time.Second}
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
	switch w.random.IntN(8) {
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
	back    []uint64               // tickets that came back into the line, since their visitors did not claim
}

func newSimTruth(w *simWorld) *simTruth {
	r := &simTruth{
		w: w, log: map[uint64]simEntry{}, sums: map[uint64]uint64{}, state: map[queue.Token]queue.State{}, tickets: map[queue.Token]uint64{},
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
	w.logf("entry %d: visitor %d %s → %s", index, w.visitorOf(c.Token).id, c.Before, c.After)
	if c.Before == queue.Released && c.After.Waits() {
		r.back = append(r.back, r.tickets[c.Token])
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
	case c.After == queue.Active:
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

// --- a node -------------------------------------------------------------------------------------

type simNode struct {
	w        *simWorld
	id       int
	rate     float64
	offset   time.Duration
	disk     simDisk
	up       bool
	life     int // rises with each crash
	pausedTo time.Time
	trouble  time.Time // the last moment at which it was cut off, paused or down, or a flush did not arrive

	// Raft's.
	role            raft.RaftState
	leader          int // -1: none known
	votes           int
	voters          []uint64 // the term of the last vote of each
	next, match     []uint64
	acked           []time.Time
	elected, beatAt time.Time
	timerFrom       time.Time
	patience        time.Duration
	contact         time.Time
	commit, applied uint64
	flights         map[uint64]simFlight

	// The node's.
	fsm     *fsm
	clock   *clusterClock
	touches *touches
	batcher *batcher
	busy    bool
	leading bool
	fresh   bool
	ticking bool
	looks   *looks
	waits   func([]queue.Decision, error) // for the leader's answer to forwarded commands; nil: nothing does
	lostAt  time.Time
}

// A simFlight is an entry whose proposer waits for it.
type simFlight struct {
	term uint64
	done func([]queue.Decision, error)
}

func (n *simNode) wall() time.Time {
	since := time.Since(n.w.begun)
	return n.w.begun.Add(n.offset + time.Duration(float64(since)*n.rate))
}

func (n *simNode) table() *queue.Table { return n.fsm.table.Load() }

// later has the node do something, unless it crashes first. While it is paused it does nothing.
func (n *simNode) later(d time.Duration, do func()) {
	life := n.life
	n.w.after(d, func() {
		switch {
		case n.life != life || !n.up:
		case n.w.now().Before(n.pausedTo):
			n.later(n.pausedTo.Sub(n.w.now()), do)
		default:
			do()
		}
	})
}

func (n *simNode) every(d time.Duration, do func()) {
	n.later(d, func() {
		do()
		n.every(d, do)
	})
}

func (n *simNode) start() {
	size := len(n.w.nodes)
	n.up, n.trouble = true, n.w.now()
	n.role, n.leader, n.contact = raft.Follower, -1, time.Time{}
	n.voters, n.next, n.match, n.acked = make([]uint64, size), make([]uint64, size), make([]uint64, size), make([]time.Time, size)
	n.commit, n.applied, n.flights = n.disk.base, n.disk.base, map[uint64]simFlight{}
	n.clock = newClusterClock(n.wall)
	n.fsm = newFSM(n.clock, func(err error) { n.w.fatalf("node %d ends: %v", n.id, err) })
	n.touches = newTouches(n.clock.now)
	n.waits = nil
	n.busy, n.leading, n.fresh, n.ticking, n.lostAt = false, false, false, false, n.w.now()
	n.batcher = newBatcher(queue.DefaultRoom, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x"}), n.leaderless, nil)
	if n.disk.snapshot != nil {
		n.w.tally.Restored++
		n.restore()
	}
	n.resetTimer()
	n.every(40*time.Millisecond, n.tickRaft)
	n.every(50*time.Millisecond, n.tick)
	n.every(500*time.Millisecond, n.flush)
	n.every(500*time.Millisecond, n.ping)
}

func (n *simNode) crash() {
	n.up, n.leading, n.life = false, false, n.life+1
}

func (n *simNode) leaderless() time.Duration {
	if n.leader >= 0 {
		return 0
	}
	return max(n.w.now().Sub(n.lostAt), 1)
}

func (n *simNode) setLeader(leader int) {
	if leader == n.leader {
		return
	}
	n.leader = leader
	if leader < 0 {
		n.lostAt = n.w.now()
	}
	if waits := n.waits; waits != nil { // for the old one, which is over
		n.waits = nil
		waits(nil, ErrNoLeader)
	}
	n.pump()
}

// beginTerm is Node.runTerm: the table holds what earlier leaders committed, then the time without a leader is taken out of
// everybody's account, and then the node leads.
func (n *simNode) beginTerm() {
	n.w.tally.Elections++
	n.w.logf("node %d is elected in term %d", n.id, n.disk.term)
	contact := n.contact
	term := n.disk.term
	barrier := n.propose(nil)
	n.flights[barrier] = simFlight{term, func(_ []queue.Decision, err error) {
		if err != nil {
			return
		}
		index := n.propose(resumption(n.clock, n.table().Stats().Now, contact))
		n.flights[index] = simFlight{term, func(_ []queue.Decision, err error) {
			if err != nil {
				return
			}
			limits := queue.DefaultLimits()
			limits.MaxActive, limits.ActiveTTL, limits.ClaimTTL, limits.QueueAbsent, limits.QueueTTL = simSlots, simTTL, simClaim, simAbsent, time.Hour
			base := n.propose(queue.AppendLimits(nil, queue.LimitsChange{Now: n.clock.now(), Base: true, Set: queue.AllFields, Values: limits}))
			n.flights[base] = simFlight{term, func(_ []queue.Decision, err error) {
				if err == nil {
					n.leading, n.fresh, n.looks = true, true, newLooks(n.clock)
					n.pump()
				}
			}}
		}}
	}}
}

// endTerm tells those who wait that nobody knows.
func (n *simNode) endTerm() {
	n.leading = false
	indexes := make([]uint64, 0, len(n.flights))
	for i := range n.flights {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	flights := n.flights
	n.flights = map[uint64]simFlight{}
	for _, i := range indexes {
		n.w.tally.Unknown++
		flights[i].done(nil, raft.ErrLeadershipLost)
	}
}

func (n *simNode) applyCommitted() {
	for n.applied < n.commit {
		n.applied++
		e := n.disk.entry(n.applied)
		if want, ok := n.w.truth.log[n.applied]; ok && (want.term != e.term || !bytes.Equal(want.data, e.data)) {
			n.w.fatalf("node %d applies another entry at %d: the simulated Raft is wrong", n.id, n.applied)
		}
		var decisions []queue.Decision
		if e.data != nil {
			decisions, _ = n.fsm.Apply(&raft.Log{Index: n.applied, Term: e.term, Data: e.data}).([]queue.Decision)
			s := n.table().Stats()
			if want, ok := n.w.truth.sums[s.Index]; ok && want != s.Sum {
				n.w.fatalf("node %d: at entry %d its table differs (I7)", n.id, s.Index)
			}
		}
		if f, ok := n.flights[n.applied]; ok {
			delete(n.flights, n.applied)
			if f.term == e.term {
				f.done(decisions, nil)
			} else {
				f.done(nil, raft.ErrLeadershipLost)
			}
		}
	}
}

// tick is Node.tick.
func (n *simNode) tick() {
	if !n.leading || n.ticking {
		return
	}
	command, ok := n.looks.next(n.table().Stats().NextDeadline)
	if !ok {
		return
	}
	n.ticking = true
	n.submit(2*time.Second, func(outcome) { n.ticking = false }, command)
}

// flush is touches.flush. The order within a flush is Go's map's, so it is made one here.
func (n *simNode) flush() {
	list := n.touches.take()
	if len(list) == 0 {
		return
	}
	slices.SortFunc(list, func(a, b touch) int { return bytes.Compare(a.token[:], b.token[:]) })
	n.submit(2*time.Second, func(o outcome) {
		if o.err != nil {
			n.trouble = n.w.now()
			n.touches.giveBack(list)
		}
	}, n.touches.commands(list)...)
}

// ping is pings.answered: a node that is back is fresh once it has what the leader had.
func (n *simNode) ping() {
	if n.fresh || n.leader < 0 || n.leader == n.id {
		return
	}
	leader := n.w.nodes[n.leader]
	n.w.send(n, leader, func() {
		applied := uint64(0)
		if leader.leading {
			applied = leader.fsm.applied.load()
		}
		n.w.send(leader, n, func() {
			if n.leader == leader.id && applied > 0 && n.fsm.applied.load() >= applied {
				n.fresh = true
			}
		})
	})
}

// submit is batcher.submit with a limit: then is called once.
func (n *simNode) submit(limit time.Duration, then func(outcome), commands ...queue.Command) {
	ended := false
	once := func(o outcome) {
		if !ended {
			ended = true
			then(o)
		}
	}
	if err := n.batcher.enqueue(&submission{commands: commands, until: n.w.now().Add(limit), then: once}); err != nil {
		once(outcome{err: err})
		return
	}
	n.later(limit, func() { once(outcome{err: ErrNoLeader}) })
	n.pump()
}

// pump is batcher.run: one batch is on its way at a time.
func (n *simNode) pump() {
	if n.busy || !n.up {
		return
	}
	batch := n.batcher.take()
	if len(batch) == 0 {
		return
	}
	n.busy = true
	ended := false
	n.dispatch(commandsOf(batch), func(decisions []queue.Decision, err error) {
		if ended {
			return
		}
		ended = true
		switch {
		case err == nil:
			n.busy = false
			answer(batch, decisions)
			n.pump()
		case n.batcher.giveUp(batch):
			n.busy = false
			n.pump()
		default:
			n.later(retryPause, func() {
				n.batcher.putBack(batch)
				n.busy = false
				n.pump()
			})
		}
	})
}

// dispatch is Node.send.
func (n *simNode) dispatch(commands []queue.Command, done func([]queue.Decision, error)) {
	switch {
	case n.leading:
		entry := queue.AppendBatch(nil, queue.Batch{Room: n.batcher.room, Now: n.clock.now(), Commands: commands})
		n.flights[n.propose(entry)] = simFlight{n.disk.term, done}
		return
	case n.leader < 0 || n.leader == n.id:
		done(nil, errNotLeader)
		return
	}
	leader, payload := n.w.nodes[n.leader], queue.AppendCommands(nil, commands)
	n.waits = done
	n.later(simRPC, func() { done(nil, ErrNoLeader) })
	n.w.sendFrame(n, leader, func() {
		if !leader.leading {
			leader.w.sendFrame(leader, n, func() { done(nil, errNotLeader) })
			return
		}
		got, err := queue.DecodeCommands(payload, nil)
		if err != nil {
			n.w.fatalf("forwarded commands: %v", err)
			return
		}
		leader.submit(simRPC, func(o outcome) {
			if o.err != nil {
				n.w.sendFrame(leader, n, func() { done(nil, o.err) })
				return
			}
			reply := appendDecisions(nil, o.decisions)
			n.w.sendFrame(leader, n, func() {
				decisions, err := decodeDecisions(reply, len(commands))
				done(decisions, err)
			})
		}, got...)
	})
}

// --- a visitor ------------------------------------------------------------------------------------

type simVisitor struct {
	w        *simWorld
	id       int
	token    queue.Token
	index    uint64 // what its cookie says
	asking   bool
	ticket   uint64 // that it was told
	place    int
	backs    int  // how many of truth's tickets had come back by then
	inside   bool // it was told so
	restless int  // how many pages it wants to see yet

	passed     time.Time // the last request with which it was inside
	passedNode *simNode
	life       int
}

// act is one request to any node.
func (v *simVisitor) act() {
	v.w.after(100*time.Millisecond+v.w.upTo(1500*time.Millisecond), v.act)
	if v.restless < 0 && v.w.random.IntN(8) > 0 {
		if v.restless++; v.restless == 0 {
			v.inside = false
		}
		return // it is away for a while, so that its slot or its presence expires
	}
	n := v.w.nodes[v.w.random.IntN(len(v.w.nodes))]
	if v.asking || !n.up || v.w.now().Before(n.pausedTo) {
		return
	}
	if v.restless++; v.restless > 3+v.w.random.IntN(12) {
		v.restless = -4
	}
	var view queue.View
	if n.fresh {
		view = n.table().Lookup(v.token)
	}
	now := n.clock.now()
	if view.State == queue.Active && now < view.Deadline {
		if now >= view.TouchAfter {
			n.touches.note(v.token)
		}
		// On this replica's word alone (I5).
		if s := v.w.truth.state[v.token]; s != queue.Active {
			v.w.fatalf("node %d lets visitor %d in, which is %s (I5)", n.id, v.id, s)
		}
		v.pass(n, v.w.now())
		return
	}
	kind := queue.KindArrive
	switch {
	case v.index > n.fsm.applied.load():
	case view.State == queue.Active:
		n.touches.note(v.token)
	case view.State == queue.Released:
		kind = queue.KindClaim
	case view.State == queue.Absent:
		n.touches.note(v.token)
	case view.State == queue.Queued:
		n.touches.note(v.token)
		v.told(queue.Decision{State: view.State, Ticket: view.Ticket, Position: view.Position, Index: n.fsm.applied.load()})
		return
	}
	v.asking = true
	asked := v.w.now()
	ended := func(o outcome) {
		v.asking = false
		if o.err == nil {
			v.told(o.decisions[0])
			if o.decisions[0].State == queue.Active {
				v.pass(n, asked)
			}
		}
	}
	life := n.life
	once := false
	n.submit(3*time.Second, func(o outcome) {
		if !once {
			once = true
			ended(o)
		}
	}, queue.Command{Kind: kind, Token: v.token})
	v.w.after(3100*time.Millisecond, func() { // its node may have crashed
		if !once && n.life != life {
			once = true
			v.asking = false
		}
	})
}

// pass is that the visitor's request, which a node took at that time, goes to the site.
func (v *simVisitor) pass(n *simNode, asked time.Time) {
	v.w.tally.Passed++
	v.passed, v.passedNode, v.life, v.inside = asked, n, n.life, true
}

// expired checks that the visitor's slot did not go too early (I4): not before active_ttl after its last request on a
// node that could tell the others.
func (v *simVisitor) expired(index uint64) {
	n := v.passedNode
	if n == nil || n.life != v.life || !n.trouble.Before(v.passed.Add(-time.Second)) {
		v.inside = false
		return
	}
	if since := v.w.now().Sub(v.passed); since < simTTL-20*time.Millisecond {
		v.w.fatalf("entry %d: visitor %d loses its slot %v after its last request on node %d (I4)", index, v.id, since, n.id)
	}
	v.inside = false
}

// cameBack is how many before this visitor came back into the line since it was told its place. The answer may have been a little
// older than the moment at which it came.
func (v *simVisitor) cameBack() (n int) {
	for _, ticket := range v.w.truth.back[max(0, v.backs-2):] {
		if ticket < v.ticket {
			n++
		}
	}
	return n
}

// told takes in what an answer says.
func (v *simVisitor) told(d queue.Decision) {
	v.w.tally.Told++
	v.w.logf("visitor %d is told %+v", v.id, d)
	if d.Index < v.index && d.State.Waits() && v.w.truth.state[v.token] == queue.Active && v.inside {
		v.w.fatalf("visitor %d, inside, is told that it waits, as of entry %d after %d (I6)", v.id, d.Index, v.index)
	}
	v.index = max(v.index, d.Index)
	switch {
	case d.State.Waits():
		switch {
		case v.ticket == d.Ticket && d.Position > v.place+v.cameBack():
			v.w.fatalf("visitor %d with ticket %d was told place %d and is told %d (I6)", v.id, d.Ticket, v.place, d.Position)
		case v.ticket != 0 && d.Ticket < v.ticket:
			v.w.fatalf("visitor %d was told ticket %d and is told %d (I6)", v.id, v.ticket, d.Ticket)
		}
		v.ticket, v.place, v.backs = d.Ticket, d.Position, len(v.w.truth.back)
	case d.State == queue.Active:
		v.ticket, v.place = 0, 0
	}
}
