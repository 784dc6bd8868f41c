package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
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
	if l.budget == 0 {
		l.park(c, in)
		return true
	}
	l.budget--
	l.lag = 0
	l.settle(c, in, &who)
	return true
}

// pass lets in who is inside. The page is the same for everybody, and never the origin's to give.
func (l *loop) pass(who *caller) (verdict, bool) {
	if string(l.head.path) == pathQueue {
		return verdict{}, false
	}
	return l.s.pass(who)
}

// A parked is a request of somebody who is not inside, for a turn that has time for it. The client's request buffer keeps it.
type parked struct {
	client *loopClient // whose parked is this, or it has gone
	since  time.Time
}

func (l *loop) park(c *loopClient, in []byte) {
	c.request = append(l.buffer(), in...)
	if len(l.parked) >= loopParks {
		l.turnAway(c)
		return
	}
	c.parked = &parked{c, l.now}
	c.deadline = l.now.Add(l.s.cfg.DecisionTimeout)
	l.parked = append(l.parked, c.parked)
}

// unpark serves as many of the parked as this turn has time for.
func (l *loop) unpark() {
	n := 0
	for ; n < len(l.parked) && l.budget > 0; n++ {
		if c := l.parked[n].client; c.parked == l.parked[n] {
			l.budget--
			l.lag = l.now.Sub(c.parked.since)
			l.resume(c)
		}
	}
	rest := copy(l.parked, l.parked[n:])
	clear(l.parked[rest:])
	l.parked = l.parked[:rest]
}

// resume serves a parked request.
func (l *loop) resume(c *loopClient) {
	defer l.rescue(c)
	in := c.request
	c.parked, c.request = nil, nil
	l.again(in)
	who := l.s.identify(l.head.fields, c.peer)
	if v, inside := l.pass(&who); inside {
		from := l.s.senderOf(c.peer, l.head.fields)
		l.conclude(c, &l.head, &from, v)
	} else {
		l.settle(c, in, &who)
	}
	if cap(in) <= laneHead && len(l.spare) < loopTurn {
		l.spare = append(l.spare, in)
	}
}

// again reads a request that has been read before into l.head.
func (l *loop) again(in []byte) {
	if !laneParse(in, &l.head) {
		panic("owr: a request reads otherwise the second time")
	}
}

// turnAway answers a parked request for which no time was found. Who has a place hears it, as far as this replica may say so.
func (l *loop) turnAway(c *loopClient) {
	c.parked = nil
	l.again(c.request)
	from, v := l.s.senderOf(c.peer, l.head.fields), shedVerdict
	if who := l.s.identify(l.head.fields, c.peer); who.view.State.Waits() && !l.s.behind(&who) {
		l.s.room.Touch(who.token)
		v = l.s.inLine(&who)
	}
	l.conclude(c, &l.head, &from, v)
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
		if s.pow != nil {
			s.pow.clear(who, h, from.client, s.room.Keys(), s.room.Now())
		}
		if v, kind = s.stand(who); kind == queue.KindEnter && v.token != who.token {
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

// --- the origin ----------------------------------------------------------------------------

// takeOrigin is a connection to the origin that is idle and silent, or nil.
func (l *loop) takeOrigin() *loopOrigin {
	for n := len(l.origins); n > 0; n = len(l.origins) {
		o := l.origins[n-1]
		if l.now.Sub(o.born) < maxAge && l.now.Sub(o.idleFrom) < maxIdle {
			l.origins[n-1] = nil
			l.origins = l.origins[:n-1]
			o.reused = true
			return o
		}
		l.closeOrigin(o)
	}
	return nil
}

// putOrigin keeps a connection for the next request.
func (l *loop) putOrigin(o *loopOrigin) {
	o.client, o.idleFrom = nil, l.now
	if len(l.origins) >= maxIdleConns {
		l.closeOrigin(o)
		return
	}
	l.origins = append(l.origins, o)
}

func (l *loop) closeOrigin(o *loopOrigin) {
	if o.client != nil {
		o.client.origin = nil
	} else if i := slices.Index(l.origins, o); i >= 0 {
		l.origins = slices.Delete(l.origins, i, i+1)
	}
	l.files[o.fd] = loopFile{}
	_ = syscall.Close(o.fd)
	l.s.metrics.originConns.Dec()
}

// ask sends the request over a connection; nil: one has to be made first.
func (l *loop) ask(c *loopClient, o *loopOrigin) {
	if o == nil {
		l.dial(c)
		return
	}
	o.client, c.origin = c, o
	c.deadline = l.now.Add(l.s.cfg.BackendTimeout)
	if n, errno := sendTo(o.fd, c.request); errno != 0 || n < len(c.request) {
		l.originFailed(c, &originError{faultClosed, errors.Join(errShortWrite, errno)})
	}
}

var errShortWrite = errors.New("it did not take a whole request head")

// dial makes a connection to the origin, in a goroutine, since names are resolved on the way.
func (l *loop) dial(c *loopClient) {
	s := l.s
	s.work.Go(func() {
		fd := -1
		conn, _, err := s.origin.connection(s.base)
		if err == nil {
			fd, err = dupOf(conn.(*net.TCPConn)) // a loop is not there for an origin with TLS
			_ = conn.Close()
			if err != nil {
				s.metrics.originConns.Dec()
			}
		}
		if !l.post(func() { l.dialed(c, fd, err) }) && fd >= 0 {
			_ = syscall.Close(fd)
			s.metrics.originConns.Dec()
		}
	})
}

func (l *loop) dialed(c *loopClient, fd int, err error) {
	waits := c.fd >= 0 && c.underWay && c.origin == nil
	if err == nil {
		if err = l.add(l.ep, fd, loopReads); err != nil {
			_ = syscall.Close(fd)
			l.s.metrics.originConns.Dec()
		}
	}
	if err != nil {
		if waits {
			l.fail(c, asOriginError(err, faultConnect))
		}
		return
	}
	o := &loopOrigin{fd: fd, born: l.now}
	l.files[fd].origin = o
	if waits {
		l.ask(c, o)
	} else {
		l.putOrigin(o)
	}
}

// originFailed ends a try. What may be tried again is: a GET without a body, over a connection that had been used before and
// ended without a byte of an answer.
func (l *loop) originFailed(c *loopClient, fault *originError) {
	again := fault.fault == faultClosed && c.origin.reused && len(c.origin.partial) == 0 && !c.begun && !c.again
	l.closeOrigin(c.origin)
	if again {
		c.again = true
		l.dial(c)
		return
	}
	l.fail(c, fault)
}

// fail tells the client that the origin did not answer, or, where it cannot be told any more, hangs up.
func (l *loop) fail(c *loopClient, fault *originError) {
	s := l.s
	s.metrics.originErrors[fault.fault].Inc()
	if c.begun {
		l.endClient(c)
		return
	}
	l.reply(c, s.originErrorAnswer(c.page, fault.status(), c.gains.who, false), c.gains.https)
}

// originEvent takes in that an origin has sent something, or has gone.
func (l *loop) originEvent(o *loopOrigin, events uint32) {
	c := o.client
	if c == nil {
		l.closeOrigin(o) // nobody has asked it anything
		return
	}
	// A short read has taken all there was, and what follows is another event, unless this one has told of the end.
	ends := events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0
	for silent := false; !silent && c.origin == o; {
		have := copy(l.answer, o.partial)
		n, errno := readFrom(o.fd, l.answer[have:])
		if errno == syscall.EAGAIN {
			return
		}
		c.deadline = l.now.Add(l.s.cfg.BackendTimeout)
		c.presence.beat()
		silent = have+n < len(l.answer) && !ends
		switch {
		case n > 0 && c.begun:
			l.passOn(c, o, l.answer[:n], silent)
		case n > 0:
			l.answered(c, o, l.answer[:have+n], silent)
		case c.begun:
			l.originFailed(c, &originError{faultCut, errors.Join(io.ErrUnexpectedEOF, errno)})
		default:
			l.originFailed(c, &originError{faultClosed, errors.Join(io.ErrUnexpectedEOF, errno)})
		}
	}
}

// answered takes in the beginning of an answer; silent says that the origin has sent nothing else.
func (l *loop) answered(c *loopClient, o *loopOrigin, data []byte, silent bool) {
	r := &l.response
	size, err := r.readBytes(data, methodGet)
	if err != nil {
		l.originFailed(c, &originError{faultAnswer, err})
		return
	}
	if size == 0 {
		o.partial = append(o.partial[:0], data...) // the head is not whole yet
		return
	}
	rest := data[size:]
	c.last = l.s.draining.Load()
	l.out = l.s.appendLaneHead(l.out[:0], r, c.last, c.gains)
	whole := false
	switch {
	case r.length == lengthChunked:
		l.out, whole = appendWholeChunks(l.out, rest)
		c.left, rest = 0, nil
	case r.length >= 0 && r.length-int64(len(rest)) <= longBody:
		whole, c.left = true, r.length
	}
	if !whole {
		l.handOverExchange(c, data, nil)
		return
	}
	o.partial, c.keep = nil, r.keep
	l.keepBuffer(c)
	l.passOn(c, o, rest, silent)
}

// passOn sends the client what l.out holds and the next bytes of the body. With the last of them the origin's
// connection is free, and that before the client can ask again.
func (l *loop) passOn(c *loopClient, o *loopOrigin, body []byte, silent bool) {
	if c.begun {
		l.out = l.out[:0]
	}
	extra := int64(len(body)) - c.left
	if extra >= 0 {
		body = body[:c.left]
		if c.origin = nil; c.keep && extra == 0 && silent {
			l.putOrigin(o)
		} else {
			o.client = nil
			l.closeOrigin(o)
		}
	}
	c.left -= int64(len(body))
	l.out = append(l.out, body...)
	l.deliver(c, extra >= 0)
}

// deliver sends the client what l.out holds; final says that this is the end of the answer.
func (l *loop) deliver(c *loopClient, final bool) {
	n, errno := sendTo(c.fd, l.out)
	switch {
	case errno != 0 && errno != syscall.EAGAIN:
		l.endClient(c)
	case n < len(l.out):
		l.handOverExchange(c, nil, l.out[n:]) // a client that is slower than the loop
	case final:
		l.onward(c)
	default:
		c.begun = true
	}
}

// handOverExchange gives a client to a goroutine in the middle of a request. The goroutine begins with the answer, of which
// data is what has been read, or goes on with it: pending is next, and then what is left of the body.
func (l *loop) handOverExchange(c *loopClient, data, pending []byte) {
	s := l.s
	rest := laneRest{page: c.page, gains: c.gains, pending: append([]byte(nil), pending...), left: c.left, keep: c.keep, last: c.last, presence: c.presence}
	if o := c.origin; o != nil {
		c.origin, o.client = nil, nil
		l.release(l.ep, o.fd)
		conn, err := connOf(o.fd)
		if err != nil {
			s.log.Warn("a connection is lost between two pollers", "err", err)
			s.metrics.originConns.Dec()
			l.endClient(c)
			return
		}
		rest.origin = s.origin.adopt(conn, o.born, data)
	}
	c.presence = presence{} // it ends with the rest
	l.over(c)
	if l.handOver(c, nil, func(client *clientConn) { s.laneFinish(client, &rest) }) {
		return
	}
	rest.end()
	if rest.origin != nil {
		s.origin.discard(rest.origin)
	}
}

// appendWholeChunks appends a chunked body in its plainest form. It reports false for one that is not whole, or that has
// something behind its last chunk.
func appendWholeChunks(dst, body []byte) ([]byte, bool) {
	for {
		i := bytes.IndexByte(body, '\n')
		if i < 1 || body[i-1] != '\r' {
			return dst, false
		}
		size, ok := parseChunkSize(body[:i-1])
		body = body[i+1:]
		if ok && size == 0 {
			return append(dst, lastChunk...), string(body) == "\r\n"
		}
		if !ok || int64(len(body)) < size+2 || string(body[size:size+2]) != "\r\n" {
			return dst, false
		}
		dst = strconv.AppendInt(dst, size, 16)
		dst = append(append(dst, "\r\n"...), body[:size+2]...)
		body = body[size+2:]
	}
}
