package proxy

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// The lane is the short way for what a proxy does all day: a GET without a body, by a visitor that this replica knows to
// be inside. It reads each head once and writes each head once; the way through fasthttp reads the request's head twice
// and builds the response's, to have it parsed and built again. What the lane cannot do, it does not begin: then the
// connection goes on to fasthttp with every byte that has been read, and stays there. So each refusal, each redirect and
// each page is made in one place, and the lane makes none of them.

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

// A laneEnd says what becomes of a connection after a request.
type laneEnd uint8

const (
	laneNext   laneEnd = iota // the next request, please
	laneClosed                // the connection is over
	laneOther                 // the request was not begun: it is for fasthttp, and so is all that follows
)

// lane serves the requests of a connection for as long as it can, and reports whether the connection is over. If it is
// not, the next reads of c return what has been read and not served.
func (s *Server) lane(c *clientConn) (over bool) {
	if s.limits.visitors != nil {
		return false // a request counts once, and it is not known yet who asks
	}
	b := laneBuffers.Get().(*laneBuffer)
	defer b.release()
	for wait := s.cfg.HeaderTimeout; ; wait = s.cfg.IdleTimeout {
		if !s.laneRead(c, b, wait) {
			return true
		}
		switch s.laneServe(c, b) {
		case laneOther:
			c.unread = append(c.unread, b.in...)
			return false
		case laneClosed:
			return true
		}
		c.state.CompareAndSwap(connActive, connIdle)
		if s.draining.Load() {
			c.closeIfIdle()
			return true
		}
	}
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
	headEnd   = []byte("\r\n\r\n")
	closeName = []byte("close")
)

// laneParse reads what has come and reports whether it is for the lane: one request, whole, with nothing behind it, and
// without any part that fasthttp would have to be asked about.
func laneParse(in []byte, h *head) bool {
	if len(in) < 4 || string(in[:4]) != "GET " || bytes.Index(in, headEnd) != len(in)-len(headEnd) {
		return false
	}
	line, block, _ := bytes.Cut(in, headEnd[:2])
	target, proto, _ := bytes.Cut(line[4:], []byte{' '})
	if len(target) == 0 || target[0] != '/' || len(target) > 1 && target[1] == '/' || string(proto) != "HTTP/1.1" {
		return false
	}
	return h.read(line[:3], target, proto, block) == nil && !h.sized && !h.hasBody() && !h.expects && len(h.upgrade) == 0 &&
		!h.names(closeName) && plainHost(h.host) && !ownPath(h.path)
}

// plainHost reports whether a host that head.read has taken is a name or an IPv4 address, perhaps with a port.
func plainHost(host []byte) bool {
	return bytes.IndexAny(host, "[]%~") < 0 && bytes.Count(host, []byte{':'}) < 2
}

// laneServe serves the request in b, if it is for the lane.
func (s *Server) laneServe(c *clientConn, b *laneBuffer) (end laneEnd) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r)
			end = s.laneAnswer(c, b, answer{status: 500, kind: typeText, body: []byte("Internal Server Error\n"), closes: true})
		}
	}()
	if !laneParse(b.in, &b.head) {
		return laneOther
	}
	who := s.identify(b.head.fields)
	if !who.form {
		return laneOther // its answer gains a cookie
	}
	v, ok := s.pass(&who)
	if !ok {
		return laneOther
	}
	s.metrics.decisions[letIn].Inc()
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	return s.laneForward(c, b, &v)
}

// laneForward passes the request on and its response back.
func (s *Server) laneForward(c *clientConn, b *laneBuffer, v *verdict) laneEnd {
	h, from, p := &b.head, s.senderOf(c.peer, b.head.fields), newPresence(s.room, v.token)
	b.out = s.appendOriginHead(b.out[:0], h, &from)
	r := responses.Get().(*response)
	defer responses.Put(r)
	conn, _, size, err := s.roundTrip(nil, h, b.out, r, p)
	if err != nil {
		fault := asOriginError(err, faultClosed)
		s.metrics.originErrors[fault.fault].Inc()
		p.end()
		return s.laneAnswer(c, b, s.originErrorAnswer(h, fault.status(), v, false))
	}
	last := s.draining.Load()
	b.out = s.appendLaneHead(b.out[:0], r, last)
	length := r.length
	_, _ = conn.reader.Discard(size)
	body := s.newOriginBody(relayed{conn, r, size, nil, p})
	defer body.finish()

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

// appendLaneHead appends the head that the client gets.
func (s *Server) appendLaneHead(dst []byte, r *response, last bool) []byte {
	dst = appendClientFields(r.appendStatus(dst), r, s.cfg.CookieName, false)
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

// laneAnswer sends an answer of owr's own that needs no cookie.
func (s *Server) laneAnswer(c *clientConn, b *laneBuffer, a answer) laneEnd {
	a.tell, a.closes = nil, a.closes || s.draining.Load()
	b.out = s.appendAnswerHead(b.out[:0], &a, false)
	if a.closes {
		b.out = append(b.out, "Connection: close\r\n"...)
	}
	b.out = append(append(b.out, "\r\n"...), a.body...)
	if _, err := c.Write(b.out); err != nil || a.closes {
		return laneClosed
	}
	return laneNext
}
