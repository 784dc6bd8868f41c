package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// A tick takes slots and places from those who have not been seen for too long. Whoever was seen by a node that has been late with
// handing that in, because it had no processor or the way to the leader was slow, must not be among them (I4). The graces of the
// table cover what is usual; for the rest the leader keeps a vigil: no tick before every live node says that what it saw until then
// has committed. A node that does not answer any more is not waited for, and nobody for longer than maxVigil.
//
// It is the leader's for one term, and belongs to the goroutine of its ticks, but for what mu guards.
type vigil struct {
	node *Node
	wg   sync.WaitGroup

	mu    sync.Mutex
	nodes map[string]*watched
}

// maxVigil is how long behind a deadline a tick waits for live nodes. A node that could hand nothing in for so long can not be helped.
const maxVigil = 5 * time.Second

type watched struct {
	client  *client
	settled int64 // all that it saw before this cluster time, Unix milliseconds, has committed
	asked   bool  // an answer is awaited
}

func newVigil(n *Node) *vigil { return &vigil{node: n, nodes: map[string]*watched{}} }

// clear reports whether a tick may happen now, for a deadline that was due then, both in cluster time. Where it may not because a node has
// not been heard for a while, that node is asked, and a later call may report otherwise. It never waits.
func (v *vigil) clear(ctx context.Context, now, due int64) bool {
	if now-due > maxVigil.Milliseconds() {
		return true
	}
	need := now - queue.Grace.Milliseconds()
	if now-v.node.touches.lag().Milliseconds() < need {
		return false
	}
	all := true
	for _, m := range v.node.members() {
		if id := string(m.ID); id != v.node.self.ID && v.node.pings.alive(id) && !v.has(ctx, id, string(m.Address), now, need) {
			all = false // go on, and ask the others too
		}
	}
	return all
}

// has reports whether a member has settled all from before a time, and asks it otherwise.
func (v *vigil) has(ctx context.Context, id, address string, now, need int64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := v.nodes[id]
	if w == nil {
		w = &watched{client: v.node.newClient()}
		v.nodes[id] = w
	}
	if w.settled >= need {
		return true
	}
	if !w.asked {
		w.asked = true
		v.wg.Go(func() { v.ask(ctx, w, address, now) })
	}
	return false
}

// ask hears from one member. What it has not settled when it answers is counted from when it was asked, by the leader's own clock.
func (v *vigil) ask(ctx context.Context, w *watched, address string, now int64) {
	reply, err := w.client.call(ctx, address, frameSettled, nil)
	var foreign answered
	v.mu.Lock()
	defer v.mu.Unlock()
	w.asked = false
	switch {
	case err == nil && len(reply) == 8:
		w.settled = max(w.settled, now-int64(min(binary.BigEndian.Uint64(reply), uint64(now))))
	case errors.As(err, &foreign): // it is of a version that does not know the question
		w.settled = max(w.settled, now)
	}
}

// end returns when nobody is asked any more, soon after the end of the term.
func (v *vigil) end() {
	v.wg.Wait()
	for _, w := range v.nodes {
		w.client.close()
	}
}
