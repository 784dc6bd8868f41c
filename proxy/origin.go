package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// An originFault is why the origin did not answer properly, as the metrics name it.
type originFault string

const (
	faultConnect originFault = "connect" // no connection
	faultTimeout originFault = "timeout" // no byte in time
	faultClosed  originFault = "closed"  // the connection ended before the head of the response
	faultAnswer  originFault = "answer"  // what came was no HTTP response
	faultCut     originFault = "cut"     // the response ended before its body did
	faultFiles   originFault = "files"   // this node has no descriptor for a connection
)

var originFaults = [...]originFault{faultConnect, faultTimeout, faultClosed, faultAnswer, faultCut, faultFiles}

// An originError is a fault and what lay behind it.
type originError struct {
	fault originFault
	err   error
}

func (e *originError) Error() string { return "origin: " + string(e.fault) + ": " + e.err.Error() }
func (e *originError) Unwrap() error { return e.err }

// status is what the visitor is told.
func (e *originError) status() int {
	switch e.fault {
	case faultTimeout:
		return 504
	case faultFiles:
		return 503
	}
	return 502
}

const (
	maxOriginHead = 32 << 10         // bytes of a response's head
	maxIdle       = 4 * time.Second  // below the 5 s after which many origins hang up themselves
	maxAge        = 60 * time.Second // so that a changed address is found even under load
	maxIdleConns  = 512
)

// origin is the site behind the proxy: how to reach it, and the connections to it.
type origin struct {
	address string // host:port; the host is resolved at every dial
	tls     *tls.Config
	connect time.Duration
	timeout time.Duration
	metrics *metrics
	log     *slog.Logger
	down    atomic.Bool // the last dial failed; logged when it changes
	may     func() bool // whether a connection may be made; nil: always
	stop    chan struct{}
	stopped sync.Once

	mu   sync.Mutex
	all  map[*originConn]struct{}
	idle []*originConn // the one used last is at the end
}

func newOrigin(cfg Config, m *metrics, log *slog.Logger) *origin {
	o := &origin{
		address: backendAddress(cfg.Backend), connect: cfg.BackendConnectTimeout, timeout: cfg.BackendTimeout, metrics: m, log: log,
		stop: make(chan struct{}), all: make(map[*originConn]struct{}),
	}
	if cfg.Backend.Scheme == "https" {
		o.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if cfg.BackendTLS != nil {
			o.tls = cfg.BackendTLS.Clone()
		}
		if o.tls.ServerName == "" {
			o.tls.ServerName = cfg.Backend.Hostname()
		}
		o.tls.MinVersion = max(o.tls.MinVersion, tls.VersionTLS12)
		o.tls.NextProtos = []string{"http/1.1"}
		o.tls.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	return o
}

func backendAddress(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
		if u.Scheme == "https" {
			port = "443"
		}
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// An originConn is one connection to the origin. One request uses it at a time.
type originConn struct {
	net.Conn          // TCP, or TLS over it
	raw      net.Conn // the TCP connection
	origin   *origin
	reader   *bufio.Reader
	timeout  time.Duration
	born     time.Time
	idleFrom time.Time
	reused   bool
	unread   []byte // what a loop has read

	reading, writing deadline
	probe            *probe

	// patient is set while a request body is on its way: until its end nobody can expect the
	// response, so reading has no deadline. Whoever clears it sets one.
	patient atomic.Bool
}

// Read fails when the origin has sent nothing for the time-out.
func (c *originConn) Read(p []byte) (int, error) {
	if len(c.unread) > 0 {
		n := copy(p, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	if !c.patient.Load() {
		if err := c.reading.move(c.timeout, c.Conn.SetReadDeadline); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(p)
}

// Write fails when the origin has taken nothing for the time-out.
func (c *originConn) Write(p []byte) (int, error) {
	if c.Conn != c.raw {
		return c.Conn.Write(p) // see pacedConn
	}
	return writeProgress(c.Conn, &c.writing, p, c.timeout, &flow{})
}

// CloseWrite ends our side of a tunnel.
func (c *originConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// wait lets reading wait for as long as a request body takes.
func (c *originConn) wait() {
	c.reading.forget()
	_ = c.Conn.SetReadDeadline(time.Time{})
	c.patient.Store(true)
}

// hurry ends wait: from now on the origin has d for the next byte.
func (c *originConn) hurry(d time.Duration) {
	c.patient.Store(false)
	c.reading.forget()
	_ = c.Conn.SetReadDeadline(time.Now().Add(d))
}

// get returns a connection, one that has been used before when fresh is not asked for.
func (o *origin) get(ctx context.Context, fresh bool) (*originConn, error) {
	for !fresh {
		c := o.popIdle()
		if c == nil {
			break
		}
		if now := time.Now(); now.Sub(c.born) < maxAge && now.Sub(c.idleFrom) < maxIdle && !c.probe.stale() {
			c.reused = true
			c.attach()
			return c, nil
		}
		o.discard(c)
	}
	return o.dial(ctx)
}

func (o *origin) popIdle() *originConn {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.idle) - 1
	if n < 0 {
		return nil
	}
	c := o.idle[n]
	o.idle[n] = nil
	o.idle = o.idle[:n]
	return c
}

// dial makes a connection. Names are resolved here, so each dial follows a changed address.
func (o *origin) dial(ctx context.Context) (*originConn, error) {
	raw, conn, err := o.connection(ctx)
	if err != nil {
		return nil, err
	}
	return o.newConn(raw, conn, time.Now()), nil
}

// connection makes a connection: TCP, and TLS over it where the origin speaks that. It is counted from its first moment; whoever
// closes it takes it back.
func (o *origin) connection(ctx context.Context) (raw, conn net.Conn, err error) {
	o.metrics.originConns.Inc()
	made := false
	defer func() {
		if made {
			return
		}
		o.metrics.originConns.Dec()
		if raw != nil { // not by an error, but by a defect
			_ = raw.Close()
		}
	}()
	if o.may != nil && !o.may() {
		return nil, nil, &originError{faultFiles, errNoDescriptors}
	}
	ctx, cancel := context.WithTimeout(ctx, o.connect)
	defer cancel()
	if raw, err = (&net.Dialer{}).DialContext(ctx, "tcp", o.address); err != nil {
		return nil, nil, o.unreachable(err)
	}
	conn = raw
	if o.tls != nil {
		secure := tls.Client(&pacedConn{Conn: raw, stall: o.timeout}, o.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, nil, o.unreachable(err)
		}
		conn = secure
	}
	if o.down.CompareAndSwap(true, false) {
		o.log.Info("origin is back", "address", o.address)
	}
	made = true
	return raw, conn, nil
}

func (o *origin) newConn(raw, conn net.Conn, born time.Time) *originConn {
	c := &originConn{Conn: conn, raw: raw, origin: o, timeout: o.timeout, born: born, probe: newProbe(raw)}
	c.attach()
	o.mu.Lock()
	o.all[c] = struct{}{}
	o.mu.Unlock()
	return c
}

// adopt takes in a connection that a loop has used, with what has been read from it and not passed on. It is counted already.
func (o *origin) adopt(conn net.Conn, born time.Time, unread []byte) *originConn {
	c := o.newConn(conn, conn, born)
	c.unread = append(c.unread, unread...)
	return c
}

func (o *origin) unreachable(err error) error {
	if o.down.CompareAndSwap(false, true) {
		o.log.Warn("origin is unreachable", "address", o.address, "err", err)
	}
	return &originError{faultConnect, err}
}

var originReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, maxOriginHead) }}

// attach gives the connection a reader, which it has while a request uses it.
func (c *originConn) attach() {
	c.reader = originReaders.Get().(*bufio.Reader)
	c.reader.Reset(c)
}

func (c *originConn) detach() {
	if c.reader != nil {
		c.reader.Reset(nil)
		originReaders.Put(c.reader)
		c.reader = nil
	}
}

// put keeps a connection for the next request. The caller has read the whole response, and
// nothing but it.
func (o *origin) put(c *originConn) {
	if c.reader.Buffered() > 0 || c.patient.Load() {
		o.discard(c)
		return
	}
	c.detach()
	c.idleFrom = time.Now()
	o.mu.Lock()
	_, ours := o.all[c] // closeAll may have run
	keep := ours && len(o.idle) < maxIdleConns
	if keep {
		o.idle = append(o.idle, c)
	}
	o.mu.Unlock()
	if !keep {
		o.discard(c)
	}
}

// discard closes a connection that get or dial returned. Nobody may be reading from it.
func (o *origin) discard(c *originConn) {
	o.mu.Lock()
	_, ours := o.all[c]
	delete(o.all, c)
	o.mu.Unlock()
	if secure, ok := c.Conn.(*tls.Conn); ok {
		secure.NetConn().(*pacedConn).finish(lastWords)
	}
	_ = c.Conn.Close()
	if ours {
		o.metrics.originConns.Dec()
	}
	c.detach()
}

// sweep closes connections that have been idle for too long, until wake.
func (o *origin) sweep(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			o.closeIdle()
		case <-o.stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (o *origin) wake() { o.stopped.Do(func() { close(o.stop) }) }

func (o *origin) closeIdle() {
	var old []*originConn
	o.mu.Lock()
	for len(o.idle) > 0 && time.Since(o.idle[0].idleFrom) >= maxIdle {
		old = append(old, o.idle[0])
		o.idle = o.idle[1:]
	}
	o.mu.Unlock()
	for _, c := range old {
		o.discard(c)
	}
}

// closeAll closes every connection, also those in use, whose requests end with an error.
func (o *origin) closeAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.all {
		_ = c.raw.Close()
	}
	for range o.all {
		o.metrics.originConns.Dec()
	}
	clear(o.all)
	o.idle = nil
}

// asOriginError says what an error of reading from the origin means; ended is the fault when
// the connection is over.
func asOriginError(err error, ended originFault) *originError {
	var known *originError
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &originError{faultTimeout, err}
	case errors.As(err, new(badResponse)):
		return &originError{faultAnswer, err}
	}
	return &originError{ended, err}
}
