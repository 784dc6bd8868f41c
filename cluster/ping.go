package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	pingEvery = 500 * time.Millisecond
	// healthyFor is how long one answer speaks for a peer.
	healthyFor = 2500 * time.Millisecond
	// closeBehind is how many entries a member may lack, at the moment it answers, and count as one that keeps up.
	closeBehind = 250
	// outTimes is how often in a row the leader has to say that this node is no member. It takes longer than a leader that has lost
	// its majority goes on leading, and than the entry that adds a node takes to commit.
	outTimes = 4
)

// pings ask every other member how far it is, so that each node can say which others it reaches, a node that
// comes back knows when its table is as new as the leader's, and the leader knows who keeps up.
type pings struct {
	node *Node

	mu    sync.Mutex
	heard map[string]contact // by the peer's id
	out   int                // how often in a row the leader has said that this node is no member
}

// A contact is what a peer's last answers say.
type contact struct {
	at     time.Time // of the last one
	since  time.Time // since when it has answered every time and kept up; zero: it has not
	behind uint64    // entries that it lacked then
	ahead  uint64    // entries that this node lacked then
	wants  bool      // it would vote if it were asked to
	missed bool      // it has not answered the last one
}

func newPings(n *Node) *pings { return &pings{node: n, heard: map[string]contact{}} }

// --- what is said ---------------------------------------------------------------------------

// A pong is the answer to a ping: how far the node is, and who it is.
type pong struct {
	applied uint64
	wants   bool   // its WR_ROLE is voter
	placed  bool   // it knows of a configuration
	out     bool   // it leads, and the asker is no member
	leads   bool   // it leads, and its table holds all that earlier leaders committed
	id      string // of the node that answers
}

func appendPong(dst []byte, p pong) []byte {
	flags := byte(0)
	for i, set := range []bool{p.wants, p.placed, p.out, p.leads} {
		if set {
			flags |= 1 << i
		}
	}
	return append(append(appendUint64(dst, p.applied), flags), p.id...)
}

// decodePong reads an answer. A node of the first version answers with its applied index alone.
func decodePong(data []byte) (pong, error) {
	if len(data) == 8 {
		return pong{applied: binary.BigEndian.Uint64(data), leads: true}, nil
	}
	if len(data) < 9 || data[8] > 15 {
		return pong{}, fmt.Errorf("%w: pong % x", errBadFrame, data)
	}
	return pong{
		applied: binary.BigEndian.Uint64(data), id: string(data[9:]),
		wants: data[8]&1 != 0, placed: data[8]&2 != 0, out: data[8]&4 != 0, leads: data[8]&8 != 0,
	}, nil
}

// answerPing answers another node. That the asker is no member is the leader's word alone, and only when neither the newest
// configuration holds it nor the committed one.
func (n *Node) answerPing(asker []byte) []byte {
	if len(asker) == 0 { // it is of the first version
		applied := uint64(0)
		if n.leading.Load() != 0 {
			applied = n.fsm.applied.load()
		}
		return appendUint64(nil, applied)
	}
	p := pong{applied: n.fsm.applied.load(), wants: !n.cfg.Edge, leads: n.leading.Load() != 0, id: n.self.ID}
	members := n.members()
	p.placed = len(members) > 0
	if len(asker) > 0 && n.leading.Load() != 0 {
		committed, index, _ := n.roster.committed()
		p.out = index > 0 && !holds(members, string(asker)) && !holds(committed, string(asker))
	}
	return appendPong(nil, p)
}

func holds(servers []raft.Server, id string) bool {
	for _, s := range servers {
		if string(s.ID) == id {
			return true
		}
	}
	return false
}

// ping asks one node once.
func (n *Node) ping(ctx context.Context, c *client, address string) (pong, error) {
	reply, err := c.call(ctx, address, framePing, []byte(n.self.ID))
	if err != nil {
		return pong{}, cause(err)
	}
	said, err := decodePong(reply)
	if peer := c.certified(); err == nil && peer != "" && said.id != peer {
		return pong{}, fmt.Errorf("%w: %s says that it is %s", errPretends, peer, said.id)
	}
	return said, err
}

// cause is why a call was not made, without what that means to somebody who looks for the leader.
func cause(err error) error {
	var several interface{ Unwrap() []error }
	if errors.Is(err, errNotLeader) && errors.As(err, &several) {
		all := several.Unwrap()
		return all[len(all)-1]
	}
	return err
}

// --- what is heard --------------------------------------------------------------------------

// run asks one member until ctx ends, which it does when the member has gone.
func (p *pings) run(ctx context.Context, peer Peer) {
	c := p.node.newClient()
	defer c.close()
	defer p.forget(peer.ID)
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	_, changed := p.node.leader()
	for round := 0; ; round++ {
		if pong, err := p.node.ping(ctx, c, peer.Address); err == nil && (pong.id == peer.ID || pong.id == "") {
			p.answered(ctx, peer, pong)
			if round%compareEvery == 0 {
				p.node.compare(ctx, c, peer)
			}
		} else {
			p.missed(peer.ID)
		}
		select {
		case <-tick.C:
		case <-changed: // a new leader: a node that waits to be fresh asks it at once
			_, changed = p.node.leader()
		case <-ctx.Done():
			return
		}
	}
}

func (p *pings) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.heard, id)
	p.node.fsm.sums.forget(id)
}

// missed notes that a peer has not answered.
func (p *pings) missed(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.heard[id]
	c.since, c.missed = time.Time{}, true
	p.heard[id] = c
}

// answered takes in one answer. Once this replica holds what the leader held when it answered, its table
// is no longer one from before a restart.
func (p *pings) answered(ctx context.Context, peer Peer, said pong) {
	n := p.node
	p.note(peer.ID, said, n.fsm.applied.load())
	n.leaderMu.Lock()
	leads := n.leaderID == peer.ID
	n.leaderMu.Unlock()
	if p.excluded(said.out, leads || said.out) {
		n.fail(fmt.Errorf("%w: %s, which leads it, says so. To bring the node back, empty its data directory, %s, and start it with WR_JOIN=%s",
			ErrRemoved, peer.ID, n.cfg.DataDir, peer.Address))
		return
	}
	// A leader that was just elected after all nodes were down has not applied its log yet: who took its index for the newest
	// would call a table of before fresh, and let visitors in who have lost their slots (I5).
	if n.fresh.Load() || n.raft.State() != raft.Follower || !leads || !said.leads {
		return
	}
	limit, cancel := context.WithTimeout(ctx, pingEvery)
	defer cancel()
	if n.fsm.applied.wait(limit, said.applied) == nil && said.applied > 0 {
		n.fresh.Store(true)
	}
}

func (p *pings) note(id string, said pong, applied uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, c := time.Now(), p.heard[id]
	c.at, c.missed, c.wants, c.behind, c.ahead = now, false, said.wants, lag(applied, said.applied), lag(said.applied, applied)
	switch {
	case c.behind > closeBehind:
		c.since = time.Time{}
	case c.since.IsZero():
		c.since = now
	}
	p.heard[id] = c
}

// excluded counts what leaders say of this node's membership, and reports whether it is settled that it has none.
func (p *pings) excluded(out, leads bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case out:
		p.out++
	case leads:
		p.out = 0
	}
	return p.out >= outTimes
}

// of is what is known of a peer.
func (p *pings) of(id string) contact {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard[id]
}

// alive reports whether the peer has answered lately, the last time too.
func (p *pings) alive(id string) bool {
	c := p.of(id)
	return !c.missed && time.Since(c.at) < healthyFor
}

// healthy reports whether the peer has answered lately.
func (p *pings) healthy(id string) bool { return time.Since(p.of(id).at) < healthyFor }
