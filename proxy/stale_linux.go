package proxy

import (
	"errors"
	"net"
	"syscall"
)

// A probe looks whether an idle connection has anything to read: its end, which makes it useless, or bytes
// that nobody asked for, which would be taken for the next answer. It is made once for a connection, because
// it is used before every request.
type probe struct {
	raw    syscall.RawConn // nil: it cannot be looked at
	look   func(fd uintptr)
	silent bool // what look found
	one    [1]byte
}

func newProbe(conn net.Conn) *probe {
	p := &probe{}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			p.raw = raw
		}
	}
	p.look = func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), p.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		p.silent = errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
	}
	return p
}

// stale reports whether there is something to read. One goroutine.
func (p *probe) stale() bool {
	return p.raw != nil && (p.raw.Control(p.look) != nil || !p.silent)
}
