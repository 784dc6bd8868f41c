package proxy

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// File descriptors are shared by all of a process. Were clients free to take the last one, the node could neither open a snapshot
// nor reach its peers, and a flood of connections would be an election. So clients have a share (Config.MaxConns), and what is
// left of Config.MaxDescriptors is for connections to the origin; the rest of the process has what is beyond that.
//
// Where a share is used up, connections that nobody uses go first: the one that was idle for the longest time among a few, of
// somebody who is not inside if there is one. A connection that has just come is given idleGrace to say what it wants,
// since the next flood would push out everybody who is slower than it.

// A counted is a gauge that owr reads itself.
type counted struct {
	prometheus.Gauge
	n atomic.Int64
}

// Inc adds one.
func (c *counted) Inc() {
	c.n.Add(1)
	c.Gauge.Inc()
}

// Dec takes one away.
func (c *counted) Dec() {
	c.n.Add(-1)
	c.Gauge.Dec()
}

// lent is how many descriptors of the rest of the process a burst of requests may use before idle clients have given theirs.
const lent = 16

var errNoDescriptors = errors.New("no descriptor is free for it")

// mayDial reports whether a connection to the origin, which is counted already, may be made. In want of descriptors it has idle clients give theirs.
func (s *Server) mayDial() bool {
	most := int64(s.cfg.MaxDescriptors)
	if most == 0 {
		return true
	}
	missing := int64(s.conns.count()) + s.metrics.originConns.n.Load() - most
	if missing <= 0 {
		return true
	}
	if !s.conns.closeIdle() {
		s.askForRoom()
	}
	if missing <= lent {
		return true
	}
	s.metrics.limited[limitDescriptors].Inc()
	return false
}

// closeIdle closes one idle connection among a few that goroutines have, and reports whether there was one.
func (cs *clientConns) closeIdle() bool {
	cs.mu.Lock()
	var some []*clientConn
	for c := range cs.all { // in random order
		if some = append(some, c); len(some) == idleLooks {
			break
		}
	}
	cs.mu.Unlock()
	for _, c := range some {
		if time.Since(c.born) >= idleGrace && c.state.CompareAndSwap(connIdle, connClosed) {
			c.cut() // whoever accepts connections can not wait for a last word over TLS
			return true
		}
	}
	return false
}

const (
	idleLooks = 16          // among how many connections one is chosen
	idleGrace = time.Second // how long a connection may be idle before another one may take its place
)
