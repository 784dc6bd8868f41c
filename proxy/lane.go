package proxy

import (
	"bytes"
	"io"
	"net/netip"
	"sync"
	"time"
)

// The lane is the short way for what a waiting room does all day: a GET without a body by a visitor that this replica knows to
// be inside, and the poll of one that waits. It reads each head once and writes each head once; the way through fasthttp reads the request's head twice
// and builds the response's, to have it parsed and built again. What the lane cannot do, it does not begin: then the
// connection goes on to fasthttp with every byte that has been read, and stays there. So each refusal and each page is made
// in one place, and the lane makes none of them.

// laneHead is the largest head that the lane takes.
const laneHead = 8 << 10

// A laneBuffer is what a connection needs while it is in the lane.
type laneBuffer struct {
	in   []byte // what has been read
	out  []byte
	head head
}

var laneBuffers = sync.Pool{New: func() any { return &laneBuffer{in: make([]byte, 0, laneHead), out: make([]byte, 0, 2<<10)} }}

func (b *laneBuffer) release() {
	if cap(b.out) <= laneHead+smallBody && cap(b.head.fields) <= maxPooledFields {
		laneBuffers.Put(b)
	}
}

// A laneEnd says what becomes of a connection.
type laneEnd uint8

const (
	laneNext   laneEnd = iota // the next request, please
	laneClosed                // it is over
	laneOther                 // the request was not begun: it is for fasthttp, and so is all that follows
	laneMoved                 // a loop has it again
)

// lane serves the requests of a connection for as long as it can. After laneOther the next reads of c return what has
// been read and not served.
func (s *Server) lane(c *clientConn) laneEnd {
	b := laneBuffers.Get().(*laneBuffer)
	defer b.release()
	for wait := s.cfg.HeaderTimeout; ; wait = s.cfg.IdleTimeout {
		if !s.laneRead(c, b, wait) {
			return laneClosed
		}
		end := s.laneServe(c, b)
		if end == laneOther {
			c.unread = append(c.unread, b.in...)
		}
		if end = s.laneOnward(c, end); end != laneNext {
			return end
		}
	}
}

// laneOnward is what becomes of a connection after an answer.
func (s *Server) laneOnward(c *clientConn, end laneEnd) laneEnd {
	if end != laneNext {
		return end
	}
	c.state.CompareAndSwap(connActive, connIdle)
	switch {
	case s.draining.Load():
		return laneClosed
	case s.goBack(c, s.cfg.IdleTimeout):
		return laneMoved
	}
	return laneNext
}

// laneRead waits for a request, and reports whether something has come.
func (s *Server) laneRead(c *clientConn, b *laneBuffer, wait time.Duration) bool {
	if c.SetReadDeadline(time.Now().Add(wait)) != nil || c.reading.apply(c.Conn) != nil {
		return false
	}
	n, _ := c.Conn.Read(b.in[:min(laneHead, s.cfg.MaxHeader)]) // an error with bytes comes again with the next read
	b.in = b.in[:n]
	return n > 0 && c.state.CompareAndSwap(connIdle, connActive)
}

var (
	laneStart = []byte("GET /")
	headEnd   = []byte("\r\n\r\n")
	closeName = []byte("close")
)

// laneParse reads what has come and reports whether it is for the lane: one request, whole, with nothing behind it, and
// without any part that fasthttp would have to be asked about.
func laneParse(in []byte, h *head) bool {
	if !bytes.HasSuffix(in, headEnd) || !bytes.HasPrefix(in, laneStart) || in[len(laneStart)] == '/' {
		return false
	}
	return h.readRaw(in) == nil && !h.http10 && !h.sized && !h.hasBody() && !h.expects &&
		len(h.upgrade) == 0 && !h.names(closeName) && h.plain
}

// laneServe serves the request in b, if it is for the lane.
func (s *Server) laneServe(c *clientConn, b *laneBuffer) (end laneEnd) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r)
			end = s.laneAnswer(c, b, answer{status: 500, kind: typeText, body: []byte("Internal Server Error\n"), closes: true}, false)
		}
	}()
	if !laneParse(b.in, &b.head) || ownPath(b.head.path) && string(b.head.path) != pathCheck {
		return laneOther
	}
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	if string(b.head.path) == pathCheck {
		from := s.senderOf(c.peer, b.head.fields)
		v := s.decide(&b.head, &from, false)
		s.count(&v)
		return s.laneAnswer(c, b, s.pollAnswer(b.head.target, &v), from.https)
	}
	v, ok := s.lanePass(&b.head, c.peer)
	if !ok {
		return laneOther
	}
	var p presence
	if v.outcome == letIn {
		p = s.enter(&v)
	}
	s.count(&v)
	if v.outcome != letIn {
		held, from := v, s.senderOf(c.peer, b.head.fields) // v itself need not outlive the call
		return s.laneAnswer(c, b, s.holdAnswer(&b.head, &held), from.https)
	}
	return s.laneForward(c, b, p)
}

// lanePass decides a request, and reports false when that is not for the lane. Only what is counts for the limits.
func (s *Server) lanePass(h *head, peer netip.Addr) (verdict, bool) {
	who := s.identify(h.fields, peer)
	if who.renew {
		return verdict{}, false // its answer gains a cookie
	}
	v, ok := s.pass(&who)
	if !ok {
		return v, false
	}
	if s.asksTooOften(h, &who, true) {
		v = tooOften(&who)
	}
	return v, true
}

// laneForward passes the request on and its response back.
func (s *Server) laneForward(c *clientConn, b *laneBuffer, p presence) laneEnd {
	h, from := &b.head, s.senderOf(c.peer, b.head.fields)
	b.out = s.appendOriginHead(b.out[:0], h, &from)
	r := responses.Get().(*response)
	defer responses.Put(r)
	conn, _, size, err := s.roundTrip(nil, h, b.out, r, p)
	if err != nil {
		return s.laneFailed(c, b, h.navigation(), p, gain{}, err)
	}
	return s.laneRespond(c, b, conn, r, size, p, gain{})
}

func (s *Server) laneFailed(c *clientConn, b *laneBuffer, page bool, p presence, gains gain, err error) laneEnd {
	fault := asOriginError(err, faultClosed)
	s.metrics.originErrors[fault.fault].Inc()
	p.end()
	return s.laneAnswer(c, b, s.originErrorAnswer(page, fault.status(), gains.who, false), gains.https)
}

// A gain is the cookie that goes along with the origin's answer.
type gain struct {
	who   *verdict // nil: none
	https bool
}

// laneRespond passes a response on, whose head of that size has been read.
func (s *Server) laneRespond(c *clientConn, b *laneBuffer, conn *originConn, r *response, size int, p presence, gains gain) laneEnd {
	last := s.draining.Load()
	b.out = s.appendLaneHead(b.out[:0], r, last, gains)
	length := r.length
	_, _ = conn.reader.Discard(size)
	body := s.newOriginBody(relayed{conn, r, size, nil, p})
	defer body.finish()

	var err error
	switch ready := int64(conn.reader.Buffered()); {
	case length >= 0 && length <= smallBody && ready >= length:
		// All of it is here: one write, and the next request may have the origin's connection before that.
		all, _ := conn.reader.Peek(int(length))
		b.out = append(b.out, all...)
		_, _ = conn.reader.Discard(len(all))
		body.body.ended = true
		body.finish()
		_, err = c.Write(b.out)
	case length >= 0:
		if _, err = c.Write(b.out); err == nil {
			_, err = c.ReadFrom(struct{ io.Reader }{body})
		}
	default:
		if _, err = c.Write(b.out); err == nil {
			err = c.writeChunks(body)
		}
	}
	if err != nil || last {
		return laneClosed // the end of the connection says that a body is not whole
	}
	return laneNext
}

// A laneRest is what a loop has left to do of a request.
type laneRest struct {
	origin *originConn // nil: the origin has answered all of it
	page   bool
	gains  gain
	presence

	// With pending the answer has begun: this is next, and then left bytes of the body.
	pending    []byte
	left       int64
	keep, last bool
}

// laneFinish does the rest of a request, and goes on with its connection.
func (s *Server) laneFinish(c *clientConn, rest *laneRest) {
	switch s.laneOnward(c, s.laneRest(c, rest)) {
	case laneNext:
		s.serveClient(c)
	case laneClosed:
		_ = c.Close()
	}
}

func (s *Server) laneRest(c *clientConn, rest *laneRest) laneEnd {
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	if len(rest.pending) == 0 {
		b, r := laneBuffers.Get().(*laneBuffer), responses.Get().(*response)
		defer b.release()
		defer responses.Put(r)
		size, err := r.read(rest.origin.reader, methodGet, false)
		if err != nil {
			s.origin.discard(rest.origin)
			return s.laneFailed(c, b, rest.page, rest.presence, rest.gains, err)
		}
		return s.laneRespond(c, b, rest.origin, r, size, rest.presence, rest.gains)
	}
	var body *originBody
	if rest.origin == nil {
		defer rest.end()
	} else {
		body = s.newOriginBody(relayed{rest.origin, &response{length: rest.left, keep: rest.keep}, 0, nil, rest.presence})
		defer body.finish()
	}
	_, err := c.Write(rest.pending)
	if err == nil && body != nil {
		_, err = c.ReadFrom(struct{ io.Reader }{body})
	}
	if err != nil || rest.last {
		return laneClosed
	}
	return laneNext
}

var methodGet = []byte("GET")

// appendLaneHead appends the head that the client gets.
func (s *Server) appendLaneHead(dst []byte, r *response, last bool, gains gain) []byte {
	dst = appendClientFields(r.appendStatus(dst), r, s.cfg.CookieName, gains.who != nil)
	if gains.who != nil {
		dst, _ = s.appendCookieLine(dst, gains.who, gains.https)
	}
	switch {
	case r.length < 0:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case r.status == 304 && r.told >= 0:
		dst = appendLength(dst, r.told)
	case r.status != 204 && r.status != 304:
		dst = appendLength(dst, r.length)
	}
	if last {
		dst = append(dst, "Connection: close\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// laneAnswer sends an answer of owr's own.
func (s *Server) laneAnswer(c *clientConn, b *laneBuffer, a answer, https bool) laneEnd {
	a.closes = a.closes || s.draining.Load()
	b.out = s.appendAnswer(b.out[:0], &a, https)
	if _, err := c.Write(b.out); err != nil || a.closes {
		return laneClosed
	}
	return laneNext
}
