package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/openwaitingroom/owr/queue"
)

// A tick takes slots and places from those who have not been seen for too long. Whoever was seen by a node that has been late with
// handing that in, because it had no processor or the way to the leader was slow, must not be among them (I4). The graces of the
// table cover what is usual; for the rest the leader keeps a vigil: no tick before every live node says that what it saw until then
// has committed. A node that does not answer any more is not waited for, and nobody for longer than maxVigil.
//
// It is the leader's for one term, and belongs to the goroutine of its ticks, but for what mu guards.
type vigil struct {
	lag  func() time.Duration // of this node's own signs: see touches.lag
	live func() []raft.Server // the other members that are there
	// ask has then told the lag of another node once, now or later, from any goroutine, or an error. It does not wait.
	ask func(m raft.Server, then func(lag time.Duration, err error))

	mu    sync.Mutex
	nodes map[raft.ServerID]*watched
}

// maxVigil is how long behind a deadline a tick waits for live nodes. A node that could hand nothing in for so long can not be helped.
const maxVigil = 5 * time.Second

type watched struct {
	settled int64 // all that it saw before this cluster time, Unix milliseconds, has committed
	asked   bool  // an answer is awaited
}

// clear reports whether a tick may happen now, for a deadline that was due then, both in cluster time. Where it may not because a node has
// not been heard for a while, that node is asked, and a later call may report otherwise. It never waits.
func (v *vigil) clear(now, due int64) bool {
	if now-due > maxVigil.Milliseconds() {
		return true
	}
	need := now - queue.Grace.Milliseconds()
	if now-v.lag().Milliseconds() < need {
		return false
	}
	all := true
	for _, m := range v.live() {
		if !v.has(m, now, need) {
			all = false // go on, and ask the others too
		}
	}
	return all
}

// has reports whether a node has settled all from before a time, and asks it otherwise. What it has not settled when it answers is counted
// from when it was asked, by the leader's own clock.
func (v *vigil) has(m raft.Server, now, need int64) bool {
	v.mu.Lock()
	w := v.nodes[m.ID]
	if w == nil {
		w = new(watched)
		v.nodes[m.ID] = w
	}
	has, asks := w.settled >= need, w.settled < need && !w.asked
	w.asked = w.asked || asks
	v.mu.Unlock()
	if asks {
		v.ask(m, func(lag time.Duration, err error) {
			v.mu.Lock()
			defer v.mu.Unlock()
			w.asked = false
			if err == nil {
				w.settled = max(w.settled, now-lag.Milliseconds())
			}
		})
	}
	return has
}

// newVigil is the vigil of a term that ends with ctx; end returns when nobody is asked any more, soon after that.
func (n *Node) newVigil(ctx context.Context) (v *vigil, end func()) {
	var wg sync.WaitGroup
	clients := map[raft.ServerID]*client{}
	v = &vigil{
		lag: n.touches.lag,
		live: func() []raft.Server {
			return slices.DeleteFunc(n.members(), func(m raft.Server) bool { return string(m.ID) == n.self.ID || !n.pings.alive(string(m.ID)) })
		},
		ask: func(m raft.Server, then func(time.Duration, error)) {
			c := clients[m.ID]
			if c == nil {
				c = n.newClient()
				clients[m.ID] = c
			}
			address := n.addressOf(string(m.ID), string(m.Address)) // it may have moved
			wg.Go(func() { then(askLag(ctx, c, address)) })
		},
		nodes: map[raft.ServerID]*watched{},
	}
	return v, func() {
		wg.Wait()
		for _, c := range clients {
			c.close()
		}
	}
}

// askLag asks one node for how long there may be signs of life that it has not handed in. A version that does not know the question
// is not waited for.
func askLag(ctx context.Context, c *client, address string) (time.Duration, error) {
	reply, err := c.call(ctx, address, frameSettled, nil)
	var refused answered
	switch {
	case errors.As(err, &refused):
		return 0, nil
	case err != nil:
		return 0, err
	case len(reply) != 8:
		return 0, fmt.Errorf("%w: lag of %d bytes", errBadFrame, len(reply))
	}
	return time.Duration(min(binary.BigEndian.Uint64(reply), uint64(maxVigil.Milliseconds()))) * time.Millisecond, nil
}
