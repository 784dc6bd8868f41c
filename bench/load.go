//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"time"
	"unsafe"
)

// A load is many visitors with their own cookies: requests over a fixed number of connections, from one
// thread. Nothing of a response is looked at but its status, its length and, where the load asks, its head.
type load struct {
	targets  []string // host:port; the connections are spread over them
	conns    int
	duration time.Duration
	rate     float64       // requests a second, whatever the answers do; 0: each connection asks again once answered
	patience time.Duration // how long an answer may take; 0: 10 s
	core     int           // 1 + the core to stay on; 0: any
	backlog  int           // with a rate: requests that may be due and not sent, beyond them they count as lost; 0: no limit

	// next appends a connection's next request to dst.
	next func(c *conn, dst []byte) []byte
	// answered sees each answer; head lasts until it returns. It may be nil. It returns true to have the
	// connection's next request at once, as part of the same visit.
	answered func(c *conn, a answer) (more bool)
	// journal keeps every answer with its time.
	journal bool
}

// An answer is what came back for one request.
type answer struct {
	status int
	head   []byte
	due    time.Duration // when it should have been sent, since the load began
	took   time.Duration // since then
}

// A conn is one connection. The fields that are exported to next and answered are theirs to use.
type conn struct {
	kind    int    // of the request under way
	visitor int    // of the request under way
	step    int    // of the visit
	cookie  []byte // that the visitor was given

	index  int
	target int
	fd     int // -1: none
	state  connState
	due    time.Duration
	sentAt time.Duration
	out    []byte
	outAt  int
	in     []byte
	inEnd  int
}

type connState uint8

const (
	connFree connState = iota
	connBusy
)

// A report is what a load has seen.
type report struct {
	requests int // answered
	lost     int // no answer in time, or a connection that broke
	dropped  int // due, and never sent
	status   map[int]int
	seconds  float64
	micros   []uint32 // from when each request was due to its answer
	client   float64  // CPU seconds of the load's own thread
	entries  []entry  // with journal
	begun    time.Time
	patience time.Duration
}

// An entry is one line of a journal. Times are since the load began.
type entry struct {
	due    time.Duration
	took   time.Duration
	status int // 0: none
	kind   int
	target int
}

// never stands for a time that did not end, in any unit.
const never = 1e9

func (r report) rate() float64 { return float64(r.requests) / r.seconds }

// share is how busy the client's thread was: 1 is all of one core.
func (r report) share() float64 { return r.client / r.seconds }

// percentile is the p-th percentile of the latency in milliseconds; requests without an answer count with
// the load's patience, which is less than they took.
func (r report) percentile(p float64) float64 {
	sorted := slices.Clone(r.micros)
	slices.Sort(sorted)
	at := int(math.Ceil(p/100*float64(len(sorted)+r.lost+r.dropped))) - 1
	if at < 0 {
		return math.NaN()
	}
	if at >= len(sorted) {
		return r.patience.Seconds() * 1000
	}
	return float64(sorted[at]) / 1000
}

// only returns an error unless every request was answered with one of the statuses.
func (r report) only(statuses ...int) error {
	good := 0
	for _, s := range statuses {
		good += r.status[s]
	}
	if r.requests == 0 || good != r.requests || r.lost > r.requests/1000 {
		return fmt.Errorf("answers by status: %v, lost: %d, want only %v", r.status, r.lost, statuses)
	}
	return nil
}

const maxAnswer = 64 << 10

type loader struct {
	load
	ctx     context.Context
	begun   time.Time
	epoll   int
	addrs   []syscall.SockaddrInet4
	conns   []*conn
	free    []*conn
	busy    int
	queue   []time.Duration // due and not sent
	queueAt int
	out     report
}

// times is run, to its end or until so many requests have been answered, all of them with 200.
func (l load) times(ctx context.Context, count int) (report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n, inner := 0, l.answered
	l.answered = func(c *conn, a answer) bool {
		if n++; n >= count {
			cancel()
		}
		return inner != nil && inner(c, a)
	}
	r, err := l.run(ctx)
	if n < count {
		return r, fmt.Errorf("%d of %d requests were answered: %w", n, count, err)
	}
	return r, r.only(200)
}

// run drives the load to its end. Requests that are under way then have until their patience ends.
func (l load) run(ctx context.Context) (report, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if l.core > 0 {
		defer stayOn(l.core - 1)()
	}
	if l.patience == 0 {
		l.patience = 10 * time.Second
	}
	d := &loader{load: l, ctx: ctx}
	d.out.status = make(map[int]int)
	d.out.micros = make([]uint32, 0, 1<<16)
	var err error
	if d.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return report{}, err
	}
	defer syscall.Close(d.epoll)
	for _, t := range l.targets {
		at, err := netip.ParseAddrPort(t)
		if err != nil {
			return report{}, err
		}
		d.addrs = append(d.addrs, syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	}
	for i := range l.conns {
		c := &conn{index: i, target: i % len(l.targets), fd: -1, in: make([]byte, maxAnswer)}
		d.conns = append(d.conns, c)
	}
	defer func() {
		for _, c := range d.conns {
			d.hangUp(c)
		}
	}()
	for _, c := range slices.Backward(d.conns) {
		// Before the clock starts: making them when they are needed is a storm of them as soon as answers are late, which then
		// are late because of the storm.
		if err := d.dial(c); err != nil {
			return report{}, err
		}
		d.free = append(d.free, c)
	}
	time.Sleep(time.Duration(l.conns) * 100 * time.Microsecond) // until the other side has taken them in
	before := threadTime()
	d.begun = time.Now()
	d.out.begun, d.out.patience = d.begun, l.patience
	d.loop()
	d.out.client = threadTime() - before
	return d.out, ctx.Err()
}

func (d *loader) loop() {
	events := make([]syscall.EpollEvent, 256)
	interval := time.Duration(0)
	if d.rate > 0 {
		interval = time.Duration(float64(time.Second) / d.rate)
	}
	nextDue, nextLook := time.Duration(0), 100*time.Millisecond
	for {
		now := time.Since(d.begun)
		running := now < d.duration && d.ctx.Err() == nil
		if !running && d.out.seconds == 0 {
			d.out.seconds = now.Seconds()
		}
		if now >= nextLook {
			d.giveUp(now)
			nextLook = now + 100*time.Millisecond
		}
		wait := 50 * time.Millisecond
		switch {
		case !running && d.busy == 0:
			d.out.dropped += len(d.queue) - d.queueAt
			return
		case interval > 0 && running:
			for nextDue <= now {
				if d.backlog > 0 && len(d.queue)-d.queueAt >= d.backlog {
					d.out.dropped++
				} else {
					d.queue = append(d.queue, nextDue)
				}
				nextDue += interval
			}
			d.sendDue()
			wait = min(wait, max(nextDue-time.Since(d.begun), 0))
		case interval == 0 && running:
			for range len(d.free) { // one that fails at once is back in the list, for the next time round
				d.ask(d.takeFree(), now)
			}
		}
		n := epollWait(d.epoll, events, wait)
		for _, e := range events[:n] {
			d.handle(d.conns[e.Fd], e.Events)
		}
	}
}

func (d *loader) takeFree() *conn {
	n := len(d.free) - 1
	c := d.free[n]
	d.free = d.free[:n]
	return c
}

// sendDue sends what is due on connections that are free.
func (d *loader) sendDue() {
	for n := len(d.free); n > 0 && d.queueAt < len(d.queue); n-- {
		d.ask(d.takeFree(), d.queue[d.queueAt])
		d.queueAt++
	}
	if d.queueAt == len(d.queue) {
		d.queue, d.queueAt = d.queue[:0], 0
	}
}

// ask sends a connection's next request.
func (d *loader) ask(c *conn, due time.Duration) {
	if c.fd < 0 && d.dial(c) != nil {
		d.lose(c)
		return
	}
	c.out, c.outAt = d.next(c, c.out[:0]), 0
	c.state, c.due, c.sentAt, c.inEnd = connBusy, due, time.Since(d.begun), 0
	d.busy++
	d.write(c)
}

func (d *loader) write(c *conn) {
	for c.outAt < len(c.out) {
		n, err := syscall.Write(c.fd, c.out[c.outAt:])
		switch err {
		case nil:
			c.outAt += n
		case syscall.EINTR:
		case syscall.EAGAIN:
			return // an event tells when it goes on; a fresh connection comes here too
		default:
			d.breaks(c)
			return
		}
	}
}

func (d *loader) handle(c *conn, events uint32) {
	if c.fd < 0 {
		return
	}
	if events&syscall.EPOLLOUT != 0 && c.state == connBusy && c.outAt < len(c.out) {
		d.write(c)
	}
	if c.fd < 0 || events&(syscall.EPOLLIN|syscall.EPOLLHUP|syscall.EPOLLERR|syscall.EPOLLRDHUP) == 0 {
		return
	}
	if c.inEnd == len(c.in) {
		d.breaks(c)
		return
	}
	n, err := syscall.Read(c.fd, c.in[c.inEnd:])
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return
	case err != nil || n == 0:
		d.breaks(c)
		return
	}
	c.inEnd += n
	if c.state != connBusy {
		d.hangUp(c) // nobody has asked for anything
		return
	}
	head, whole, closes, ok := scanAnswer(c.in[:c.inEnd])
	if !ok || c.inEnd < whole {
		return
	}
	now := time.Since(d.begun)
	status := int(c.in[9]-'0')*100 + int(c.in[10]-'0')*10 + int(c.in[11]-'0')
	a := answer{status: status, head: c.in[:head], due: c.due, took: now - c.due}
	d.busy--
	c.state = connFree
	if closes {
		d.hangUp(c)
	}
	more := d.answered != nil && d.answered(c, a)
	d.out.requests++
	d.out.status[status]++
	d.out.micros = append(d.out.micros, uint32(min(a.took/time.Microsecond, math.MaxUint32)))
	if d.journal {
		d.out.entries = append(d.out.entries, entry{a.due, a.took, status, c.kind, c.target})
	}
	switch {
	case more:
		d.ask(c, now)
	case d.rate == 0 && now < d.duration && d.ctx.Err() == nil:
		d.ask(c, now)
	default:
		d.free = append(d.free, c)
	}
}

// breaks ends a connection that can not go on. A request under way is lost.
func (d *loader) breaks(c *conn) {
	d.hangUp(c)
	if c.state == connBusy {
		d.busy--
		c.state = connFree
		d.lose(c)
	}
}

func (d *loader) lose(c *conn) {
	d.out.lost++
	if d.journal {
		d.out.entries = append(d.out.entries, entry{c.due, time.Since(d.begun) - c.due, 0, c.kind, c.target})
	}
	c.step = 0
	d.free = append(d.free, c)
}

// giveUp loses the requests whose patience has ended.
func (d *loader) giveUp(now time.Duration) {
	for _, c := range d.conns {
		if c.state == connBusy && now-c.sentAt > d.patience {
			d.breaks(c)
		}
	}
}

func (d *loader) dial(c *conn) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) // only faster
	if err := syscall.Connect(fd, &d.addrs[c.target]); err != nil && err != syscall.EINPROGRESS {
		syscall.Close(fd)
		return err
	}
	// Edge-triggered: one read per event is enough, since it asks for more than an answer holds.
	e := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edgeTriggered, Fd: int32(c.index)}
	if err := syscall.EpollCtl(d.epoll, syscall.EPOLL_CTL_ADD, fd, &e); err != nil {
		syscall.Close(fd)
		return err
	}
	c.fd = fd
	return nil
}

const edgeTriggered = 1 << 31

func (d *loader) hangUp(c *conn) {
	if c.fd >= 0 {
		syscall.Close(c.fd)
		c.fd = -1
	}
}

// epollWait waits with a resolution of nanoseconds. The runtime is not told that it waits: a thread beside this one would be busy
// with taking its processor away and giving it back.
func epollWait(fd int, events []syscall.EpollEvent, wait time.Duration) int {
	const epollPwait2 = 441 // the same on every architecture; Linux 5.11
	limit := syscall.NsecToTimespec(int64(wait))
	n, _, errno := syscall.RawSyscall6(epollPwait2, uintptr(fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(unsafe.Pointer(&limit)), 0, 0)
	switch errno {
	case 0:
		return int(n)
	case syscall.ENOSYS:
		n, _ := syscall.EpollWait(fd, events, int((wait+time.Millisecond-1)/time.Millisecond))
		return max(n, 0)
	}
	return 0
}

// stayOn keeps this thread on one core, until what it returns is called.
func stayOn(core int) (release func()) {
	var before, mask [16]uint64
	mask[core/64] = 1 << (core % 64)
	affinity := func(call uintptr, m *[16]uint64) {
		// An error leaves the thread where it may run, which the figures then show.
		_, _, _ = syscall.RawSyscall(call, 0, unsafe.Sizeof(*m), uintptr(unsafe.Pointer(m)))
	}
	affinity(syscall.SYS_SCHED_GETAFFINITY, &before)
	affinity(syscall.SYS_SCHED_SETAFFINITY, &mask)
	return func() { affinity(syscall.SYS_SCHED_SETAFFINITY, &before) }
}

// threadTime is the CPU time of this thread in seconds.
func threadTime() float64 {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if syscall.Getrusage(thread, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// scanAnswer finds the end of the head and of the whole answer, and whether the connection ends with it.
// It reports false as long as the head has not come, or a body in chunks has not ended.
func scanAnswer(b []byte) (head, whole int, closes, ok bool) {
	if len(b) < 16 {
		return 0, 0, false, false
	}
	length := 0
	// Line by line, by the first byte of each: Connection, Content-Length and Transfer-Encoding matter.
	at := indexNewline(b, 0)
	for at >= 0 && at+1 < len(b) {
		start := at + 1
		if b[start] == '\r' {
			if start+1 >= len(b) {
				return 0, 0, false, false
			}
			head = start + 2
			if length < 0 {
				end := b[head:]
				if len(end) < 5 || string(end[len(end)-5:]) != "0\r\n\r\n" {
					return 0, 0, false, false
				}
				return head, len(b), closes, true
			}
			return head, head + length, closes, true
		}
		end := indexNewline(b, start)
		if end < 0 {
			return 0, 0, false, false
		}
		switch line := b[start : end-1]; line[0] | 0x20 {
		case 'c':
			if v, ok := valueOf(line, "content-length: "); ok {
				length = 0
				for _, digit := range v {
					length = length*10 + int(digit-'0')
				}
			} else if v, ok := valueOf(line, "connection: "); ok {
				closes = len(v) > 0 && v[0]|0x20 == 'c'
			}
		case 't':
			if _, ok := valueOf(line, "transfer-encoding: "); ok {
				length = -1
			}
		}
		at = end
	}
	return 0, 0, false, false
}

func indexNewline(b []byte, from int) int {
	for i := from; i < len(b); i++ {
		if b[i] == '\n' {
			return i
		}
	}
	return -1
}

func valueOf(line []byte, name string) ([]byte, bool) {
	if len(line) < len(name) {
		return nil, false
	}
	for i := range len(name) {
		if line[i]|0x20 != name[i] && line[i] != name[i] {
			return nil, false
		}
	}
	return line[len(name):], true
}

// --- visitors -------------------------------------------------------------------------------

// spread walks over n things so that each comes once, far from the one before.
type spread struct{ n, step, at int }

func newSpread(n int) *spread {
	step := int(float64(n)*0.6180339887)/2*2 + 1
	for n > 1 && !coprime(step, n) {
		step += 2
	}
	return &spread{n: n, step: step % max(n, 1)}
}

func coprime(a, b int) bool {
	for b != 0 {
		a, b = b, a%b
	}
	return a == 1
}

func (s *spread) next() int {
	s.at += s.step
	if s.at >= s.n {
		s.at -= s.n
	}
	return s.at
}

// mix makes 16 bytes that look random of a number, the same each time.
func mix(seed, n uint64) (out [16]byte) {
	for i := range 2 {
		z := seed + n*2*0x9e3779b97f4a7c15 + uint64(i)*0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(out[8*i:], z^z>>31)
	}
	return out
}
