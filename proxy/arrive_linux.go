package proxy

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// How clients come to a loop and go from it: accepted there or handed back by a goroutine, handed over to one, or ended.

// loopsAccept has the loops accept the connections of a listener, each from a descriptor of its own, and reports whether they do.
func (s *Server) loopsAccept(listener net.Listener) bool {
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		return false
	}
	accepting := 0
	for _, l := range s.loops {
		fd, err := dupOf(tcp)
		if err != nil {
			s.log.Warn("a loop accepts no connections", "err", err)
			continue
		}
		prepare(fd)
		s.work.Add(1) // until the loop closes it
		if !l.post(func() { l.listen(fd) }) {
			panic("owr: a loop has ended before its listener") // Shutdown stops it after Serve has returned
		}
		accepting++
	}
	return accepting > 0
}

// prepare sets what accepted connections inherit from their listener, to what package net sets for each of them. An error leaves
// connections that are slower or that are missed later when they have gone.
func prepare(fd int) {
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15)
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15)
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 9)
}

func (l *loop) listen(fd int) {
	l.listening = append(l.listening, fd)
	if l.s.draining.Load() {
		l.stopListening()
		return
	}
	l.hear(fd)
}

func (l *loop) hear(fd int) {
	if err := l.add(l.lobby, fd, syscall.EPOLLIN|loopAlone); err != nil {
		panic("owr: epoll: " + err.Error()) // no memory, or the system's limit of watches
	}
	l.files[fd].listens = true
}

func (l *loop) stopListening() {
	for _, fd := range l.listening {
		if fd < len(l.files) {
			l.files[fd] = loopFile{}
		}
		_ = syscall.Close(fd)
		l.s.work.Done()
	}
	l.listening, l.deaf = nil, false
}

// accept takes in new connections, at most so many, and gives them to the loops in turn.
func (l *loop) accept(listener, most int) {
	for range most {
		fd, from, err := syscall.Accept4(listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		switch {
		case err == nil:
			l.s.welcome(l, fd, addrOf(from))
		case errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return
		default:
			// Mostly a want of descriptors, which comes back as requests end.
			l.s.metrics.limited[limitDescriptors].Inc()
			if l.now.Sub(l.logged) >= time.Minute {
				l.logged = l.now
				l.s.log.Error("cannot accept connections", "err", err)
			}
			for _, fd := range l.listening {
				l.release(l.lobby, fd)
			}
			l.deaf = true
			return
		}
	}
}

// addrOf is peerAddr for what the system says.
func addrOf(from syscall.Sockaddr) netip.Addr {
	switch a := from.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrFrom4(a.Addr)
	case *syscall.SockaddrInet6:
		return netip.AddrFrom16(a.Addr).Unmap()
	}
	return netip.Addr{}
}

// goBack gives a connection to a loop again, after something that was not for a loop, and reports whether one has taken it. c is
// of no more use then. Its next request may be so long in coming.
func (s *Server) goBack(c *clientConn, wait time.Duration) bool {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok || len(s.loops) == 0 {
		return false
	}
	fd, err := dupOf(tcp)
	if err != nil {
		return false
	}
	l, peer := s.loops[s.nextLoop.Add(1)%uint32(len(s.loops))], c.peer
	s.conns.disown(c)
	_ = tcp.Close()
	s.work.Add(1) // as in welcome
	if !l.post(func() { l.adopt(fd, peer, wait) }) {
		panic("owr: a loop has ended before its clients") // Shutdown stops it after the last one
	}
	return true
}

// welcome takes in a connection that the loop here has accepted.
func (s *Server) welcome(here *loop, fd int, peer netip.Addr) {
	why, ok := s.conns.admit(peer, s.countsConns(peer))
	if !ok && why == limitConns && (here.makeRoom() || s.conns.closeIdle()) {
		s.metrics.limited[limitIdle].Inc()
		why, ok = s.conns.admit(peer, s.countsConns(peer))
	}
	if !ok {
		s.metrics.limited[why].Inc()
		_, _ = sendTo(fd, unwelcome(why))
		_ = syscall.Close(fd)
		return
	}
	s.metrics.connections.Inc()
	s.work.Add(1) // endClient, or the goroutine that the loop hands it to, ends this
	l := s.loops[s.nextLoop.Add(1)%uint32(len(s.loops))]
	if l == here {
		l.adopt(fd, peer, s.cfg.HeaderTimeout)
	} else if !l.post(func() { l.adopt(fd, peer, s.cfg.HeaderTimeout) }) {
		panic("owr: a loop has ended before its clients") // Shutdown stops it after the last one
	}
}

// askForRoom has a loop close a connection that nobody uses.
func (s *Server) askForRoom() {
	if n := len(s.loops); n > 0 {
		l := s.loops[s.nextLoop.Add(1)%uint32(n)]
		l.post(func() {
			if l.makeRoom() {
				s.metrics.limited[limitIdle].Inc()
			}
		})
	}
}

// makeRoom closes a connection between two requests, or before its first, and reports whether there was one.
func (l *loop) makeRoom() bool {
	var best *loopClient
	for range min(idleLooks, len(l.idle)) {
		c := l.idle[rand.IntN(len(l.idle))]
		switch {
		case l.now.Sub(c.idleFrom) < idleGrace:
		case best == nil, best.inside && !c.inside, best.inside == c.inside && c.idleFrom.Before(best.idleFrom):
			best = c
		}
	}
	if best == nil {
		return false
	}
	l.endClient(best)
	return true
}

// dupOf is another descriptor of a connection or a listener, with which the runtime's poller has nothing to do.
func dupOf(tcp syscall.Conn) (fd int, err error) {
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

// adopt has the loop serve a client from now on. Its next request may be so long in coming.
func (l *loop) adopt(fd int, peer netip.Addr, wait time.Duration) {
	c := &loopClient{fd: fd, peer: peer, deadline: l.now.Add(wait), idleFrom: l.now}
	l.idle.add(c)
	if err := l.add(l.lobby, fd, loopReads); err != nil || l.s.draining.Load() {
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

// endIdle closes the connection of a client that has let its time pass. Who has begun a head hears why.
func (l *loop) endIdle(c *loopClient) {
	if len(c.partial) > 0 {
		l.s.metrics.refused.Inc()
		a := refusalAnswer(408)
		_, _ = sendTo(c.fd, l.s.appendAnswer(nil, &a, false))
	}
	l.endClient(c)
}

// handOver gives a client to a goroutine, with what has been read from it and not served. It reports false, and the client is
// gone, when there is no descriptor for that.
func (l *loop) handOver(c *loopClient, unread []byte, serve func(*clientConn)) bool {
	l.release(l.watcher(c.inside), c.fd)
	conn, err := connOf(c.fd)
	l.forget(c)
	if err != nil {
		l.s.log.Warn("a connection is lost between two pollers", "err", err) // no descriptors left, most likely
		l.s.conns.release(c.peer)
		l.s.metrics.connections.Dec()
		l.s.work.Done()
		return false
	}
	client := l.s.newClientConn(conn, c.peer)
	client.unread = append([]byte(nil), unread...)
	client.state.Store(connActive)
	l.s.conns.own(client)
	l.s.work.Go(func() { l.s.protect(client, serve) })
	l.s.work.Done()
	return true
}

// release ends a loop's part in a descriptor that stays open.
func (l *loop) release(ep, fd int) {
	l.files[fd] = loopFile{}
	_ = syscall.EpollCtl(ep, syscall.EPOLL_CTL_DEL, fd, nil)
}

// drain accepts no more, and closes the clients that wait for nothing; the others follow with their answers.
func (l *loop) drain() {
	l.stopListening()
	for len(l.idle) > 0 {
		if c := l.idle[len(l.idle)-1]; len(c.partial) > 0 {
			l.handOver(c, c.partial, l.s.serveHTTP)
		} else {
			l.endClient(c)
		}
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
