// Package proxy is owr's public side: it decides for every request whether its visitor may
// pass, forwards those who may to the origin, and tells the others where they stand.
//
// The decision reads this node's replica of the queue and waits for the cluster only when the
// visitor's state has to change (gate.go). Everything that is forwarded is streamed.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// A Server is one public listener, or several with the same settings.
type Server struct {
	cfg     Config
	room    Room
	log     *slog.Logger
	metrics *metrics
	http    *fasthttp.Server
	tls     *tls.Config // nil: plain HTTP
	turns   *turns      // of handshakes
	origin  *origin
	pages   *pages
	pace    pace
	limits  *edgeLimits
	shed    *shedder // by how long decisions take
	crowd   *shedder // by how long requests are parked
	outage  *outage
	stays   *stays   // nil: no limit
	bind    *binding // nil: off
	pow     *pow     // nil: off

	mainPath     string // MainURL when it is on this host, else "/"
	secureCookie bool   // the cookie's name demands Secure

	base     context.Context // ends when a shutdown runs out of time
	cancel   context.CancelFunc
	draining atomic.Bool // new answers close their connections
	notReady atomic.Bool // GET /wr_ready says draining

	conns     clientConns
	work      sync.WaitGroup // accept loops, connections, tunnels, and the origin's sweeper
	loops     []*loop
	nextLoop  atomic.Uint32
	loopWork  sync.WaitGroup
	starter   sync.Once // of the origin's sweeper and the loops
	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	closed    bool          // mu
	closing   chan struct{} // closed with the first Shutdown
}

// New makes a Server. It serves nothing and starts nothing until Serve.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("proxy: register metrics: %w", err)
	}
	s := &Server{
		cfg: cfg, room: cfg.Room, log: cfg.Logger, metrics: m, mainPath: "/",
		secureCookie: strings.HasPrefix(cfg.CookieName, "__Host-") || strings.HasPrefix(cfg.CookieName, "__Secure-"),
		listeners:    make(map[net.Listener]struct{}), closing: make(chan struct{}),
	}
	if strings.HasPrefix(cfg.MainURL, "/") {
		s.mainPath = cfg.MainURL
	}
	if s.pages, err = newPages(cfg); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	s.pace = newPace(cfg)
	s.tls, s.turns = serverTLS(cfg.TLS), newTurns(cfg.Loops)
	s.origin = newOrigin(cfg, m, s.log)
	s.limits = newEdgeLimits(&cfg)
	s.shed, s.crowd = newShedder(), newShedder()
	s.outage = &outage{perMinute: float64(cfg.NoQuorumPerMinute), room: cfg.Room, now: time.Now, log: cfg.Logger, admitted: m.apart}
	if s.stays, err = newStays(cfg.VisitorConcurrency, cfg.Registerer); err != nil {
		return nil, fmt.Errorf("proxy: register metrics: %w", err)
	}
	if s.bind, err = newBinding(cfg.Bind, cfg.Registerer); err != nil {
		return nil, fmt.Errorf("proxy: register metrics: %w", err)
	}
	if s.pow, err = newPow(cfg); err != nil {
		return nil, fmt.Errorf("proxy: register metrics: %w", err)
	}
	s.base, s.cancel = context.WithCancel(context.Background())
	s.conns.all = make(map[*clientConn]struct{})
	s.conns.of = make(map[netip.Addr]int)
	s.conns.most, s.conns.max = cfg.MaxConnsPerIP, cfg.MaxConns
	s.origin.may = s.mayDial
	s.http = s.newHTTP()
	return s, nil
}

// newHTTP sets fasthttp up as a proxy needs it: nothing buffered, nothing added, nothing
// parsed that is not ours to read.
func (s *Server) newHTTP() *fasthttp.Server {
	return &fasthttp.Server{
		Handler:        s.handle,
		ErrorHandler:   s.malformed,
		HeaderReceived: s.headReceived,
		ExpectHandler:  s.expect,
		ConnState:      s.connState,
		Logger:         fasthttpLog{s.log},

		ReadBufferSize: s.cfg.MaxHeader,
		ReadTimeout:    s.cfg.HeaderTimeout,
		IdleTimeout:    s.cfg.IdleTimeout,
		Concurrency:    1 << 30, // file descriptors are the limit

		StreamRequestBody:  true,
		MaxRequestBodySize: 1, // how much is read before the handler runs; no limit when streaming

		DisablePreParseMultipartForm:  true,
		DisableHeaderNamesNormalizing: true,
		NoDefaultServerHeader:         true,
		NoDefaultDate:                 true,
		NoDefaultContentType:          true,
		SecureErrorLogMessage:         true,
	}
}

// Serve accepts connections from l until Shutdown, and closes l. It returns nil after a
// Shutdown. It may be called several times, also at once.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = l.Close()
		return errors.New("proxy: serve: the server has been shut down")
	}
	s.listeners[l] = struct{}{}
	s.work.Add(1)
	s.starter.Do(s.start)
	s.mu.Unlock()
	defer s.work.Done()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		_ = l.Close()
	}()
	if s.tls == nil && !s.cfg.ProxyProtocol && s.loopsAccept(l) {
		<-s.closing
		return nil
	}
	return s.accept(l)
}

// start starts what serves all listeners.
func (s *Server) start() {
	s.work.Go(func() { s.origin.sweep(s.base) })
	if err := s.startLoops(); err != nil {
		s.log.Warn("connections are served by goroutines alone", "err", err)
	}
}

func (s *Server) accept(l net.Listener) error {
	wait := time.Duration(0)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			wait = 0
			s.serveConn(conn)
		case s.draining.Load():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("proxy: accept: %w", err)
		default:
			// Mostly a want of file descriptors, which comes back as requests end.
			if wait == 0 {
				s.log.Error("cannot accept connections", "err", err)
			}
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(wait):
			case <-s.base.Done():
				return nil
			}
		}
	}
}

func (s *Server) serveConn(conn net.Conn) {
	c := s.newClientConn(conn, peerAddr(conn.RemoteAddr()))
	why, ok := s.conns.admit(c.peer, s.countsConns(c.peer))
	if !ok && why == limitConns && s.conns.closeIdle() {
		s.metrics.limited[limitIdle].Inc()
		why, ok = s.conns.admit(c.peer, s.countsConns(c.peer))
	}
	if !ok {
		s.metrics.limited[why].Inc()
		if s.tls == nil { // to say it over TLS would cost what the limit is there to save
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write(unwelcome(why))
		}
		_ = conn.Close()
		return
	}
	serve := s.serveClient
	if s.tls != nil {
		c.secure(s.tls)
		serve = s.serveSecure
	}
	s.conns.own(c)
	s.metrics.connections.Inc()
	if s.draining.Load() {
		c.closeIfIdle() // Shutdown has perhaps not seen it
	}
	if s.introduces(conn) {
		serve = s.introduce
	}
	s.work.Go(func() { s.protect(c, serve) })
}

// countsConns reports whether the connections of an address have a limit. Those without one are many clients, or the health
// checks of a balancer (see proxied).
func (s *Server) countsConns(peer netip.Addr) bool {
	return s.conns.most > 0 && peer.IsValid() && !s.isTrusted(peer)
}

// unwelcome is what a connection gets that is one too many: for its address, or for the node.
func unwelcome(why limitReason) []byte {
	if why == limitAddress {
		return tooManyOfAddress
	}
	return tooManyConns
}

var (
	tooManyOfAddress = []byte("HTTP/1.1 429 Too Many Requests" + unwelcomeFields)
	tooManyConns     = []byte("HTTP/1.1 503 Service Unavailable" + unwelcomeFields)
)

const unwelcomeFields = "\r\nRetry-After: 10\r\nCache-Control: no-store\r\nVary: Cookie\r\nX-Content-Type-Options: nosniff\r\n" +
	"Content-Length: 0\r\nConnection: close\r\n\r\n"

// protect keeps a defect in serving one connection from ending the process.
func (s *Server) protect(c *clientConn, serve func(*clientConn)) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r)
			_ = c.abort()
		}
	}()
	serve(c)
}

func (s *Server) serveClient(c *clientConn) {
	switch s.lane(c) {
	case laneClosed:
		_ = c.Close()
	case laneOther:
		s.serveHTTP(c)
	}
}

func (s *Server) serveHTTP(c *clientConn) {
	defer func() {
		if free := c.onBreak; free != nil {
			free()
		}
	}()
	if err := s.http.ServeConn(c); err != nil {
		s.log.Debug("connection ended", "err", err)
	}
}

func (s *Server) connGone(c *clientConn) {
	s.conns.remove(c)
	s.metrics.connections.Dec()
}

// connState follows fasthttp's view of a connection.
func (s *Server) connState(conn net.Conn, state fasthttp.ConnState) {
	c := conn.(*clientConn)
	switch state {
	case fasthttp.StateActive:
		c.state.CompareAndSwap(connIdle, connActive)
	case fasthttp.StateHijacked:
		c.onBreak = nil // the connection is another goroutine's, and what it needs with it
	case fasthttp.StateIdle:
		c.linger.Store(false)
		c.intake.next()
		c.state.CompareAndSwap(connActive, connIdle)
		if s.draining.Load() {
			c.closeIfIdle()
		}
	}
}

// Drain makes GET /wr_ready answer 503, so that load balancers stop sending visitors here.
// Requests are served as before.
func (s *Server) Drain() { s.notReady.Store(true) }

// Shutdown stops accepting, lets requests under way finish, and closes idle connections. When
// ctx ends first, what is left is cut off, tunnels included, and the context's error is
// returned. Either way nothing of the server runs when it returns.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.draining.Store(true)
	s.mu.Lock()
	if !s.closed {
		close(s.closing)
	}
	s.closed = true
	for l := range s.listeners {
		_ = l.Close()
	}
	s.mu.Unlock()
	for _, c := range s.conns.list() {
		if s.tls != nil {
			s.work.Go(func() { c.closeIfIdle() }) // each may wait a moment to say it
		} else {
			c.closeIfIdle()
		}
	}
	s.drainLoops()
	s.origin.wake()

	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
		s.cutOff(done)
	}
	s.cancel()
	s.stopLoops()
	s.origin.closeAll()
	return err
}

// cutOff ends everything that is left. A connection may be accepted or dialed while it looks,
// so it looks again until all is done.
func (s *Server) cutOff(done <-chan struct{}) {
	s.cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		for _, c := range s.conns.list() {
			c.cut()
		}
		s.cutOffLoops()
		s.origin.closeAll()
		select {
		case <-done:
			return
		case <-ticker.C:
		}
	}
}

// caught is deferred: a defect costs the request that has met it, and not the process.
func (s *Server) caught() {
	if r := recover(); r != nil {
		s.panicked(r)
	}
}

func (s *Server) panicked(r any) {
	s.metrics.panics.Inc()
	s.log.Error("a request has met a defect in owr", "panic", r, "stack", string(debug.Stack()))
}

// fasthttpLog passes what fasthttp has to say on. None of it is news to an operator.
type fasthttpLog struct{ log *slog.Logger }

func (l fasthttpLog) Printf(format string, args ...any) {
	l.log.Debug("fasthttp has something to say", "text", fmt.Sprintf(format, args...))
}
