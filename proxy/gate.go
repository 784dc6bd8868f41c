package proxy

import (
	"context"
	"net/netip"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// An outcome is what a request is told.
type outcome uint8

const (
	letIn   outcome = iota // the origin's answer
	waits                  // its place in line
	full                   // the line takes nobody else
	failed                 // the table would have to change and cannot now
	limited                // too many requests of one visitor or address
	shed                   // an arrival that the cluster could not decide in time
	works                  // it is to work for a place in line, or to wait for one (WR_POW)
	outcomes
)

var outcomeNames = [outcomes]string{"active", "queued", "full", "failed", "limited", "shed", "challenged"}

// A verdict is the outcome for one request, and what its visitor is to be told.
type verdict struct {
	outcome  outcome
	tell     bool // the visitor needs a new cookie
	still    bool // the line stands still: there is no majority
	apart    bool // let in without a slot, in an outage
	token    queue.Token
	first    bool    // let in with a request that did not bring a cookie
	position int     // 1 or more when known
	index    uint64  // as of which the visitor is told this: what its new cookie says
	papers   *papers // nil: its new cookie is a plain one
}

// maxCandidates is how many cookies of our name one request may make us check.
const maxCandidates = 8

// catchUp is how long a request waits for a replica that is behind what its visitor has
// already been told, before it asks the leader instead (I6).
const catchUp = 300 * time.Millisecond

// A caller is what a request says of itself, and what this replica knows of it.
type caller struct {
	token queue.Token
	view  queue.View
	value []byte // the cookie that named it; nil: a first visit
	form  bool   // a proof of the right form, under a key that is still valid
	good  bool   // the proof was checked and holds; its index is index
	bad   bool   // a proof of the right form that is none: forged, or under a key that this node does not hold
	index uint64
	renew bool // the visitor needs a new cookie even if nothing has changed
	// alien: it is on a first visit as far as this node knows, and token is that of a proof under a key that the node does not hold.
	alien bool
	key   uint8 // alien: the number of that key

	issued  uint32 // with WR_POW: when the cookie of a newcomer was written
	cleared bool   // with WR_POW: it has done what a place in line takes
	strange bool   // with WR_BIND: it came with the cookie of another
	poll    bool   // it asks where it stands: the answer brings it no page, and may be lost
}

// here is the command that says of a known visitor that it is here and wants in. A poll does not claim by it: see claim. Nor does it
// show that the answer of the poll before has come.
func (c *caller) here() queue.Kind {
	if c.poll {
		return queue.KindAsk
	}
	return queue.KindArrive
}

// touch notes that the caller, who is inside, was here.
func (s *Server) touch(c *caller) {
	if c.poll && c.view.Reserved {
		s.room.Asked(c.token)
		return
	}
	s.room.Touch(c.token)
}

// claim is the command with which a released visitor takes its slot. A poll leaves the ticket with it until a request for a page has
// shown that its answer came to the visitor: it would be a lost place otherwise (I3).
func (c *caller) claim() queue.Kind {
	if c.poll {
		return queue.KindReserve
	}
	return queue.KindClaim
}

// decide decides one request. The common case, a visitor that already holds a slot, costs one
// scan of the cookies and one Lookup: no allocation, no network, no cryptography. Nothing of
// h outlives the call. counted says that the limits of its visitor have counted this request.
func (s *Server) decide(h *head, from *sender, counted bool) verdict {
	v := s.decideBare(h, from, counted)
	s.equip(&v, h, from)
	return v
}

func (s *Server) decideBare(h *head, from *sender, counted bool) verdict {
	c := s.identify(h.fields, from.peer)
	c.poll = string(h.path) == pathCheck
	v, inside := s.pass(&c)
	switch {
	case !counted && s.asksTooOften(h, &c, inside):
		return tooOften(&c)
	case inside:
		return v
	}
	if s.pow != nil && !s.fullHere() {
		s.pow.clear(&c, h, from.client, s.room.Keys(), s.room.Now())
	}
	return s.settle(c, from)
}

// asksTooOften counts a request, and reports whether its visitor has made too many lately. Who has no name is counted by address,
// and only where it takes a place.
func (s *Server) asksTooOften(h *head, c *caller, inside bool) bool {
	switch {
	case c.value == nil || string(h.path) == pathQueue:
		return false
	case !s.limits.visitor(c.token):
		s.metrics.limited[limitVisitor].Inc()
		return true
	case !inside && string(h.path) == pathCheck && !s.limits.poll(c.token):
		s.metrics.limited[limitPolls].Inc()
		return true
	}
	return false
}

// tooOften is what a visitor is told that has asked too often. It keeps what it has.
func tooOften(c *caller) verdict {
	return verdict{outcome: limited, token: c.token, position: c.view.Position}
}

// pass lets in who by this replica alone is inside, and reports whether that was so. With its first page the visitor of a reserved slot
// gives its place up, which has to be known to the others before it is told: should this node die with the news, the visitor would
// have been inside and come back to its old place (I2).
func (s *Server) pass(c *caller) (verdict, bool) {
	if c.view.State != queue.Active || c.view.Reserved && !c.poll {
		return verdict{}, false
	}
	now := s.room.Now()
	if now >= c.view.Deadline {
		return verdict{}, false
	}
	if now >= c.view.TouchAfter {
		s.touch(c)
	}
	return verdict{outcome: letIn, token: c.token, index: s.appliedUnless(!c.renew), tell: c.renew}, true
}

// appliedUnless spares the hot path a load it has no use for.
func (s *Server) appliedUnless(known bool) uint64 {
	if known {
		return 0
	}
	return s.room.Applied()
}

// identify finds the first valid cookie: one whose token the table holds, or whose proof is
// good. Without one the caller is on its first visit.
func (s *Server) identify(fields []field, peer netip.Addr) caller {
	keys := s.room.Keys()
	candidates, stranger := 0, caller{}
	for i := range fields {
		if fields[i].kind != fieldCookie {
			continue
		}
		for rest := fields[i].value; rest != nil; {
			var value []byte
			if _, value, rest = nextCookie(rest, s.cfg.CookieName); value == nil {
				continue
			}
			token, proven, ok := ParseCookie(value)
			if !ok {
				continue
			}
			c := caller{token: token, view: s.room.Lookup(token), value: value, renew: true}
			if proven {
				if id, ok := keyOf(value); ok {
					c.form, c.renew = s.weigh(id, keys)
					if !c.form {
						stranger.token, stranger.alien, stranger.key = token, true, id
					}
				}
				c.bad = !c.form
			}
			if c.view.State == queue.Unknown && c.form {
				c.index, c.good = CheckCookie(value, keys)
				c.bad = !c.good
			}
			if c.view.State != queue.Unknown || c.good {
				if s.bind == nil || s.bind.takes(&c, keys, fields, s.senderOf(peer, fields).client) {
					return c
				}
				stranger.strange = true
			}
			stranger.bad = stranger.bad || c.bad
			if candidates++; candidates == maxCandidates {
				return stranger
			}
		}
	}
	return stranger
}

// settle decides what one look at this replica cannot: everything but a visitor inside.
func (s *Server) settle(c caller, from *sender) verdict {
	if c.value == nil {
		if c.strange {
			s.bind.refused.Inc()
		}
		if v := s.stranger(&c); v.outcome != letIn {
			return v
		}
		return s.firstVisit(from)
	}
	if s.behind(&c) {
		// The visitor has been told something this replica has not seen yet. Answering from it
		// could take a slot or a place back (I6).
		if !s.waitApplied(c.index) {
			return s.submit(c, from, c.here())
		}
		c.view = s.room.Lookup(c.token)
	}
	v, kind := s.stand(&c, from)
	switch kind {
	case settled:
		return v
	case queue.KindEnter:
		if v.token == c.token {
			return s.enterRoom(v.token)
		}
		return s.firstVisit(from)
	}
	return s.submit(c, from, kind)
}

// stranger is what a visitor without a name that this node knows is told before all else; letIn: nothing. A node that hears from no
// majority may have missed that a key was made, and one that has just started has not read its log yet. Whoever brings a cookie under a key that it
// does not know keeps that cookie, and what goes with it, until the node knows better: it is told where it is that nothing can be said, and not
// sent to the line, for it may well be inside. So is who was looked at a moment before the key came.
func (s *Server) stranger(c *caller) verdict {
	if c.bad {
		s.metrics.invalid.Inc()
	}
	if c.alien {
		still := s.outage.standsStill()
		_, came := s.room.Keys().Find(c.key)
		if came || still && s.outage.perMinute == 0 || !still && s.room.Ready() != nil {
			return verdict{outcome: failed, still: still}
		}
	}
	return verdict{outcome: letIn}
}

// shedVerdict is for an arrival that is turned away: it has nothing yet, and gets nothing.
var shedVerdict = verdict{outcome: shed}

// behind reports whether the visitor has been told something that this replica has not seen. It checks the proof, and counts one that
// does not hold; for those inside, nobody looks.
func (s *Server) behind(c *caller) bool {
	if c.form && !c.good {
		c.index, c.good = CheckCookie(c.value, s.room.Keys())
		c.bad = !c.good
	}
	if c.bad {
		s.metrics.invalid.Inc()
	}
	return c.good && c.index > s.room.Applied()
}

// settled is the kind of no command.
const settled queue.Kind = 0

// stand decides for a visitor with a cookie as far as this replica can. When it cannot, it says what to submit instead:
// KindEnter for a first visit, or, when the verdict names the visitor, for a slot and nothing else.
func (s *Server) stand(c *caller, from *sender) (verdict, queue.Kind) {
	holds := s.holds(c)
	if !holds && (c.good || c.view.State != queue.Unknown) {
		if v, ok := s.passApart(c); ok {
			return v, settled
		}
	}
	switch c.view.State {
	case queue.Active:
		switch {
		case !holds:
			s.room.Asked(c.token)
			return verdict{}, c.here() // the majority may have given the slot away (I5)
		case c.view.Reserved && !c.poll:
			return verdict{}, queue.KindClaim // which is a sign of life too
		}
		return s.inside(c), settled
	case queue.Released:
		return verdict{}, c.claim()
	case queue.Absent:
		// Back in line: from here on nobody later may be let in before it (I2, I3), so this is a change to
		// commit and not a touch. When it cannot be, the visitor still hears the place it has.
		s.room.Asked(c.token)
		return verdict{}, c.here()
	case queue.Queued:
		s.room.Asked(c.token)
		return s.inLine(c), settled
	}
	if !c.good {
		return verdict{}, queue.KindEnter // it left the table between two looks at it
	}
	switch {
	case s.crowd.turnsAway():
		return shedVerdict, settled
	case s.fullHere():
		return verdict{outcome: full, token: c.token}, settled
	case s.shed.turnsAway():
		return shedVerdict, settled
	}
	if s.pow != nil && !c.cleared {
		return s.holdBack(c)
	}
	if s.room.Quorum() && !s.limits.place(from.client) { // without a majority nobody is given one
		s.metrics.limited[limitNewcomers].Inc()
		return verdict{outcome: limited, token: c.token}, settled
	}
	return verdict{}, queue.KindArrive
}

// fullHere reports whether by this replica a newcomer would get neither a slot nor a place. Then nobody is asked: there may be any number
// of names that were given out and wait for a place, and each of their requests would be a command that is refused. Nor does such a
// newcomer work for a place, or use up one of its address's.
func (s *Server) fullHere() bool {
	most := s.room.Limits().QueueMax
	return most > 0 && !s.room.HasRoom() && s.room.Counts().Line() >= most
}

// holds reports whether by this replica the visitor has a slot, and may pass on its word (I5).
func (s *Server) holds(c *caller) bool {
	return c.view.State == queue.Active && s.room.Now() < c.view.Deadline
}

// inside lets in a visitor that holds a slot, and notes that it was here.
func (s *Server) inside(c *caller) verdict {
	s.touch(c)
	return verdict{outcome: letIn, token: c.token, index: s.room.Applied(), tell: !c.good || c.renew}
}

// inLine is the place that this replica has for the visitor.
func (s *Server) inLine(c *caller) verdict {
	return verdict{
		outcome: waits, token: c.token, position: c.view.Position, index: s.room.Applied(), tell: !c.good || c.renew, still: s.outage.standsStill(),
	}
}

func (s *Server) waitApplied(index uint64) bool {
	ctx, cancel := context.WithTimeout(s.base, catchUp)
	defer cancel()
	return s.room.WaitApplied(ctx, index) == nil
}

// submit asks the cluster and turns its decision into a verdict.
func (s *Server) submit(c caller, from *sender, kind queue.Kind) verdict {
	ctx, cancel := context.WithTimeout(s.base, s.cfg.DecisionTimeout)
	defer cancel()
	for range maxCommands {
		begun := time.Now()
		d, err := s.room.Submit(ctx, queue.Command{Kind: kind, Token: c.token})
		s.shed.took(time.Since(begun))
		if err != nil {
			break
		}
		var v verdict
		switch v, kind = follow(&c, kind, d); kind {
		case settled:
			return v
		case queue.KindEnter:
			return s.firstVisit(from)
		}
	}
	return s.undecided(&c)
}

// undecided is the verdict when the cluster could not say: who has a place is told the one that it had, and who has a slot that is still
// its own passes. Who has been told something that this replica has not seen, as one that has just started, may be inside: it is not sent to
// the line (I6).
func (s *Server) undecided(c *caller) verdict {
	v := verdict{outcome: failed, token: c.token, still: s.outage.standsStill()}
	switch {
	case s.holds(c):
		return s.inside(c)
	case c.good && c.index > s.room.Applied():
		v.token = queue.Token{}
	case c.view.State == queue.Absent:
		return s.inLine(c)
	}
	return v
}

// maxCommands is how many commands one request may take: a visitor that arrives may find itself released, and one that claims
// may be gone.
const maxCommands = 3

// follow turns the decision on a command into a verdict, or into the command that has to follow: KindEnter for a first visit.
func follow(c *caller, kind queue.Kind, d queue.Decision) (verdict, queue.Kind) {
	v := verdict{token: c.token, position: d.Position, index: d.Index, tell: !c.good || c.renew || d.State != c.view.State}
	if d.Refusal == queue.NoVisitor {
		c.view = queue.View{} // this replica does not know yet that it has gone
	}
	switch {
	case d.State == queue.Active:
		v.outcome = letIn
		return v, settled
	case d.State.Waits():
		v.outcome = waits
		return v, settled
	case d.State == queue.Released:
		return verdict{}, c.claim()
	case d.Refusal == queue.QueueFull:
		return verdict{outcome: full, token: c.token}, settled
	case kind != queue.KindArrive && c.good:
		return verdict{}, queue.KindArrive
	}
	return verdict{}, queue.KindEnter
}

// firstVisit decides for a visitor without a name. Only a free slot asks the cluster;
// otherwise the visitor gets a name that nothing remembers but its cookie, and joins the line
// when it brings that back. So clients that keep no cookies cost no memory and no place.
func (s *Server) firstVisit(from *sender) verdict {
	v, kind := s.newcomer(from)
	if kind == settled {
		return v
	}
	return s.enterRoom(v.token)
}

// enterRoom asks for a slot, and takes no place in line.
func (s *Server) enterRoom(token queue.Token) verdict {
	ctx, cancel := context.WithTimeout(s.base, s.cfg.DecisionTimeout)
	defer cancel()
	d, err := s.room.Submit(ctx, queue.Command{Kind: queue.KindEnter, Token: token})
	return s.entered(token, d, err)
}

// newcomer is the part of firstVisit that does not wait. It says whether to submit a KindEnter for the verdict's token.
func (s *Server) newcomer(from *sender) (verdict, queue.Kind) {
	switch {
	case !s.limits.newcomer(from.client):
		s.metrics.limited[limitNewcomers].Inc()
		return verdict{outcome: limited}, settled
	case len(s.room.Keys()) == 0:
		return verdict{outcome: failed, still: s.outage.standsStill()}, settled
	}
	c := caller{token: newToken()}
	if v, ok := s.passApart(&c); ok {
		return v, settled
	}
	switch {
	case s.crowd.turnsAway():
		return shedVerdict, settled
	case !s.room.HasRoom():
		return s.outside(verdict{outcome: waits, token: c.token, tell: true}), settled
	case s.shed.turnsAway():
		return shedVerdict, settled
	}
	return verdict{token: c.token}, queue.KindEnter
}

// entered turns the decision on a KindEnter into a verdict.
func (s *Server) entered(token queue.Token, d queue.Decision, err error) verdict {
	v := verdict{outcome: waits, token: token, tell: true}
	switch {
	case err != nil:
		v.outcome = failed
	case d.State == queue.Active:
		v.outcome, v.index, v.first = letIn, d.Index, true
		return v
	}
	return s.outside(v)
}

// outside completes the verdict of a visitor that has a name and no place yet.
func (s *Server) outside(v verdict) verdict {
	counts := s.room.Counts()
	if most := s.room.Limits().QueueMax; v.outcome == waits && most > 0 && counts.Line() >= most {
		return verdict{outcome: full}
	}
	v.still = s.outage.standsStill()
	v.position = counts.Queued + 1 // an estimate: it has no ticket yet
	if s.pow != nil && v.outcome == waits {
		s.pow.ask(&v, s.room.Now())
	}
	return v
}
