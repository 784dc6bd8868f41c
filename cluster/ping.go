package cluster

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	pingEvery = 500 * time.Millisecond
	// healthyFor is how long one answer speaks for a peer.
	healthyFor = 2500 * time.Millisecond
)

// pings ask every peer how far it is, so that each node can say which others it reaches, and a node that
// comes back knows when its table is as new as the leader's.
type pings struct {
	node *Node

	mu    sync.Mutex
	heard map[string]time.Time // peer id → its last answer
}

func newPings(n *Node) *pings { return &pings{node: n, heard: map[string]time.Time{}} }

func (p *pings) start(ctx context.Context, wg *sync.WaitGroup) {
	for _, peer := range p.node.cfg.Peers {
		if peer.ID != p.node.self.ID {
			wg.Go(func() { p.run(ctx, peer) })
		}
	}
}

func (p *pings) run(ctx context.Context, peer Peer) {
	c := p.node.newClient()
	defer c.close()
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	_, changed := p.node.leader()
	for {
		if reply, err := c.call(ctx, peer.Address, framePing, nil); err == nil && len(reply) == 8 {
			p.answered(ctx, peer, binary.BigEndian.Uint64(reply))
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

// answered takes in one answer. Once this replica holds what the leader held when it answered, its table
// is no longer one from before a restart.
func (p *pings) answered(ctx context.Context, peer Peer, applied uint64) {
	p.mu.Lock()
	p.heard[peer.ID] = time.Now()
	p.mu.Unlock()
	n := p.node
	if n.fresh.Load() || n.raft.State() != raft.Follower {
		return
	}
	n.leaderMu.Lock()
	leads := n.leaderID == peer.ID
	n.leaderMu.Unlock()
	if !leads {
		return
	}
	limit, cancel := context.WithTimeout(ctx, pingEvery)
	defer cancel()
	if n.fsm.applied.wait(limit, applied) == nil && applied > 0 {
		n.fresh.Store(true)
	}
}

// healthy reports whether the peer has answered lately.
func (p *pings) healthy(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.heard[id]) < healthyFor
}
