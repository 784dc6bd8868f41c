package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// The states of a client's connection.
const (
	connIdle   int32 = iota // between two requests, or before the first
	connActive              // in a request or a tunnel
	connClosed              // ended by us while idle
)

// How a connection is closed whose client may still be sending: we end our side, then read
// and forget for a while, so that our answer is not lost to a reset.
const (
	lingerFor   = 2 * time.Second
	lingerBytes = 16 << 20
)

// A clientConn is a client's connection. fasthttp reads from it and sets the deadlines for
// heads and idle times; writing has one here, per progress made.
type clientConn struct {
	net.Conn            // TCP, or TLS over it
	peer     netip.Addr // whoever reads; whoever closes, under clientConns.mu
	born     time.Time  // when a goroutine got it
	stall    time.Duration
	maxBody  int64 // bytes; 0: no limit
	metrics  *metrics
	paced    *pacedConn // what lies below TLS; nil without TLS

	x       *exchange // of the request being read or served; whoever reads, then its handler
	unread  []byte    // what the lane has read and left to fasthttp; whoever reads
	counted bool      // the first request in unread has been, by the limits of its visitor; whoever reads
	onBreak func()    // frees what was to be used after the handler (takeOver); nil: nothing. Whoever runs fasthttp
	intake  intake    // whoever reads

	reading  lazyReadDeadline
	writing  deadline
	received flow // of the request body; whoever reads
	sent     flow // whoever writes

	state  atomic.Int32
	linger atomic.Bool
	once   sync.Once
	gone   func(*clientConn) // called once, when the connection is closed
}

// Read reads for fasthttp: bytes of the request at hand, and no others. Its head is read on the way.
func (c *clientConn) Read(p []byte) (int, error) {
	if err := c.intake.before(); err != nil {
		return 0, err
	}
	if len(c.unread) > 0 {
		n := c.take(p[:copy(p, c.unread)])
		if c.unread = c.unread[n:]; len(c.unread) == 0 {
			c.unread = nil
		}
		return n, c.refused(n)
	}
	if err := c.reading.apply(c.Conn); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	ours := c.take(p[:n])
	if ours < n {
		c.unread = append(c.unread, p[ours:n]...)
	}
	if err == nil {
		err = c.refused(ours)
	}
	return ours, err
}

// take has the intake take in what has come, and returns how much of it is the request's.
func (c *clientConn) take(data []byte) int {
	n, headEnds := c.intake.take(data)
	if headEnds {
		c.x = exchanges.Get().(*exchange)
		c.x.decided = false
		switch r := c.x.head.readRaw(c.intake.head); {
		case r != nil:
			c.intake.refuse(r)
		case c.maxBody > 0 && c.x.head.length > c.maxBody:
			c.intake.refuse(&refusal{413, "body"})
		default:
			c.intake.body(c.x.head.length)
		}
	}
	return n
}

// refused is the error of a read that has found the request malformed at its first byte.
func (c *clientConn) refused(n int) error {
	if n == 0 && c.intake.refusal != nil {
		return errMalformed
	}
	return nil
}

// newClientConn makes a connection the server's.
func (s *Server) newClientConn(conn net.Conn, peer netip.Addr) *clientConn {
	pace := flow{least: int64(s.cfg.MinRate), window: s.cfg.StallTimeout}
	return &clientConn{
		Conn: conn, peer: peer, born: time.Now(), stall: s.cfg.StallTimeout, maxBody: s.cfg.MaxBody, metrics: s.metrics, gone: s.connGone, received: pace, sent: pace,
	}
}

// Write fails once the client has taken nothing for the stall time, or too little on average. A slow client that takes
// enough is served on.
func (c *clientConn) Write(p []byte) (int, error) {
	n, err := c.send(p)
	if err != nil {
		c.metrics.tooSlow(err)
	}
	return n, err
}

func (c *clientConn) send(p []byte) (int, error) {
	if c.paced != nil {
		return c.Conn.Write(p)
	}
	return writeProgress(c.Conn, &c.writing, p, c.stall, &c.sent)
}

// SetReadDeadline is called by fasthttp, and by whoever reads a body, before a read.
func (c *clientConn) SetReadDeadline(t time.Time) error { return c.reading.ask(c.Conn, t) }

// SetDeadline is called by fasthttp when it hands a connection over.
func (c *clientConn) SetDeadline(t time.Time) error {
	c.writing.forget()
	c.reading.want.Store(0)
	c.reading.have.Store(0)
	return c.Conn.SetDeadline(t)
}

// writeProgress writes p with a deadline that every byte of progress moves, and that f may end sooner.
func writeProgress(c net.Conn, l *deadline, p []byte, stall time.Duration, f *flow) (int, error) {
	total := 0
	for {
		if err := l.move(stall, c.SetWriteDeadline); err != nil {
			return total, err
		}
		begun := f.begin()
		n, err := c.Write(p[total:])
		total += n
		if slow := f.end(begun, n); slow != nil {
			return total, slow
		}
		if err == nil || n == 0 || total == len(p) || !errors.Is(err, os.ErrDeadlineExceeded) {
			return total, err
		}
	}
}

// ReadFrom lets fasthttp's buffered writer hand a streamed body over: what has been read goes
// out at once instead of waiting for a buffer to fill.
func (c *clientConn) ReadFrom(r io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	total := int64(0)
	for {
		n, err := r.Read(buf[:])
		if n > 0 {
			m, werr := c.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// writeChunks writes a body in chunks as it comes. Without an error it was whole.
func (c *clientConn) writeChunks(r io.Reader) error {
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := r.Read(buf[chunkRoom : copySize-2])
		if n > 0 {
			if _, werr := c.Write(frameChunk(buf, n)); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			_, err = c.Write(lastChunk)
			return err
		}
		if err != nil {
			return err
		}
	}
}

// chunkRoom is what a chunk's size line and line end take.
const chunkRoom = 8

var lastChunk = []byte("0\r\n\r\n")

// frameChunk makes the n bytes at chunkRoom a chunk, and returns it.
func frameChunk(buf *[copySize]byte, n int) []byte {
	end := chunkRoom + n
	var size [chunkRoom]byte
	line := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
	start := chunkRoom - len(line)
	copy(buf[start:], line)
	copy(buf[end:], "\r\n")
	return buf[start : end+2]
}

// copySize is how much of a body is on its way at once.
const copySize = 32 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// lingers makes Close wait for a client that may still be sending what nobody will read.
func (c *clientConn) lingers() { c.linger.Store(true) }

// Close ends the connection and is called by fasthttp when it is done with it.
func (c *clientConn) Close() error {
	if c.linger.Swap(false) {
		c.drain()
	}
	return c.abort()
}

// abort ends the connection at once, whatever it is doing. With TLS it takes a moment to say so, unless something is being written.
func (c *clientConn) abort() error {
	if c.paced != nil {
		c.paced.finish(lastWords)
	}
	err := c.Conn.Close()
	c.once.Do(func() { c.gone(c) })
	return err
}

// cut is abort without a word.
func (c *clientConn) cut() {
	if c.paced != nil {
		_ = c.paced.Conn.Close()
	}
	_ = c.abort()
}

func (c *clientConn) drain() {
	if c.paced == nil {
		readAndForget(c.Conn)
		return
	}
	c.paced.finish(lingerFor)
	if c.CloseWrite() == nil {
		readAndForget(c.paced.Conn) // nobody needs to know what it says
	}
}

// readAndForget ends our side of a TCP connection, and waits for the end of the other.
func readAndForget(conn net.Conn) {
	if tcp, ok := conn.(interface{ CloseWrite() error }); !ok || tcp.CloseWrite() != nil {
		return
	}
	if conn.SetReadDeadline(time.Now().Add(lingerFor)) != nil {
		return
	}
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	for total := 0; total < lingerBytes; {
		n, err := conn.Read(buf[:])
		total += n
		if err != nil {
			return
		}
	}
}

// CloseWrite ends our side of a tunnel.
func (c *clientConn) CloseWrite() error {
	if tcp, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return tcp.CloseWrite()
	}
	return nil
}

// closeIfIdle ends the connection unless a request has begun on it, and reports whether it did.
func (c *clientConn) closeIfIdle() bool {
	if !c.state.CompareAndSwap(connIdle, connClosed) {
		return false
	}
	_ = c.abort()
	return true
}

// clientOf is the connection of a request.
func clientOf(ctx *fasthttp.RequestCtx) *clientConn {
	return ctx.Conn().(*clientConn)
}

// clientConns are the open connections, for draining and for their limits.
type clientConns struct {
	mu   sync.Mutex
	all  map[*clientConn]struct{}
	of   map[netip.Addr]int
	open int
	most int // per address; 0: no limit
	max  int // of all addresses together; 0: no limit
}

// admit counts a new connection until release, unless its address has too many already, or all of them have: then it says which.
func (cs *clientConns) admit(peer netip.Addr, counted bool) (limitReason, bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch {
	case counted && cs.of[prefixOf(peer)] >= cs.most:
		return limitAddress, false
	case cs.max > 0 && cs.open >= cs.max:
		return limitConns, false
	}
	cs.of[prefixOf(peer)]++
	cs.open++
	return 0, true
}

// count is how many connections are open.
func (cs *clientConns) count() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.open
}

// remove forgets a connection that is closed.
func (cs *clientConns) remove(c *clientConn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.all, c)
	cs.open--
	cs.forget(c.peer)
}

// rename counts a connection for another address from now on. It reports false when that has too many already.
func (cs *clientConns) rename(c *clientConn, peer netip.Addr, counted bool) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if counted && cs.of[prefixOf(peer)] >= cs.most {
		return false
	}
	if _, open := cs.all[c]; open { // else it has been cut off, and counted for nobody
		cs.forget(c.peer)
		cs.of[prefixOf(peer)]++
		c.peer = peer
	}
	return true
}

// disown says that a loop has the connection from now on.
func (cs *clientConns) disown(c *clientConn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.all, c)
}

// own says that a goroutine has the connection.
func (cs *clientConns) own(c *clientConn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.all[c] = struct{}{}
}

func (cs *clientConns) release(peer netip.Addr) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open--
	cs.forget(peer)
}

// forget takes a connection off its address; who calls it has the lock.
func (cs *clientConns) forget(peer netip.Addr) {
	key := prefixOf(peer)
	if cs.of[key]--; cs.of[key] <= 0 {
		delete(cs.of, key)
	}
}

func (cs *clientConns) list() []*clientConn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	out := make([]*clientConn, 0, len(cs.all))
	for c := range cs.all {
		out = append(out, c)
	}
	return out
}
