package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// A node whose data directory was wiped has forgotten which votes it gave and which entries it acknowledged, and Raft counts on
// both: with its empty log it would elect a node that lacks what it once helped to commit, or a second leader of one term. Raft can
// not tell it from a node that starts for the first time. So a node that starts with an empty directory takes part in nothing
// until it has found out which of the two it is (recall, judge):
//
//   - As long as nothing has ever happened, there is nothing to forget. A majority whose term is still the first one, itself
//     included, and nobody in reach who says otherwise: then the cluster is new. The node may vote from then on and forgets nothing more.
//   - Otherwise it waits for enough of those that do remember. What it may have promised was promised to a majority that it was
//     part of, so it needs one other member of every such majority: with three voters both others, with five three of the
//     four. The highest term that they know is at least as high as that of any promise. From leaders of that term on it takes
//     entries and snapshots. Their logs hold all that was committed, because none of those that elected them had forgotten anything.
//   - It still does not vote, nor stand, until it has committed all that the leader had when it was first asked. By then it
//     has what it once acknowledged, and it votes in later terms only, which it marks by a vote for nobody in the current one.
//     Of two voters the other one can not lead without it, and holds all that was committed: there the node votes at once, in later terms.
//
// Viewstamped Replication lets replicas without a disk recover in this way. The fault known of that method, a vote of before that is
// still on its way to a candidate which was not asked, can arise with four voters and more. A candidate waits for votes for a limited
// time, and so long the node waits there too (voteHold).
//
// A node that joins (WR_JOIN) knows no voters whom it could ask. It takes part in nothing until a leader has it as a member without a
// vote, whether it asked to be taken in or somebody else did: then nobody counts on a promise of an earlier life, and it takes entries and snapshots of that leader and of later ones. A leader
// that has it as a voter refuses instead, until somebody has removed it.
//
// Two nodes of three that were wiped at once are more than a cluster of three survives: they wait for an operator as long as the third
// one is in reach, which holds what there is.

// A memory says what a node may take part in. Any number of callers.
type memory struct {
	whole atomic.Bool                    // in everything; it never becomes false again
	from  atomic.Uint64                  // while it is not whole: what leaders of this term and later ones send is taken; 0: nothing
	heard atomic.Pointer[raft.RPCHeader] // of the last message of a leader that was not taken; nil: there was none
}

var errForgotten = errors.New("this node's data directory was empty: it takes no part until it holds what the others hold")

// takes reports whether Raft may see a message of another node.
func (m *memory) takes(message any) bool {
	if m.whole.Load() {
		return true
	}
	from := m.from.Load()
	switch message := message.(type) {
	case *raft.AppendEntriesRequest:
		if from == 0 {
			m.heard.Store(&message.RPCHeader)
		}
		return from != 0 && message.Term >= from
	case *raft.InstallSnapshotRequest:
		return from != 0 && message.Term >= from
	}
	return false
}

// keyMemory is where the stable store says that memory is not whole. Data directories without it are older than this, and whole.
var keyMemory = []byte("owr-forgotten")

var forgotten, remembered = []byte("1"), []byte("0")

// nobody is who the node has voted for in the term in which its memory became whole: no candidate has this address.
var nobody = []byte("owr: nobody")

// openMemory reads whether memory is whole. It is called before the first entry of an empty directory is written, so a node that is
// killed at any moment afterwards knows.
func (n *Node) openMemory(known bool) error {
	if len(n.cfg.Peers) < 2 && n.cfg.Join == "" {
		n.memory.whole.Store(true) // it promises nothing to anybody
		return nil
	}
	if !known {
		return n.store.Set(keyMemory, forgotten)
	}
	value, err := n.store.Get(keyMemory)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	n.memory.whole.Store(string(value) != string(forgotten))
	return nil
}

// filter hands Raft those messages that memory lets pass, until ctx ends.
func (t transport) filter(ctx context.Context) {
	for {
		select {
		case rpc := <-t.incoming():
			if !t.memory.takes(rpc.Command) {
				if rpc.Reader != nil {
					_, _ = io.Copy(io.Discard, rpc.Reader) // a snapshot: the next message comes behind it
				}
				rpc.Respond(nil, errForgotten)
				continue
			}
			select {
			case t.messages <- rpc:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

const recallEvery = 100 * time.Millisecond

// recall asks the others until memory is whole, or ctx ends.
func (n *Node) recall(ctx context.Context) {
	tick := time.NewTicker(recallEvery)
	defer tick.Stop()
	begun := time.Now()
	var leader about // the first answer of the newest leader's term
	for said := ""; ; {
		own, err := n.about()
		if err != nil {
			return // the store has ended the node
		}
		answers := n.askPeers(ctx)
		if ctx.Err() != nil {
			return
		}
		founds, from := judge(len(n.cfg.Peers), own, answers)
		if founds {
			if n.store.Set(keyMemory, remembered) == nil {
				n.memory.whole.Store(true)
				n.log.Info("a new cluster: a majority has never had a leader")
			}
			return
		}
		if from > n.memory.from.Load() {
			n.memory.from.Store(from)
		}
		for _, a := range answers {
			if a.leads && n.memory.from.Load() != 0 && a.term >= n.memory.from.Load() && a.term > leader.term {
				leader = a
			}
		}
		alone := from != 0 && len(n.cfg.Peers) == 2 // nobody can lead without this node's vote, and the other one holds every commit
		if alone || leader.term != 0 && n.raft.CommitIndex() >= leader.last && time.Since(begun) >= n.voteHold() {
			if n.store.remember(max(n.memory.from.Load(), n.store.term.Load())) == nil {
				n.memory.whole.Store(true)
				n.log.Info("this node holds what the others hold and votes from now on", "term", n.store.term.Load(), "index", leader.last)
			}
			return
		}
		if line := n.waitsFor(answers); line != said {
			said = line
			n.log.Warn("the data directory was empty: this node does not vote yet", "dir", n.cfg.DataDir, "waits_for", line)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// welcomed is called when a leader has taken this node in without a vote, or has it so already. The member at address is that leader or has heard it from
// it, so it is in that leader's term, or in a later one.
func (n *Node) welcomed(ctx context.Context, address string) error {
	if n.memory.whole.Load() {
		return nil
	}
	c := n.newClient()
	defer c.close()
	reply, err := c.call(ctx, address, frameAbout, nil)
	var a about
	var refused answered
	switch {
	case errors.As(err, &refused): // its version does not know the question
	case err != nil:
		return err
	default:
		if a, err = decodeAbout(reply); err != nil {
			return err
		}
	}
	n.memory.from.Store(max(a.term, 1))
	return nil
}

// settleIn makes the memory of a node that joins whole once it is welcome and holds an entry or a snapshot that says who is a member.
func (n *Node) settleIn(ctx context.Context) {
	tick := time.NewTicker(recallEvery)
	defer tick.Stop()
	begun, said := time.Now(), false
	for {
		if !said && !n.outside() && time.Since(begun) > staleContact { // join tells the reason of one that is outside
			said = true
			n.log.Warn("the data directory was empty once, and no leader has this node as a member without a vote: it takes no part. Remove the member, empty the directory, and start it again",
				"dir", n.cfg.DataDir)
		}
		if header := n.memory.heard.Load(); header != nil && n.memory.from.Load() == 0 {
			n.askIfWelcome(ctx, string(n.transport.DecodePeer(header.Addr)))
		}
		if n.memory.from.Load() != 0 && len(n.members()) > 0 && n.store.remember(max(n.memory.from.Load(), n.store.term.Load())) == nil {
			n.memory.whole.Store(true)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// askIfWelcome asks a leader that sends entries to this node whether it has it as a member without a vote. What goes wrong is tried again.
func (n *Node) askIfWelcome(ctx context.Context, address string) {
	c := n.newClient()
	defer c.close()
	var m Membership
	reply, err := c.call(ctx, address, frameMembers, nil)
	if err != nil || json.Unmarshal(reply, &m) != nil || m.By != m.Leader {
		return
	}
	for _, member := range m.Members {
		if member.ID == n.self.ID && !member.Voter {
			_ = n.welcomed(ctx, address) // asked again with the next tick
		}
	}
}

// judge says whether a node that knows this of itself and of others is part of a new cluster, and otherwise from which term on it may
// follow leaders; 0: not yet.
func judge(voters int, own about, others map[string]about) (founds bool, from uint64) {
	blank, remember, happened := 0, 0, false
	if own.term <= 1 {
		blank++
	} else {
		happened = true
	}
	highest := uint64(0)
	for _, a := range others {
		switch {
		case a.term <= 1: // the first entry is written in term 1; to vote is to be in a later one
			blank++
		case a.memory:
			remember++
			highest = max(highest, a.term)
			happened = true
		default:
			happened = true
		}
	}
	quorum := voters/2 + 1
	if !happened && blank >= quorum {
		return true, 0
	}
	if remember < voters-quorum+1 {
		return false, 0
	}
	return false, highest
}

// remember makes memory whole on disk: first the vote that bars a term, then the mark.
func (s *store) remember(term uint64) (err error) {
	defer s.guard("write", &err)
	defer s.watch("write to")()
	if err := s.writeVote(term, nobody); err != nil {
		return err
	}
	return s.bolt.Set(keyMemory, remembered)
}

// voteHold is for how long a candidate that this node has not heard of may count on a vote from before: the longest wait for votes,
// and the way there. With three voters it has heard of everybody.
func (n *Node) voteHold() time.Duration {
	if len(n.cfg.Peers) <= 3 {
		return 0
	}
	return 4*n.cfg.Timing.Heartbeat + n.cfg.Timing.RPC
}

// waitsFor says what a node without memory lacks.
func (n *Node) waitsFor(answers map[string]about) string {
	if n.memory.from.Load() != 0 {
		return "what the leader holds"
	}
	var missing []string
	for _, p := range n.cfg.Peers {
		if a, ok := answers[p.ID]; p.ID != n.self.ID && (!ok || !a.memory) {
			missing = append(missing, p.ID)
		}
	}
	return "an answer of nodes that remember: " + strings.Join(missing, ", ")
}
