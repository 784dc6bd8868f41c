package cluster

import (
	"sync/atomic"
	"time"
)

// clusterClock tells cluster time on one node: the leader's clock at the newest entry plus the
// monotonic time since. It never runs back, and it goes on while the node is cut off (I5). An
// entry that comes late would set it back; the furthest reading counts.
type clusterClock struct {
	start  time.Time    // any moment of this process; carries the monotonic reading
	offset atomic.Int64 // cluster time at start, Unix milliseconds; 0: no entry seen yet
}

func newClusterClock() *clusterClock { return &clusterClock{start: time.Now()} }

func (c *clusterClock) monotonic() int64 { return time.Since(c.start).Milliseconds() }

// now is cluster time in Unix milliseconds. Before the first entry it is this node's own clock.
func (c *clusterClock) now() int64 {
	if offset := c.offset.Load(); offset != 0 {
		return offset + c.monotonic()
	}
	return time.Now().UnixMilli()
}

// observe takes in the time of an entry that was just applied.
func (c *clusterClock) observe(now int64) {
	offset := now - c.monotonic()
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
