package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// A loop serves connections that have shown to be for the lane, many of them on one thread: it waits for all of them at
// once with epoll (epoll(7), edge-triggered), as nginx does, and reads and writes without waiting. A goroutine for each
// pays for a read that finds nothing yet, for a look whether the origin's connection is still silent, and for two ways
// through the scheduler; that is a third of a small request. And between two requests a connection in a loop has no buffers.
//
// A loop does what can be done at once. A request that is not for the lane, an answer whose end is not known, a client that
// takes its answer slowly: each is handed to a goroutine with all that has been read of it. See exchange_linux.go.
//
// Everything here belongs to the loop's own goroutine, but for what mu guards.
type loop struct {
	s  *Server
	ep int // the epoll instance
	ev int // an eventfd that says that something was posted

	mu     sync.Mutex
	posted []func()
	ended  bool

	heeding   []func()   // taken from posted and not called yet
	files     []loopFile // by descriptor
	busy      loopSet    // clients with a request under way
	idle      loopSet    // clients between two requests
	origins   []*loopOrigin
	spare     [][]byte // buffers for requests
	now       time.Time
	swept     time.Time
	sweptIdle time.Time
	yielded   time.Time
	stopped   bool

	head     head
	response response
	in       []byte // room for what a client sends
	answer   []byte // room for what an origin sends
	out      []byte // what a client gets
}

// A loopFile says whose a descriptor is.
type loopFile struct {
	client *loopClient
	origin *loopOrigin
}

// A loopClient is a client's connection while a loop has it.
type loopClient struct {
	fd       int // -1: closed, or handed over
	peer     netip.Addr
	more     bool // there is something to read
	ends     bool // the client has sent its last byte
	at       int  // its place in its set
	deadline time.Time

	underWay bool // a request is; what follows belongs to it
	decision *pending
	page     bool // the client would take a page for an answer
	again    bool // this is the second try
	request  []byte
	origin   *loopOrigin // nil while it is being dialed
	presence presence
	left     int64 // what is to come of the answer's body
	begun    bool  // the client has got some of the answer
	keep     bool  // the origin's connection may serve another request
	last     bool  // the client has been told that no other answer follows
}

// A loopOrigin is a connection to the origin.
type loopOrigin struct {
	fd       int
	client   *loopClient // whose request it has; nil: idle
	born     time.Time
	idleFrom time.Time
	reused   bool
	partial  []byte // the beginning of a head
}

type loopSet []*loopClient

func (set *loopSet) add(c *loopClient) {
	c.at = len(*set)
	*set = append(*set, c)
}

func (set *loopSet) remove(c *loopClient) {
	s := *set
	last := len(s) - 1
	s[c.at] = s[last]
	s[c.at].at = c.at
	s[last] = nil
	*set = s[:last]
}

const (
	loopRoom  = maxOriginHead + smallBody // of a read from an origin
	loopSweep = 100 * time.Millisecond
	loopTurn  = 256 // events that are taken at once

	// loopYield is how long a loop runs before it lets the scheduler have a look. After 10 ms of one goroutine the runtime sends
	// its thread a signal, takes its processor away in the next system call, and looks every 20 µs whether to do so again:
	// a tenth of the loop's time, when measured.
	loopYield = 2 * time.Millisecond
)

func newLoop(s *Server) (*loop, error) {
	l := &loop{s: s, in: make([]byte, min(laneHead, s.cfg.MaxHeader)), answer: make([]byte, loopRoom)}
	var err error
	if l.ep, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	ev, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		_ = syscall.Close(l.ep)
		return nil, fmt.Errorf("eventfd: %w", errno)
	}
	l.ev = int(ev)
	if err := l.watch(l.ev); err != nil {
		l.close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return l, nil
}

func (l *loop) close() {
	_ = syscall.Close(l.ep)
	_ = syscall.Close(l.ev)
}

// watch has the loop told each time that something new can be read from a descriptor, or that it has ended.
func (l *loop) watch(fd int) error {
	for fd >= len(l.files) {
		l.files = append(l.files, loopFile{})
	}
	const edges = 1 << 31 // EPOLLET, which package syscall has as a negative number
	return syscall.EpollCtl(l.ep, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | edges, Fd: int32(fd)})
}

// release ends the loop's part in a descriptor that stays open.
func (l *loop) release(fd int) {
	l.files[fd] = loopFile{}
	_ = syscall.EpollCtl(l.ep, syscall.EPOLL_CTL_DEL, fd, nil)
}

// post has the loop call f soon. It reports false, and drops f, when the loop has ended. Any number of callers.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.posted = append(l.posted, f)
	if len(l.posted) == 1 {
		l.ring()
	}
	return true
}

func (l *loop) ring() {
	one := uint64(1)
	_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(l.ev), uintptr(unsafe.Pointer(&one)), 8) // fails only where it has rung for ages
}

// heed calls what has been posted, but no more of it than of events: a commit answers thousands at once, and those inside
// must not wait for that.
func (l *loop) heed() {
	var count uint64
	_, _, _ = syscall.RawSyscall(syscall.SYS_READ, uintptr(l.ev), uintptr(unsafe.Pointer(&count)), 8)
	l.mu.Lock()
	l.heeding, l.posted = append(l.heeding, l.posted...), nil // from here on the next post rings
	l.mu.Unlock()
	n := min(len(l.heeding), loopTurn)
	turn := l.heeding[:n]
	if l.heeding = l.heeding[n:]; len(l.heeding) > 0 {
		l.ring()
	}
	for i, f := range turn {
		turn[i] = nil
		l.call(f)
	}
}

// call keeps a defect in what was posted, or in a sweep, from ending the process.
func (l *loop) call(f func()) {
	defer func() {
		if r := recover(); r != nil {
			l.s.panicked(r)
		}
	}()
	f()
}

// run serves until stop is posted and no client is left.
func (l *loop) run() {
	defer l.close()
	events := make([]syscall.EpollEvent, loopTurn)
	for !l.stopped {
		n, err := syscall.EpollWait(l.ep, events, l.patience())
		if err != nil && !errors.Is(err, syscall.EINTR) {
			panic("owr: epoll_wait: " + err.Error()) // its arguments are our own
		}
		l.now = time.Now()
		ready := events[:max(n, 0)]
		// Origins come first: a connection to one that has ended, or that speaks without being asked, must be gone
		// before the request of a client of the same turn takes it.
		rung := false
		for i := range ready {
			if fd := int(ready[i].Fd); fd == l.ev {
				rung = true
			} else if o := l.files[fd].origin; o != nil {
				l.guarded(o.client, o, ready[i].Events)
			}
		}
		for i := range ready {
			if c := l.files[ready[i].Fd].client; c != nil {
				l.guarded(c, nil, ready[i].Events)
			}
		}
		if rung {
			l.heed()
		}
		if l.now.Sub(l.swept) >= loopSweep {
			l.call(l.sweep)
		}
		if l.now.Sub(l.yielded) >= loopYield {
			l.yielded = l.now
			runtime.Gosched()
		}
	}
}

// patience is how long the loop may sleep, in milliseconds.
func (l *loop) patience() int {
	switch {
	case len(l.busy) > 0:
		return int(loopSweep / time.Millisecond)
	case len(l.idle) > 0 || len(l.origins) > 0:
		return 1000
	}
	return -1
}

// guarded handles one event. A defect costs the connection that met it.
func (l *loop) guarded(c *loopClient, o *loopOrigin, events uint32) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		l.s.panicked(r)
		if c != nil && c.fd >= 0 {
			if !c.begun {
				_, _ = sendTo(c.fd, l.s.appendAnswer(nil, &answer{status: 500, kind: typeText, body: []byte("Internal Server Error\n"), closes: true}, false))
			}
			l.endClient(c)
		}
	}()
	if o != nil {
		l.originEvent(o, events)
	} else {
		l.clientEvent(c, events)
	}
}

// sweep ends what has taken too long.
func (l *loop) sweep() {
	l.swept = l.now
	for _, c := range slices.Backward(l.busy) { // whoever leaves makes room for one from behind
		switch {
		case !l.now.After(c.deadline):
		case c.decision != nil:
			l.told(c, l.s.undecided(&c.decision.who))
		case c.origin != nil:
			l.originFailed(c, &originError{faultTimeout, os.ErrDeadlineExceeded})
		}
	}
	if l.now.Sub(l.sweptIdle) < time.Second {
		return
	}
	l.sweptIdle = l.now
	for _, c := range slices.Backward(l.idle) {
		if l.now.After(c.deadline) {
			l.endClient(c)
		}
	}
	for len(l.origins) > 0 && l.now.Sub(l.origins[0].idleFrom) >= maxIdle {
		l.closeOrigin(l.origins[0])
	}
}

// --- the server's loops --------------------------------------------------------------------

// startLoops starts the loops. They serve a plain origin only: TLS wants to wait.
func (s *Server) startLoops() error {
	if s.origin.tls != nil || s.limits.visitors != nil {
		return nil
	}
	for range s.cfg.Loops {
		l, err := newLoop(s)
		if err != nil {
			return err
		}
		s.loops = append(s.loops, l)
		s.loopWork.Go(l.run)
	}
	return nil
}

func (s *Server) drainLoops() { s.tellLoops((*loop).drain) }

func (s *Server) cutOffLoops() { s.tellLoops((*loop).cutOff) }

// stopLoops returns when the loops have ended. Their clients have before that.
func (s *Server) stopLoops() {
	s.tellLoops((*loop).stop)
	s.loopWork.Wait()
}

func (s *Server) tellLoops(what func(*loop)) {
	for _, l := range s.loops {
		l.post(func() { what(l) })
	}
}

// --- clients that come and go --------------------------------------------------------------

// migrate gives a connection to a loop and reports whether one has taken it. c is of no more use then.
func (s *Server) migrate(c *clientConn) bool {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok || len(s.loops) == 0 || s.draining.Load() {
		return false
	}
	fd, err := dupOf(tcp)
	if err != nil {
		return false
	}
	l, peer := s.loops[s.nextLoop.Add(1)%uint32(len(s.loops))], c.peer
	s.conns.disown(c)
	_ = tcp.Close()
	s.work.Add(1) // endClient, or the goroutine that the loop hands it to, ends this
	if !l.post(func() { l.adopt(fd, peer) }) {
		panic("owr: a loop has ended before its clients") // Shutdown stops it after the last one
	}
	return true
}

// dupOf is another descriptor of a connection, with which the runtime's poller has nothing to do.
func dupOf(tcp *net.TCPConn) (fd int, err error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, err
	}
	var errno syscall.Errno
	err = raw.Control(func(own uintptr) {
		var n uintptr
		n, _, errno = syscall.RawSyscall(syscall.SYS_FCNTL, own, syscall.F_DUPFD_CLOEXEC, 0)
		fd = int(n)
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return fd, err
}

// connOf makes a descriptor a connection of package net's. The descriptor is closed in any case.
func connOf(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	return net.FileConn(f)
}

func (l *loop) adopt(fd int, peer netip.Addr) {
	c := &loopClient{fd: fd, peer: peer, deadline: l.now.Add(l.s.cfg.IdleTimeout)}
	l.idle.add(c)
	if err := l.watch(fd); err != nil || l.s.draining.Load() {
		l.endClient(c)
		return
	}
	l.files[fd].client = c // what came before is an edge of its own: epoll tells it for a new descriptor
}

// forget ends the loop's part in a client, whose request is over.
func (l *loop) forget(c *loopClient) {
	l.idle.remove(c)
	c.fd = -1
}

// endClient closes a client's connection, and that to the origin if it has one.
func (l *loop) endClient(c *loopClient) {
	if c.underWay {
		if c.origin != nil {
			l.closeOrigin(c.origin)
		}
		l.over(c)
	}
	if c.fd < len(l.files) {
		l.files[c.fd] = loopFile{}
	}
	_ = syscall.Close(c.fd)
	l.forget(c)
	l.s.conns.release(c.peer)
	l.s.metrics.connections.Dec()
	l.s.work.Done()
}

// handOver gives a client to a goroutine, with what has been read from it and not served. It reports false, and the client is
// gone, when there is no descriptor for that.
func (l *loop) handOver(c *loopClient, unread []byte, serve func(*clientConn)) bool {
	l.release(c.fd)
	conn, err := connOf(c.fd)
	l.forget(c)
	if err != nil {
		l.s.log.Warn("a connection is lost between two pollers", "err", err) // no descriptors left, most likely
		l.s.conns.release(c.peer)
		l.s.metrics.connections.Dec()
		l.s.work.Done()
		return false
	}
	client := &clientConn{Conn: conn, peer: c.peer, stall: l.s.cfg.StallTimeout, gone: l.s.connGone, unread: append([]byte(nil), unread...)}
	client.state.Store(connActive)
	l.s.conns.own(client)
	l.s.work.Go(func() { l.s.protect(client, serve) })
	l.s.work.Done()
	return true
}

// drain closes the clients that wait for nothing; the others follow with their answers.
func (l *loop) drain() {
	for len(l.idle) > 0 {
		l.endClient(l.idle[len(l.idle)-1])
	}
}

// cutOff closes all clients.
func (l *loop) cutOff() {
	l.drain()
	for len(l.busy) > 0 {
		l.endClient(l.busy[len(l.busy)-1])
	}
}

// stop ends the loop, which has no clients any more. What their dials have posted has been called: it was posted before. What
// is left are decisions that nobody waits for.
func (l *loop) stop() {
	for len(l.origins) > 0 {
		l.closeOrigin(l.origins[0])
	}
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.stopped = true
}

// --- bytes ---------------------------------------------------------------------------------

// readFrom and sendTo do not wait, so the scheduler need not know of them.
func readFrom(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func sendTo(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
