package cluster

import (
	"bytes"
	"io"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// What the simulation has in place of the library: Raft as its paper has it, with votes, terms, one log and snapshots, by messages
// that a world may delay, lose or deliver twice. Pre-vote, leadership transfer and changes of membership are left out. What
// a node had on disk survives its crash.

type simEntry struct {
	term uint64
	data []byte // nil: the entry with which a leader begins
}

// A simDisk is what survives a crash.
type simDisk struct {
	term     uint64
	votedFor int // in term; -1: nobody
	base     uint64
	baseTerm uint64
	snapshot []byte     // of the entry at base; nil: there is none
	entries  []simEntry // from base+1 on
}

func (d *simDisk) last() uint64 { return d.base + uint64(len(d.entries)) }

func (d *simDisk) entry(index uint64) simEntry { return d.entries[index-d.base-1] }

func (d *simDisk) termAt(index uint64) uint64 {
	if index == d.base {
		return d.baseTerm
	}
	return d.entry(index).term
}

const (
	simHeartbeat = 400 * time.Millisecond
	simLease     = 350 * time.Millisecond
	simBeat      = 100 * time.Millisecond
)

// tickRaft is a node's timer.
func (n *simNode) tickRaft() {
	now := n.w.now()
	if n.role == raft.Leader {
		heard := 1
		for i := range n.acked {
			if i != n.id && now.Sub(n.acked[i]) < simLease {
				heard++
			}
		}
		if heard <= len(n.w.nodes)/2 && now.Sub(n.elected) > simLease {
			n.follow(n.disk.term, -1)
			return
		}
		if now.Sub(n.beatAt) >= simBeat {
			n.replicate()
		}
		return
	}
	if now.Sub(n.timerFrom) > n.patience {
		n.stand()
	}
}

func (n *simNode) resetTimer() {
	n.timerFrom = n.w.now()
	n.patience = simHeartbeat + time.Duration(n.w.random.Int64N(int64(simHeartbeat)))
}

// follow makes the node a follower in a term; what it had proposed has an unknown fate.
func (n *simNode) follow(term uint64, leader int) {
	if term > n.disk.term {
		n.disk.term, n.disk.votedFor = term, -1
	}
	was := n.role
	n.role = raft.Follower
	n.setLeader(leader)
	if was == raft.Leader {
		n.endTerm()
	}
}

func (n *simNode) stand() {
	n.resetTimer()
	n.role = raft.Candidate
	n.setLeader(-1)
	n.disk.term++
	n.disk.votedFor = n.id
	n.votes = 1
	term, last, lastTerm := n.disk.term, n.disk.last(), n.disk.termAt(n.disk.last())
	for _, to := range n.w.nodes {
		if to == n {
			continue
		}
		n.w.send(n, to, func() {
			d := &to.disk
			if term > d.term {
				to.follow(term, -1)
			}
			mine := d.termAt(d.last())
			newEnough := lastTerm > mine || lastTerm == mine && last >= d.last()
			if term < d.term || d.votedFor >= 0 && d.votedFor != n.id || !newEnough {
				return
			}
			d.votedFor = n.id
			to.resetTimer()
			n.w.send(to, n, func() {
				if n.role != raft.Candidate || n.disk.term != term || n.voters[to.id] == term {
					return
				}
				n.voters[to.id] = term // a vote that comes twice counts once
				if n.votes++; n.votes > len(n.w.nodes)/2 {
					n.lead()
				}
			})
		})
	}
}

func (n *simNode) lead() {
	n.role, n.elected = raft.Leader, n.w.now()
	n.setLeader(n.id)
	for i := range n.next {
		n.next[i], n.match[i], n.acked[i] = n.disk.last()+1, 0, n.elected
	}
	n.beginTerm()
}

// propose appends an entry to the leader's log and returns its index.
func (n *simNode) propose(data []byte) uint64 {
	n.disk.entries = append(n.disk.entries, simEntry{n.disk.term, data})
	n.replicate()
	return n.disk.last()
}

func (n *simNode) replicate() {
	n.beatAt = n.w.now()
	for _, to := range n.w.nodes {
		if to != n {
			n.sendLog(to)
		}
	}
}

func (n *simNode) sendLog(to *simNode) {
	term, commit := n.disk.term, n.commit
	if n.next[to.id] <= n.disk.base {
		base, baseTerm, snapshot := n.disk.base, n.disk.baseTerm, n.disk.snapshot
		n.w.send(n, to, func() {
			if !to.accepts(term, n.id) {
				return
			}
			to.install(base, baseTerm, snapshot)
			to.acknowledge(n, term, base)
		})
		return
	}
	prev := n.next[to.id] - 1
	prevTerm := n.disk.termAt(prev)
	entries := slices.Clone(n.disk.entries[prev-n.disk.base:])
	n.w.send(n, to, func() {
		if !to.accepts(term, n.id) {
			return
		}
		d := &to.disk
		if prev > d.last() || prev >= d.base && d.termAt(prev) != prevTerm {
			hint := min(prev-1, d.last())
			n.w.send(to, n, func() {
				if n.role == raft.Leader && n.disk.term == term {
					n.acked[to.id] = n.w.now()
					n.next[to.id] = max(n.match[to.id]+1, min(n.next[to.id], hint+1))
				}
			})
			return
		}
		at := prev
		for _, e := range entries {
			if at++; at <= d.base {
				continue
			}
			if at <= d.last() && d.entry(at).term != e.term {
				d.entries = d.entries[:at-d.base-1]
			}
			if at > d.last() {
				d.entries = append(slices.Clip(d.entries), e)
			}
		}
		to.commitTo(min(commit, at))
		to.acknowledge(n, term, at)
	})
}

// accepts takes in a message of a leader of a term, and reports whether it counts.
func (n *simNode) accepts(term uint64, leader int) bool {
	if term < n.disk.term {
		return false
	}
	if term > n.disk.term || n.role != raft.Follower || n.leader != leader {
		n.follow(term, leader)
	}
	n.contact = n.wall()
	n.resetTimer()
	return true
}

func (n *simNode) acknowledge(leader *simNode, term, index uint64) {
	n.w.send(n, leader, func() {
		if leader.role != raft.Leader || leader.disk.term != term {
			return
		}
		leader.acked[n.id] = n.w.now()
		leader.match[n.id] = max(leader.match[n.id], index)
		leader.next[n.id] = max(leader.next[n.id], index+1)
		leader.advance()
	})
}

// advance moves the commit index to what a majority holds of this term.
func (n *simNode) advance() {
	match := slices.Clone(n.match)
	match[n.id] = n.disk.last()
	slices.Sort(match)
	index := match[(len(match)-1)/2]
	if index > n.commit && n.disk.termAt(index) == n.disk.term {
		n.w.committed(n, index)
		n.commitTo(index)
		n.replicate() // so that the others hear of it: a notice
	}
}

func (n *simNode) commitTo(index uint64) {
	if index <= n.commit {
		return
	}
	n.commit = index
	n.later(n.w.upTo(15*time.Millisecond), n.applyCommitted)
}

// install is Raft's way to bring a follower on whose next entries are gone.
func (n *simNode) install(base, baseTerm uint64, snapshot []byte) {
	d := &n.disk
	if base <= d.base {
		return
	}
	if base <= d.last() && d.termAt(base) == baseTerm {
		d.entries = slices.Clone(d.entries[base-d.base:])
	} else {
		d.entries = nil
	}
	d.base, d.baseTerm, d.snapshot = base, baseTerm, snapshot
	n.commit = max(n.commit, base)
	if n.applied < base {
		n.restore()
	}
}

func (n *simNode) restore() {
	if err := n.fsm.Restore(io.NopCloser(bytes.NewReader(n.disk.snapshot))); err != nil {
		n.w.fatalf("node %d cannot read a snapshot: %v", n.id, err)
	}
	n.applied = n.disk.base
}

// compact writes a snapshot and cuts the log to a few entries behind it.
func (n *simNode) compact() {
	if n.applied <= n.disk.base+8 {
		return
	}
	frozen, err := n.fsm.Snapshot()
	if err != nil {
		n.w.fatalf("snapshot: %v", err)
	}
	var buffer bytes.Buffer
	if err := frozen.(*snapshot).write(&buffer); err != nil {
		n.w.fatalf("write snapshot: %v", err)
	}
	d := &n.disk
	d.baseTerm = d.termAt(n.applied)
	d.entries = slices.Clone(d.entries[n.applied-d.base:])
	d.base, d.snapshot = n.applied, buffer.Bytes()
}
