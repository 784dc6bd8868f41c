package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// A loop serves many connections on one thread, from accept to close: it waits for all of them at once with epoll (epoll(7),
// edge-triggered), as nginx does, and reads and writes without waiting. A goroutine for each pays for a read that finds nothing
// yet, for a look whether the origin's connection is still silent, and for two ways through the scheduler; that is a third of a
// small request, and most of a new connection. And between two requests a connection in a loop has no buffers.
//
// A loop does what can be done at once. A request that is not for the lane, an answer whose end is not known, a client that
// takes its answer slowly: each is handed to a goroutine with all that has been read of it. See exchange_linux.go and upstream_linux.go.
//
// Visitors inside come first. Everybody else, and who has not said yet who they are, is watched by an epoll instance of their
// own, the lobby, which a turn looks at last. What comes from there is read, but of the requests of those who are not inside
// only a few are served in a turn that had others to serve. The rest is parked: in an overload the lobby waits, and those inside
// do not notice.
//
// Everything here belongs to the loop's own goroutine, but for what mu guards.
type loop struct {
	s     *Server
	ep    int // the epoll instance
	lobby int // another one, watched by it
	ev    int // an eventfd that says that something was posted

	mu     sync.Mutex
	posted []func()
	ended  bool

	heeding   []func()   // taken from posted and not called yet
	files     []loopFile // by descriptor
	listening []int
	deaf      bool          // a descriptor was wanting: no connections are accepted until the next sweep
	logged    time.Time     // when the log has heard of it
	budget    int           // how many requests of the lobby may still be served in this turn
	parked    []*parked     // the oldest first
	lag       time.Duration // for how long the request at hand was parked
	busy      loopSet       // clients with a request under way
	idle      loopSet       // clients between two requests
	origins   []*loopOrigin
	spare     [][]byte // buffers for requests
	now       time.Time
	swept     time.Time
	sweptIdle time.Time
	yielded   time.Time
	stopped   bool
	inside    [loopTurn]syscall.EpollEvent
	outside   [loopTurn]syscall.EpollEvent

	head     head
	response response
	in       []byte // room for what a client sends
	answer   []byte // room for what an origin sends
	out      []byte // what a client gets
}

// A loopFile says whose a descriptor is.
type loopFile struct {
	client  *loopClient
	origin  *loopOrigin
	listens bool
}

// A loopClient is a client's connection while a loop has it.
type loopClient struct {
	fd       int // -1: closed, or handed over
	peer     netip.Addr
	inside   bool // the loop watches it, and not the lobby
	more     bool // there is something to read
	ends     bool // the client has sent its last byte
	at       int  // its place in its set
	deadline time.Time
	idleFrom time.Time
	partial  []byte // of a head whose end has not come

	underWay bool // a request is; what follows belongs to it
	parked   *parked
	decision *pending
	page     bool // the client would take a page for an answer
	gains    gain
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
	loopTurn  = 256    // events that are taken at once
	loopFew   = 32     // of the lobby, while those inside have something to say
	loopParks = 10_000 // requests that may be parked; the next are turned away

	// loopYield is how long a loop runs before it lets the scheduler have a look. After 10 ms of one goroutine the runtime sends
	// its thread a signal, takes its processor away in the next system call, and looks every 20 µs whether to do so again:
	// a tenth of the loop's time, when measured.
	loopYield = 2 * time.Millisecond
)

func newLoop(s *Server) (*loop, error) {
	l := &loop{s: s, in: make([]byte, min(laneHead, s.cfg.MaxHeader)), answer: make([]byte, loopRoom)}
	l.ep, l.lobby, l.ev = -1, -1, -1
	if err := l.open(); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *loop) open() (err error) {
	if l.ep, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	if l.lobby, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	if l.ev, err = eventfd(); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	// The lobby's readiness is no edge: it lasts until all of it has been served.
	if err := errors.Join(l.add(l.ep, l.ev, loopReads), l.add(l.ep, l.lobby, syscall.EPOLLIN)); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

func eventfd() (int, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func (l *loop) close() {
	for _, fd := range []int{l.ep, l.lobby, l.ev} {
		if fd >= 0 {
			_ = syscall.Close(fd)
		}
	}
}

const (
	loopEdges = 1 << 31 // EPOLLET, which package syscall has as a negative number
	loopReads = syscall.EPOLLIN | syscall.EPOLLRDHUP | loopEdges
	loopAlone = 1 << 28 // EPOLLEXCLUSIVE: a connection wakes one loop and not all of them
)

// add has an epoll instance watch a descriptor: with loopReads it tells each time that something new can be read, or that it
// has ended.
func (l *loop) add(ep, fd int, events uint32) error {
	for fd >= len(l.files) {
		l.files = append(l.files, loopFile{})
	}
	return syscall.EpollCtl(ep, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)})
}

// watcher is the epoll instance that watches a client.
func (l *loop) watcher(inside bool) int {
	if inside {
		return l.ep
	}
	return l.lobby
}

// move has a client watched where it belongs. What it has sent meanwhile is told again.
func (l *loop) move(c *loopClient, inside bool) {
	if c.inside == inside {
		return
	}
	_ = syscall.EpollCtl(l.watcher(c.inside), syscall.EPOLL_CTL_DEL, c.fd, nil)
	c.inside = inside
	if err := l.add(l.watcher(inside), c.fd, loopReads); err != nil {
		panic("owr: epoll: " + err.Error()) // no memory, or the system's limit of watches
	}
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
		ring(l.ev)
	}
	return true
}

// ring makes an eventfd readable. That fails only where it has rung for ages.
func ring(fd int) {
	one := uint64(1)
	_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 8)
}

func silence(fd int) {
	var count uint64
	_, _, _ = syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&count)), 8)
}

// heed calls what has been posted, at most so many: a commit answers thousands at once, and those inside must not wait for that.
func (l *loop) heed(most int) {
	silence(l.ev)
	l.mu.Lock()
	l.heeding, l.posted = append(l.heeding, l.posted...), nil // from here on the next post rings
	l.mu.Unlock()
	n := min(len(l.heeding), most)
	turn := l.heeding[:n]
	if l.heeding = l.heeding[n:]; len(l.heeding) > 0 {
		ring(l.ev)
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
	for !l.stopped {
		l.turn(l.patience())
	}
}

// turn waits for events, so many milliseconds at most, and serves what they bring.
func (l *loop) turn(patience int) {
	ready := take(l.ep, l.inside[:], patience)
	l.now = time.Now()
	// Origins come first: a connection to one that has ended, or that speaks without being asked, must be gone
	// before the request of a client of the same turn takes it.
	rung, lobby := false, false
	l.budget, l.lag = loopTurn, 0
	for i := range ready {
		switch fd := int(ready[i].Fd); fd {
		case l.ev:
			rung = true
		case l.lobby:
			lobby = true
		default:
			l.budget = loopFew
			if o := l.files[fd].origin; o != nil {
				l.guarded(o.client, o, ready[i].Events)
			}
		}
	}
	for i := range ready {
		if c := l.files[ready[i].Fd].client; c != nil {
			l.guarded(c, nil, ready[i].Events)
		}
	}
	if rung {
		l.heed(l.budget)
	}
	l.unpark()
	if lobby {
		l.attend()
	}
	if l.now.Sub(l.swept) >= loopSweep {
		l.call(l.sweep)
	}
	if l.now.Sub(l.yielded) >= loopYield {
		l.yielded = l.now
		runtime.Gosched()
	}
}

// take waits for events, so many milliseconds at most; -1: for ever.
func take(ep int, events []syscall.EpollEvent, patience int) []syscall.EpollEvent {
	n, err := syscall.EpollWait(ep, events, patience)
	if err != nil && !errors.Is(err, syscall.EINTR) {
		panic("owr: epoll_wait: " + err.Error()) // its arguments are our own
	}
	return events[:max(n, 0)]
}

// attend looks at the lobby. New connections come last: one of them may take the place, and the descriptor, of one that is idle.
func (l *loop) attend() {
	events := take(l.lobby, l.outside[:], 0)
	for _, e := range events {
		if c := l.files[e.Fd].client; c != nil {
			l.guarded(c, nil, e.Events)
		}
	}
	for _, e := range events {
		if fd := int(e.Fd); l.files[fd].listens {
			l.call(func() { l.accept(fd, loopTurn) })
		}
	}
}

// patience is how long the loop may sleep, in milliseconds.
func (l *loop) patience() int {
	switch {
	case len(l.parked) > 0:
		return 0
	case len(l.busy) > 0 || l.deaf:
		return int(loopSweep / time.Millisecond)
	case len(l.idle) > 0 || len(l.origins) > 0:
		return 1000
	}
	return -1
}

// rescue is deferred by what serves a client: a defect costs the connection that met it.
func (l *loop) rescue(c *loopClient) {
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
}

// guarded handles one event.
func (l *loop) guarded(c *loopClient, o *loopOrigin, events uint32) {
	defer l.rescue(c)
	if o != nil {
		l.originEvent(o, events)
	} else {
		l.clientEvent(c, events)
	}
}

// sweep ends what has taken too long.
func (l *loop) sweep() {
	l.swept = l.now
	if l.deaf {
		l.deaf = false
		for _, fd := range l.listening {
			l.hear(fd)
		}
	}
	for _, c := range slices.Backward(l.busy) { // whoever leaves makes room for one from behind
		switch {
		case !l.now.After(c.deadline):
		case c.parked != nil:
			l.turnAway(c)
		case c.decision != nil:
			l.giveUp(c, c.decision)
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
			l.endIdle(c)
		}
	}
	for len(l.origins) > 0 && l.now.Sub(l.origins[0].idleFrom) >= maxIdle {
		l.closeOrigin(l.origins[0])
	}
}

// --- the server's loops --------------------------------------------------------------------

// startLoops starts the loops. They serve plain visitors and a plain origin only: TLS wants to wait.
func (s *Server) startLoops() error {
	if s.tls != nil || s.origin.tls != nil {
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
