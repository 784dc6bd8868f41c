package cluster

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A roster is the fsm as Raft sees it, and beside it who belongs to the cluster by the newest configuration that this node knows to be
// committed, and the index of that one: Raft tells it nowhere else, and a change that names it can not overtake another change.
type roster struct {
	*fsm
	snapshots raft.SnapshotStore

	mu      sync.Mutex
	index   uint64 // 0: none known yet
	servers []raft.Server
	changed chan struct{} // closed at the next change
}

func newRoster(f *fsm, snapshots raft.SnapshotStore) (*roster, error) {
	r := &roster{fsm: f, snapshots: snapshots, changed: make(chan struct{})}
	return r, r.recall()
}

// recall takes the configuration of the newest snapshot: entries before it are not applied again.
func (r *roster) recall() error {
	list, err := r.snapshots.List()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	if len(list) > 0 {
		r.StoreConfiguration(list[0].ConfigurationIndex, list[0].Configuration)
	}
	return nil
}

// StoreConfiguration implements raft.ConfigurationStore: the configuration has committed.
func (r *roster) StoreConfiguration(index uint64, c raft.Configuration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if index <= r.index {
		return
	}
	r.index, r.servers = index, c.Clone().Servers
	close(r.changed)
	r.changed = make(chan struct{})
}

// Restore implements raft.FSM.
func (r *roster) Restore(from io.ReadCloser) error {
	if err := r.fsm.Restore(from); err != nil {
		return err
	}
	return r.recall()
}

// committed is the newest configuration that has committed, its index, and a channel that is closed at the next one.
func (r *roster) committed() (servers []raft.Server, index uint64, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.servers), r.index, r.changed
}

// --- who is there, for those who talk to all of them ---------------------------------------

// members are the servers of the newest configuration that this node has seen, committed or not: what Raft itself goes by. They are a
// copy: the library hands out the list that it shows to everybody.
func (n *Node) members() []raft.Server {
	future := n.raft.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	return slices.Clone(future.Configuration().Servers)
}

// voters are the ids of those of them that vote.
func (n *Node) voters() []string {
	var ids []string
	for _, s := range n.members() {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// others are the members but this node, as they are reached, by id.
func (n *Node) others() []Peer {
	var all []Peer
	for _, s := range n.members() {
		if id := string(s.ID); id != n.self.ID {
			all = append(all, Peer{id, n.addressOf(id, string(s.Address))})
		}
	}
	slices.SortFunc(all, func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// lookEvery is how often a node looks whether a configuration has come that has yet to commit.
const lookEvery = 200 * time.Millisecond

// A link is what runs for one other member.
type link struct {
	peer Peer
	to   *noticeTo
	stop context.CancelFunc
}

// followMembers keeps a ping and a notice running for every other member, until the node ends.
func (n *Node) followMembers() {
	links := map[string]link{}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		_, _, changed := n.roster.committed()
		n.relink(links)
		n.noteCluster()
		if n.raft.State() == raft.Shutdown && n.ctx.Err() == nil {
			n.fail(fmt.Errorf("%w: it led, and removed itself", ErrRemoved))
			return
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
	}
}

// relink starts and ends what runs for members that came, moved or went.
func (n *Node) relink(links map[string]link) {
	if n.cfg.alone() {
		return
	}
	peers := n.others()
	same := len(peers) == len(links)
	for _, p := range peers {
		same = same && links[p.ID].peer == p
	}
	if same {
		return
	}
	for id, l := range links {
		if !slices.Contains(peers, l.peer) {
			l.stop()
			delete(links, id)
		}
	}
	var to []*noticeTo
	for _, p := range peers {
		l, ok := links[p.ID]
		if !ok {
			ctx, cancel := context.WithCancel(n.ctx)
			l = link{peer: p, stop: cancel, to: &noticeTo{peer: p, next: make(chan notice, 1), heard: new(watermark)}}
			links[p.ID] = l
			n.wg.Go(func() { n.notices.run(ctx, l.to) })
			n.wg.Go(func() { n.pings.run(ctx, p) })
		}
		to = append(to, l.to)
	}
	n.notices.to.Store(&to)
}
