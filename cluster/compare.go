package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
)

// Equal logs give equal tables (I7). Should that ever not be so, by a defect, by memory that has gone bad, or by the one fault of the library that
// lets two nodes hold different entries at one index (hashicorp/raft issue 695), then nothing else would show it: the nodes would go on, and tell
// visitors two stories. So each node asks the others now and again what their table came to at their newest entry, and compares it with its own at
// that entry. One whose table differs from those of a majority of the voters ends. Where it is one against one nobody can say who is right: both log it.

// compareEvery is how many pings lie between two questions to one member.
const compareEvery = 10

// sums are what this node's table came to at each of its last entries, and which members came to something else. note has one caller.
type sums struct {
	ring [4096]struct{ index, sum atomic.Uint64 } // index: 0 while sum is written
	mu   sync.Mutex
	odd  map[string]bool // by the member's id: when it was last asked
}

func (s *sums) note(index, sum uint64) {
	cell := &s.ring[index%uint64(len(s.ring))]
	cell.index.Store(0)
	cell.sum.Store(sum)
	cell.index.Store(index)
}

// at is the sum at an entry, if it is known still.
func (s *sums) at(index uint64) (sum uint64, known bool) {
	cell := &s.ring[index%uint64(len(s.ring))]
	if cell.index.Load() != index {
		return 0, false
	}
	sum = cell.sum.Load()
	return sum, index != 0 && cell.index.Load() == index
}

// differs notes whether a member's table differs, and answers with how many of these members' do.
func (s *sums) differs(id string, odd bool, members []string) (count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.odd == nil {
		s.odd = map[string]bool{}
	}
	s.odd[id] = odd
	for _, m := range members {
		if s.odd[m] {
			count++
		}
	}
	return count
}

// forget is for a member that has gone.
func (s *sums) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.odd, id)
}

// differing is how many members differ.
func (s *sums) differing() (count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, odd := range s.odd {
		if odd {
			count++
		}
	}
	return count
}

// answerSum is the answer to frameSum: the newest entry of the table, and what the table came to.
func (n *Node) answerSum() []byte {
	s := n.Stats()
	return appendUint64(appendUint64(nil, s.Index), s.Sum)
}

// compare asks one member once. A version that does not know the question is not compared with.
func (n *Node) compare(ctx context.Context, c *client, peer Peer) {
	reply, err := c.call(ctx, peer.Address, frameSum, nil)
	if err != nil || len(reply) != 16 {
		return
	}
	index, theirs := binary.BigEndian.Uint64(reply), binary.BigEndian.Uint64(reply[8:])
	limit, cancel := context.WithTimeout(ctx, pingEvery)
	defer cancel()
	if n.fsm.applied.wait(limit, index) != nil {
		return // this node is behind, and is compared later
	}
	ours, known := n.fsm.sums.at(index)
	if !known {
		return
	}
	voters := n.voters()
	odd := n.fsm.sums.differs(peer.ID, ours != theirs, voters)
	if ours == theirs {
		return
	}
	n.log.Error("this node's table differs from another one's", "other", peer.ID, "index", index, "ours", fmt.Sprintf("%016x", ours), "theirs", fmt.Sprintf("%016x", theirs))
	if 2*odd > len(voters) {
		n.fail(fmt.Errorf("at entry %d this node's table is not what most voters have: its disk, its memory or a defect has changed it. "+
			"Remove its data directory, %s, and start it again: it will be sent everything", index, n.cfg.DataDir))
	}
}
