package cluster

import (
	"time"

	"github.com/openwaitingroom/owr/queue"
)

type simVisitor struct {
	w        *simWorld
	id       int
	token    queue.Token
	index    uint64 // what its cookie says
	asking   bool
	ticket   uint64 // that it was told; zero once a page may have been let in for it
	place    int
	backs    int  // how many of truth's tickets had come back by then
	inside   bool // it was told so
	restless int  // how many pages it wants to see yet

	passed     time.Time // the last request with which it was inside
	passedNode *simNode
	life       int

	first bool // its last way in was a first visit, and its cookie has not come back on a node that could tell the others
}

// act is one request to any node.
func (v *simVisitor) act() {
	v.w.after(100*time.Millisecond+v.w.upTo(1500*time.Millisecond), v.act)
	if v.restless < 0 && v.w.random.IntN(8) > 0 {
		if v.restless++; v.restless == 0 {
			v.inside = false
		}
		return // it is away for a while, so that its slot or its presence expires
	}
	n := v.w.nodes[v.w.random.IntN(len(v.w.nodes))]
	if v.asking || !n.up || v.w.now().Before(n.pausedTo) {
		return
	}
	if v.restless++; v.restless > 3+v.w.random.IntN(12) {
		v.restless = -4
	}
	var view queue.View
	if n.fresh {
		view = n.table().Lookup(v.token)
	}
	// Who has been told a place asks mostly by polls, whose answers tell it what to do next: they may be lost.
	poll := v.ticket != 0 && v.w.random.IntN(4) > 0
	inside := signTouch
	if poll && view.Reserved {
		inside = signAsk
	}
	now := n.clock.now()
	// On this replica's word alone (I5).
	alone := func() {
		if s := v.w.truth.state[v.token]; s != queue.Active {
			v.w.fatalf("node %d lets visitor %d in, which is %s (I5)", n.id, v.id, s)
		}
		v.pass(n, v.w.now(), true)
	}
	if view.State == queue.Active && now < view.Deadline && (poll || !view.Reserved) {
		if now >= view.TouchAfter {
			n.touches.note(v.token, inside)
		}
		alone()
		return
	}
	kind := queue.KindArrive
	if poll {
		kind = queue.KindAsk
	}
	switch {
	case v.index > n.fsm.applied.load():
	case view.State == queue.Active:
		n.touches.note(v.token, inside)
		if now < view.Deadline { // its first page
			kind = queue.KindClaim
		}
	case view.State == queue.Released && poll:
		kind = queue.KindReserve
	case view.State == queue.Released:
		kind = queue.KindClaim
	case view.State == queue.Absent:
		n.touches.note(v.token, signAsk)
	case view.State == queue.Queued:
		n.touches.note(v.token, signAsk)
		v.told(queue.Decision{State: view.State, Ticket: view.Ticket, Position: view.Position, Index: n.fsm.applied.load()})
		return
	}
	if kind == queue.KindArrive && view.State == queue.Unknown && v.ticket == 0 && !v.inside && v.w.random.IntN(5) > 0 {
		kind, v.index = queue.KindEnter, 0 // it comes without a cookie
	}
	ticket := v.ticket
	if !poll {
		v.ticket = 0 // should its answer be lost, the site may have been asked all the same
	}
	v.asking = true
	asked := v.w.now()
	ended := func(o outcome) {
		v.asking = false
		if o.err != nil && kind == queue.KindClaim && view.State == queue.Active && n.clock.now() < view.Deadline {
			alone()
			return
		}
		if o.err != nil && v.w.random.IntN(3) == 0 {
			v.restless = -6 // it looks away when nobody answers
		}
		if o.err == nil {
			v.ticket = ticket
			v.told(o.decisions[0])
			if o.decisions[0].State == queue.Active {
				v.pass(n, asked, kind != queue.KindEnter)
			}
		}
	}
	life := n.life
	once := false
	n.submit(3*time.Second, func(o outcome) {
		if !once {
			once = true
			ended(o)
		}
	}, queue.Command{Kind: kind, Token: v.token})
	v.w.after(3100*time.Millisecond, func() { // its node may have crashed
		if !once && n.life != life {
			once = true
			v.asking = false
		}
	})
}

// pass is that the visitor's request, which a node took at that time, goes to the site; with its cookie, or as a first visit.
func (v *simVisitor) pass(n *simNode, asked time.Time, cookie bool) {
	v.w.tally.Passed++
	switch {
	case !cookie:
		v.first = true
		if v.w.random.IntN(3) > 0 {
			v.restless = -6 // it was only passing by
		}
	case v.first:
		v.first = false
	}
	v.passed, v.passedNode, v.life, v.inside = asked, n, n.life, true
	v.ticket, v.place = 0, 0
}

// takenBack checks that the visitor's slot was one that may be taken back (I4): given to a first visit at least first_hit_ttl ago, whose
// cookie has not come back on a node that could tell the others.
func (v *simVisitor) takenBack(index uint64) {
	entered := v.w.truth.entered[v.token]
	if since := v.w.now().Sub(entered); since < simFirst-20*time.Millisecond {
		v.w.fatalf("entry %d: the slot of visitor %d is taken back %v after its first visit (I4)", index, v.id, since)
	}
	if n := v.passedNode; !v.first && v.passed.After(entered) && n.life == v.life && n.trouble.Before(v.passed.Add(-time.Second)) {
		v.w.fatalf("entry %d: the slot of visitor %d is taken back, and it was back at %v on node %d (I4)", index, v.id, v.passed.Sub(v.w.begun), n.id)
	}
	v.inside = false
}

// expired checks that the visitor's slot did not go too early (I4): not before active_ttl after its last request on a
// node that could tell the others.
func (v *simVisitor) expired(index uint64) {
	n := v.passedNode
	if n == nil || n.life != v.life || !n.trouble.Before(v.passed.Add(-time.Second)) {
		v.inside = false
		return
	}
	if since := v.w.now().Sub(v.passed); since < simTTL-20*time.Millisecond {
		v.w.fatalf("entry %d: visitor %d loses its slot %v after its last request on node %d (I4)", index, v.id, since, n.id)
	}
	v.inside = false
}

// cameBack is how many before this visitor came back into the line since it was told its place. The answer may have been a little
// older than the moment at which it came.
func (v *simVisitor) cameBack() (n int) {
	for _, ticket := range v.w.truth.back[max(0, v.backs-2):] {
		if ticket < v.ticket {
			n++
		}
	}
	return n
}

// told takes in what an answer says.
func (v *simVisitor) told(d queue.Decision) {
	v.w.tally.Told++
	v.w.logf("visitor %d is told %+v", v.id, d)
	if d.Index < v.index && d.State.Waits() && v.w.truth.state[v.token] == queue.Active && v.inside {
		v.w.fatalf("visitor %d, inside, is told that it waits, as of entry %d after %d (I6)", v.id, d.Index, v.index)
	}
	v.index = max(v.index, d.Index)
	switch {
	case d.State.Waits():
		switch {
		case v.ticket == d.Ticket && d.Position > v.place+v.cameBack():
			v.w.fatalf("visitor %d with ticket %d was told place %d and is told %d (I6)", v.id, d.Ticket, v.place, d.Position)
		case v.ticket != 0 && d.Ticket != v.ticket:
			v.w.fatalf("visitor %d was told ticket %d and is told %d (I3)", v.id, v.ticket, d.Ticket)
		}
		v.ticket, v.place, v.backs = d.Ticket, d.Position, len(v.w.truth.back)
	case d.State == queue.Active:
		v.ticket, v.place = 0, 0
	}
}
