package cluster

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/queue"
)

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

	flushing bool
	looks    *looks
	vigil    *vigil
	lateTo   time.Time                     // until then it flushes nothing: it has no processor for that
	waits    func([]queue.Decision, error) // for the leader's answer to forwarded commands; nil: nothing does
	lostAt   time.Time
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
	n.busy, n.leading, n.fresh, n.ticking, n.flushing, n.lostAt = false, false, false, false, false, n.w.now()
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
			limits.FirstHitTTL = simFirst
			base := n.propose(queue.AppendLimits(nil, queue.LimitsChange{Now: n.clock.now(), Base: true, Set: queue.AllFields, Values: limits}))
			n.flights[base] = simFlight{term, func(_ []queue.Decision, err error) {
				if err == nil {
					n.leading, n.fresh, n.looks, n.vigil = true, true, newLooks(n.clock), n.newVigil()
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
	if !n.leading {
		return
	}
	n.looks.look()
	if n.ticking {
		return
	}
	due := n.table().Stats().NextDeadline
	now, command, ok := n.looks.next(due)
	if !ok {
		return
	}
	if command.Kind == queue.KindTick && !n.vigil.clear(now, due) {
		n.w.tally.Held++
		return
	}
	n.ticking = true
	entry := queue.AppendBatch(nil, queue.Batch{Room: n.batcher.room, Now: now, Commands: []queue.Command{command}})
	begun, looks := n.clock.wall(), n.looks
	n.flights[n.propose(entry)] = simFlight{n.disk.term, func(_ []queue.Decision, err error) {
		n.ticking = false
		looks.look()
		looks.took(command, n.clock.wall().Sub(begun), err)
	}}
}

// newVigil is Node.newVigil.
func (n *simNode) newVigil() *vigil {
	return &vigil{
		lag: n.touches.lag,
		live: func() (live []raft.Server) {
			for _, o := range n.w.nodes {
				if o != n && n.w.now().Sub(n.acked[o.id]) < simLease {
					live = append(live, raft.Server{ID: raft.ServerID(strconv.Itoa(o.id))})
				}
			}
			return live
		},
		ask: func(m raft.Server, then func(time.Duration, error)) {
			id, err := strconv.Atoi(string(m.ID))
			if err != nil {
				n.w.fatalf("asked %s", m.ID)
				return
			}
			other, once := n.w.nodes[id], false
			told := func(lag time.Duration, err error) {
				if !once {
					once = true
					then(lag, err)
				}
			}
			n.w.sendFrame(n, other, func() {
				lag := other.touches.lag()
				n.w.sendFrame(other, n, func() { told(lag, nil) })
			})
			n.later(simRPC, func() { told(0, ErrNoLeader) })
		},
		nodes: map[raft.ServerID]*watched{},
	}
}

// flush is touches.flush. The order within a flush is Go's map's, so it is made one here.
func (n *simNode) flush() {
	if n.flushing || n.w.now().Before(n.lateTo) {
		return
	}
	begun := n.w.now()
	list := n.touches.take()
	if len(list) == 0 {
		n.touches.settle(begun)
		return
	}
	slices.SortFunc(list, func(a, b touch) int { return bytes.Compare(a.token[:], b.token[:]) })
	n.flushing = true
	n.submit(2*time.Second, func(o outcome) {
		n.flushing = false
		if o.err != nil {
			n.trouble = n.w.now()
			n.touches.giveBack(list)
			return
		}
		n.touches.settle(begun)
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
