package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

// TLS at the public listener (RFC 8446, and RFC 5246 for those who have nothing better). A connection with TLS is served by a
// goroutine from its first byte to its last: the event loops read and write descriptors, and what TLS makes of those bytes has
// to wait for whole records.

// lastWords is how long a connection that is closed waits to say so (close_notify) to a client that takes nothing.
const lastWords = 100 * time.Millisecond

// serverTLS is the configuration of the listener: nothing older than TLS 1.2, and no protocol but HTTP/1.1. A client that speaks
// others alone gets the alert no_application_protocol (RFC 7301).
func serverTLS(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	c.NextProtos = []string{"http/1.1"}
	return c
}

// A pacedConn lies between TLS and TCP. TLS writes records, and one that has gone out in part is neither taken back nor gone on
// with: an error in the middle of it ends the connection. So the deadline that every byte of progress moves is kept here, below
// TLS, where a slow reader that takes a part of a record has made progress.
type pacedConn struct {
	net.Conn
	stall   time.Duration
	writing deadline
	sent    flow
	fixed   atomic.Bool           // writing has a deadline that no progress moves
	turns   atomic.Pointer[turns] // nil but during the handshake of a client
	holds   atomic.Bool           // a turn
	begun   bool                  // it has had one; the goroutine of the handshake only
}

// Read is, while there is a handshake, where its turn is given up: who waits for the other side computes nothing.
func (c *pacedConn) Read(p []byte) (int, error) {
	turns := c.turns.Load()
	if turns == nil {
		return c.Conn.Read(p)
	}
	c.giveUp(turns)
	n, err := c.Conn.Read(p)
	if err == nil {
		if err = turns.take(c.begun); err == nil {
			c.begun = true
			c.holds.Store(true)
		}
	}
	return n, err
}

func (c *pacedConn) giveUp(turns *turns) {
	if c.holds.CompareAndSwap(true, false) {
		turns.put()
	}
}

// Write fails once the other side has taken nothing for the stall time. In a handshake it ends the computing.
func (c *pacedConn) Write(p []byte) (int, error) {
	if turns := c.turns.Load(); turns != nil {
		c.giveUp(turns)
	}
	if c.fixed.Load() {
		return c.Conn.Write(p)
	}
	return writeProgress(c.Conn, &c.writing, p, c.stall, &c.sent)
}

// SetWriteDeadline does nothing. TLS calls it for the alert that says that no more follows; in a tunnel that alert may come
// behind much that is slowly taken, and who closes the connection for good calls finish.
func (*pacedConn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is called where a connection changes hands.
func (c *pacedConn) SetDeadline(t time.Time) error {
	c.writing.forget()
	return c.Conn.SetDeadline(t)
}

// finish gives everything that is still written so long in all.
func (c *pacedConn) finish(d time.Duration) {
	c.fixed.Store(true)
	_ = c.Conn.SetWriteDeadline(time.Now().Add(d))
}

// turns are what handshakes take to compute: a signature costs as much as many requests, and a crowd that arrives at once
// must not keep the processors from those who are inside. Who computes has a turn, and who waits for the other side has none, so
// that silent clients hold nothing up. Turns are given in the order in which they were asked for.
type turns struct {
	free    chan struct{} // holds one element for each turn taken
	waiting atomic.Int64
	limit   int64 // of those who wait
}

// turnsWaiting is how many handshakes may wait for each turn: about a second's work with an RSA key.
const turnsWaiting = 1000

// errCrowded is the end of a handshake that would have to wait for too long.
var errCrowded = errors.New("too many handshakes are waiting")

func newTurns(count int) *turns {
	if count <= 0 {
		count = runtime.NumCPU()
	}
	return &turns{free: make(chan struct{}, count), limit: int64(count) * turnsWaiting}
}

// take waits for a turn. Unless the handshake has begun to compute, it is refused one when too many wait.
func (t *turns) take(begun bool) error {
	select {
	case t.free <- struct{}{}:
		return nil
	default:
	}
	defer t.waiting.Add(-1)
	if t.waiting.Add(1) > t.limit && !begun {
		return errCrowded
	}
	t.free <- struct{}{} // whoever has one computes, and waits for nobody
	return nil
}

func (t *turns) put() { <-t.free }

// secure has the connection speak TLS. It is called before anybody else knows the connection; the handshake comes later.
func (c *clientConn) secure(config *tls.Config) {
	c.paced = &pacedConn{Conn: c.Conn, stall: c.stall, sent: c.sent}
	c.Conn = tls.Server(c.paced, config)
}

// serveSecure serves a connection of a listener with TLS.
func (s *Server) serveSecure(c *clientConn) {
	err := s.handshake(c)
	if err == nil {
		s.serveClient(c)
		return
	}
	s.log.Debug("no handshake", "peer", c.peer, "err", err)
	if plain := (tls.RecordHeaderError{}); errors.As(err, &plain) && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader) {
		s.answerPlain(c)
	}
	_ = c.abort()
}

// handshake has as much time as the head of a request. Until its end the connection counts as idle, so that a server that drains
// does not wait for it.
func (s *Server) handshake(c *clientConn) error {
	p, secure := c.paced, c.Conn.(*tls.Conn)
	p.fixed.Store(true)
	if err := p.Conn.SetDeadline(time.Now().Add(s.cfg.HeaderTimeout)); err != nil {
		return err
	}
	p.turns.Store(s.turns)
	defer func() {
		p.giveUp(s.turns)
		p.turns.Store(nil)
	}()
	if err := secure.Handshake(); err != nil {
		s.metrics.handshakes[handshakeResult(err)].Inc()
		return err
	}
	result := handshakeFull
	if secure.ConnectionState().DidResume {
		result = handshakeResumed
	}
	s.metrics.handshakes[result].Inc()
	p.fixed.Store(false)
	return p.SetDeadline(time.Time{})
}

// What became of handshakes, as the metrics name it.
const (
	handshakeFull    = "full"
	handshakeResumed = "resumed"
	handshakeFailed  = "failed"
	handshakeSlow    = "timeout"
	handshakeCrowded = "crowded"
)

var handshakeResults = [...]string{handshakeFull, handshakeResumed, handshakeFailed, handshakeSlow, handshakeCrowded}

func handshakeResult(err error) string {
	switch {
	case errors.Is(err, errCrowded):
		return handshakeCrowded
	case errors.Is(err, os.ErrDeadlineExceeded):
		return handshakeSlow
	}
	return handshakeFailed
}

// looksLikeHTTP reports whether the first bytes of a connection are those of a request line rather than of TLS.
func looksLikeHTTP(start [5]byte) bool {
	for _, b := range start {
		if (b < 'A' || b > 'Z') && strings.IndexByte(" /*", b) < 0 {
			return false
		}
	}
	return true
}

// answerPlain tells somebody who speaks plain HTTP to TLS.
func (s *Server) answerPlain(c *clientConn) {
	s.metrics.refused.Inc()
	a := answer{status: 400, kind: typeText, body: []byte("This port speaks HTTPS.\n"), closes: true}
	if _, err := c.paced.Write(s.appendAnswer(nil, &a, false)); err == nil {
		readAndForget(c.paced.Conn)
	}
}
