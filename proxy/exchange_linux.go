package proxy

import (
	"bytes"
	"os"
	"syscall"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// What a loop does with one request, from the client's bytes to the origin and back. Each step is done when an event says
// that it can be, and returns without having waited.

// longBody is the longest rest of a body that a loop passes on itself.
const longBody = 256 << 10

// clientEvent takes in that a client has sent something, or has gone.
func (l *loop) clientEvent(c *loopClient, events uint32) {
	if events&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		l.endClient(c) // both directions are closed: there is nobody to answer
		return
	}
	c.more = true
	c.ends = c.ends || events&syscall.EPOLLRDHUP != 0
	if !c.underWay {
		l.next(c)
	}
}

// next reads what a client asks.
func (l *loop) next(c *loopClient) {
	c.more = false
	have := copy(l.in, c.partial)
	n, errno := readFrom(c.fd, l.in[have:])
	if errno == syscall.EAGAIN {
		return
	}
	if n <= 0 {
		l.endClient(c)
		return
	}
	in := l.in[:have+n]
	// A short read has taken all there was, and what follows is another event.
	switch {
	case len(in) < len(l.in) && unfinished(in, have):
		if l.await(c, in); c.ends {
			l.next(c) // its end has been told with these bytes
		}
	case len(in) == len(l.in) || !l.begin(c, in):
		l.handOver(c, in, l.s.serveHTTP)
	}
}

// unfinished reports whether the end of a head has yet to come. have bytes of it were looked at before. A head with a line that does not
// end in CRLF has no end: it is refused at once.
func unfinished(in []byte, have int) bool {
	if bytes.HasSuffix(in, headEnd) || bytes.Contains(in[max(have-len(headEnd)+1, 0):], headEnd) {
		return false
	}
	for at := have; ; at++ {
		i := bytes.IndexByte(in[at:], '\n')
		if i < 0 {
			return true
		}
		if at += i; at == 0 || in[at-1] != '\r' {
			return false
		}
	}
}

// await keeps what has come of a head. Slow heads cost their bytes here, and a goroutine with its buffers elsewhere.
func (l *loop) await(c *loopClient, in []byte) {
	if have := len(c.partial); have > 0 {
		c.partial = append(c.partial, in[have:]...)
		return
	}
	c.partial = append(c.partial, in...)
	if last := l.now.Add(l.s.cfg.HeaderTimeout); last.Before(c.deadline) {
		c.deadline = last
	}
}

// begin starts the request in, if it is for the lane.
func (l *loop) begin(c *loopClient, in []byte) bool {
	s, h := l.s, &l.head
	if !laneParse(in, h) {
		return false
	}
	if ownPath(h.path) && string(h.path) != pathCheck && string(h.path) != pathQueue {
		return false
	}
	l.start(c)
	who := s.identify(h.fields, c.peer)
	v, inside := l.pass(&who)
	if s.asksTooOften(h, &who, inside) {
		v, inside = tooOften(&who), true // to be told at once, which costs no more than to park it
	}
	if inside {
		from := s.senderOf(c.peer, h.fields)
		l.conclude(c, h, &from, v)
		return true
	}
	// Who holds a slot and is to say so to the others first (see pass) is not one of those who wait here for a turn.
	if l.budget == 0 && !s.holds(&who) {
		l.park(c, in)
		return true
	}
	l.budget = max(0, l.budget-1)
	l.lag = 0
	l.settle(c, in, &who)
	return true
}

// pass lets in who is inside, and says of the caller whether it polls. The page is the same for everybody, and never the origin's to give.
func (l *loop) pass(who *caller) (verdict, bool) {
	if string(l.head.path) == pathQueue {
		return verdict{}, false
	}
	who.poll = string(l.head.path) == pathCheck
	return l.s.pass(who)
}

// settle decides the request in, which l.head has read, for a visitor that is not inside.
func (l *loop) settle(c *loopClient, in []byte, who *caller) {
	s, h := l.s, &l.head
	from := s.senderOf(c.peer, h.fields)
	s.crowd.feel(l.lag)
	var v verdict
	var kind queue.Kind
	switch {
	case string(h.path) == pathQueue:
		l.reply(c, s.queuePage(h), false)
		return
	case who.value == nil:
		if who.strange {
			s.bind.refused.Inc()
		}
		if v, kind = s.stranger(who), settled; v.outcome == letIn {
			v, kind = s.newcomer(&from)
		}
		who.token = v.token
	case s.behind(who):
		l.leave(c, in) // it has to wait for this replica
		return
	default:
		if s.pow != nil && !s.fullHere() {
			s.pow.clear(who, h, from.client, s.room.Keys(), s.room.Now())
		}
		if v, kind = s.stand(who, &from); kind == queue.KindEnter && v.token != who.token {
			l.leave(c, in) // it left the table between two looks at it
			return
		}
	}
	if kind == settled {
		l.conclude(c, h, &from, v)
		return
	}
	who.value = nil // it is the request's, and the proof has been checked
	c.decision = &pending{who: *who, kind: kind, from: from}
	c.request = append(l.buffer(), in...)
	c.deadline = l.now.Add(s.cfg.DecisionTimeout)
	l.submit(c, c.decision)
}

// leave hands a request that was begun to a goroutine, to begin anew but for the limits of its visitor.
func (l *loop) leave(c *loopClient, in []byte) {
	l.over(c)
	l.handOver(c, in, func(client *clientConn) {
		client.counted = true
		l.s.serveHTTP(client)
	})
}

// conclude answers a request that has been decided, or asks the origin.
func (l *loop) conclude(c *loopClient, h *head, from *sender, v verdict) {
	s := l.s
	s.equip(&v, h, from)
	var p presence
	if v.outcome == letIn && string(h.path) != pathCheck {
		p = s.enter(&v)
	}
	s.count(&v)
	if v.outcome != letIn {
		l.move(c, false)
	}
	switch {
	case string(h.path) == pathCheck:
		l.reply(c, s.pollAnswer(h.target, &v), from.https)
	case v.outcome != letIn:
		l.reply(c, s.holdAnswer(h, &v), from.https)
	default:
		l.move(c, true)
		c.page, c.gains = h.navigation(), gain{}
		if v.tell {
			c.gains = gain{&v, from.https}
		}
		c.presence = p
		request := s.appendOriginHead(l.buffer(), h, from)
		l.keepBuffer(c) // what h points into
		c.request = request
		l.ask(c, l.takeOrigin())
	}
}

// start makes a client one with a request under way.
func (l *loop) start(c *loopClient) {
	l.s.metrics.inFlight.Inc()
	l.idle.remove(c)
	l.busy.add(c)
	c.partial = nil
	c.underWay, c.begun, c.again, c.left, c.last = true, false, false, 0, false
}

// over ends a request. The client is idle again.
func (l *loop) over(c *loopClient) {
	if c.presence.room != nil {
		c.presence.end()
		c.presence = presence{}
	}
	l.keepBuffer(c)
	c.underWay, c.origin, c.decision, c.parked = false, nil, nil, nil
	c.deadline, c.idleFrom = l.now.Add(l.s.cfg.IdleTimeout), l.now
	l.busy.remove(c)
	l.idle.add(c)
	l.s.metrics.inFlight.Dec()
}

// onward goes on with a client whose answer is complete.
func (l *loop) onward(c *loopClient) {
	l.over(c)
	switch {
	case c.last || l.s.draining.Load():
		l.endClient(c)
	case c.more || c.ends:
		l.next(c)
	}
}

func (l *loop) buffer() []byte {
	n := len(l.spare)
	if n == 0 {
		return make([]byte, 0, 1<<10)
	}
	b := l.spare[n-1]
	l.spare = l.spare[:n-1]
	return b[:0]
}

func (l *loop) keepBuffer(c *loopClient) {
	if cap(c.request) > 0 && cap(c.request) <= laneHead && len(l.spare) < loopTurn {
		l.spare = append(l.spare, c.request)
	}
	c.request = nil
}

// --- decisions -----------------------------------------------------------------------------

// A pending is a request whose answer has to be agreed on. The client's request buffer keeps what it was.
type pending struct {
	who   caller
	kind  queue.Kind // of the command that has been submitted
	tries int
	begun time.Time
	from  sender
}

// submit asks the cluster, which answers by a post.
func (l *loop) submit(c *loopClient, p *pending) {
	p.tries++
	p.begun = l.now.Add(-l.lag) // it has stood in the lobby for about as long
	err := l.s.room.SubmitFunc(c.deadline, queue.Command{Kind: p.kind, Token: p.who.token}, func(d queue.Decision, err error) {
		l.post(func() { l.decided(c, p, d, err) })
	})
	if err != nil {
		l.giveUp(c, p)
	}
}

// decided takes in what the cluster says.
func (l *loop) decided(c *loopClient, p *pending, d queue.Decision, err error) {
	defer l.rescue(c)
	l.s.shed.took(l.now.Sub(p.begun))
	if c.decision != p {
		return // too late: the client has gone, or has been told that it cannot be said
	}
	if err != nil {
		l.giveUp(c, p)
		return
	}
	if p.kind == queue.KindEnter {
		l.told(c, l.s.entered(p.who.token, d, nil))
		return
	}
	v, kind := follow(&p.who, p.kind, d)
	if kind == queue.KindEnter {
		v, kind = l.s.newcomer(&p.from) // it has left between two commands
		p.who = caller{token: v.token}
	}
	switch {
	case kind == settled:
		l.told(c, v)
	case p.tries == maxCommands:
		l.giveUp(c, p)
	default:
		p.kind = kind
		l.submit(c, p)
	}
}

// giveUp answers a request that could not be decided.
func (l *loop) giveUp(c *loopClient, p *pending) {
	if p.kind == queue.KindEnter {
		l.told(c, l.s.entered(p.who.token, queue.Decision{}, os.ErrDeadlineExceeded))
		return
	}
	l.told(c, l.s.undecided(&p.who))
}

func (l *loop) told(c *loopClient, v verdict) {
	p := c.decision
	c.decision = nil
	l.again(c.request)
	l.conclude(c, &l.head, &p.from, v)
}

// reply sends an answer of owr's own.
func (l *loop) reply(c *loopClient, a answer, https bool) {
	a.closes = a.closes || l.s.draining.Load()
	c.last = a.closes
	l.out = l.s.appendAnswer(l.out[:0], &a, https)
	l.deliver(c, true)
}
