package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"syscall"
)

// A loop's side towards the origin: connections that are kept, the request on its way, and the answer back to the client.

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
		fd, err := s.originDescriptor()
		if !l.post(func() { l.dialed(c, fd, err) }) && fd >= 0 {
			_ = syscall.Close(fd)
			s.metrics.originConns.Dec()
		}
	})
}

// originDescriptor makes a connection to the origin for a loop. A defect is an error to the one who waits for it.
func (s *Server) originDescriptor() (fd int, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r)
			fd, err = -1, &originError{faultConnect, errDefect}
		}
	}()
	conn, _, err := s.origin.connection(s.base)
	if err != nil {
		return -1, err
	}
	fd, err = dupOf(conn.(*net.TCPConn)) // a loop is not there for an origin with TLS
	_ = conn.Close()
	if err != nil {
		s.metrics.originConns.Dec()
		return -1, err
	}
	return fd, nil
}

func (l *loop) dialed(c *loopClient, fd int, err error) {
	waits := c.fd >= 0 && c.underWay && c.origin == nil
	if waits {
		defer l.rescue(c)
	}
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
