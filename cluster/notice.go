package cluster

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// notices tell followers at once that an entry has committed. Raft's followers learn of a commit from the
// next AppendEntries, which in a quiet moment comes up to two CommitTimeouts later; until then they would
// show positions from before. A notice is such an AppendEntries: without entries, with the committed
// entry as the previous one and as the commit index. Any leader of that term may send it at any time, so
// it can do no harm when it is late: what it says stays true, and an older term is refused.
//
// Only the newest matters, so each follower has room for one, and a slow follower holds up nobody.
type notices struct {
	node *Node
	to   atomic.Pointer[[]*noticeTo] // nil: nobody; replaced as a whole by followMembers
}

const (
	noticeTries = 10
	noticePause = 2 * time.Millisecond
)

type noticeTo struct {
	peer  Peer
	next  chan notice // holds one: the newest
	heard *watermark  // the newest index that the follower has heard of by a notice
}

type notice struct{ term, index uint64 }

// everybody is who is told at present.
func (s *notices) everybody() []*noticeTo {
	if to := s.to.Load(); to != nil {
		return *to
	}
	return nil
}

// send leaves a notice for every follower. It never blocks; one goroutine at a time replaces what was left.
func (s *notices) send(term, index uint64) {
	for _, to := range s.everybody() {
		select {
		case <-to.next:
		default:
		}
		select {
		case to.next <- notice{term, index}:
		default: // somebody left a newer one
		}
	}
}

func (s *notices) run(ctx context.Context, to *noticeTo) {
	for {
		select {
		case n := <-to.next:
			s.deliver(ctx, to, n)
		case <-ctx.Done():
			return
		}
	}
}

// deliver sends one notice. The majority may have committed the entry before this follower has it; the notice
// overtakes it then, is refused, and goes again in a moment. A newer notice takes the place of this one. When
// all fails the library's own AppendEntries follows soon.
func (s *notices) deliver(ctx context.Context, to *noticeTo, n notice) {
	t := s.node.transport
	id, address := raft.ServerID(to.peer.ID), raft.ServerAddress(to.peer.Address)
	self := t.EncodePeer(raft.ServerID(s.node.self.ID), raft.ServerAddress(s.node.self.Address))
	for range noticeTries {
		request := raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(s.node.self.ID), Addr: self},
			Term:      n.term, PrevLogEntry: n.index, PrevLogTerm: n.term, LeaderCommitIndex: n.index,
		}
		var answer raft.AppendEntriesResponse
		if err := t.AppendEntries(id, address, &request, &answer); err != nil || answer.Term > n.term {
			return
		}
		if answer.Success {
			to.heard.raise(n.index)
			return
		}
		select {
		case n = <-to.next:
		case <-time.After(noticePause):
		case <-ctx.Done():
			return
		}
	}
}

// spreadTime is how long a change may be held back for the followers to hear of it.
const spreadTime = 25 * time.Millisecond

// Spread returns once every follower in reach has heard that the entry at index has committed, or after 25 ms.
// What is shown outside after it, in Redis or in the answer of an admin call, is in every node's table. It is
// for the leader; on another node it returns at once.
func (n *Node) Spread(ctx context.Context, index uint64) {
	if n.leading.Load() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, spreadTime)
	defer cancel()
	for _, to := range n.notices.everybody() {
		if n.pings.healthy(to.peer.ID) && to.heard.wait(ctx, index) != nil {
			return // out of time: the others have had as much of it
		}
	}
}
