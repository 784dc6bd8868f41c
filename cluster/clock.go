package cluster

import (
	"sync/atomic"
	"time"
)

// clusterClock tells cluster time on one node: the leader's clock at the newest entry plus the
// monotonic time since. It never runs back, and it goes on while the node is cut off (I5). An
// entry that comes late would set it back; the furthest reading counts.
type clusterClock struct {
	wall   func() time.Time // this node's own clock, with a monotonic reading
	start  time.Time        // any moment of this process
	offset atomic.Int64     // cluster time at start, Unix milliseconds; 0: no entry seen yet
	heard  atomic.Int64     // milliseconds from start to when the newest entry was seen
}

func newClusterClock(wall func() time.Time) *clusterClock {
	return &clusterClock{wall: wall, start: wall()}
}

func (c *clusterClock) monotonic() int64 { return c.wall().Sub(c.start).Milliseconds() }

// now is cluster time in Unix milliseconds. Before the first entry it is this node's own clock.
func (c *clusterClock) now() int64 {
	if offset := c.offset.Load(); offset != 0 {
		return offset + c.monotonic()
	}
	return c.wall().UnixMilli()
}

// heardAt is when the newest entry was seen, by this node's own clock.
func (c *clusterClock) heardAt() time.Time {
	return c.start.Add(time.Duration(c.heard.Load()) * time.Millisecond)
}

// observe takes in the time of an entry that was just applied. One goroutine.
func (c *clusterClock) observe(now int64) {
	at := c.monotonic()
	c.heard.Store(at)
	offset := now - at
	for {
		old := c.offset.Load()
		if old != 0 && old >= offset {
			return
		}
		if c.offset.CompareAndSwap(old, offset) {
			return
		}
	}
}
