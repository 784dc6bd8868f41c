package proxy

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// A flow is one direction of a client's connection, and the least that the client has to send or take: so many bytes a second on
// average over window. Only the time that we have waited for the client counts, so an answer that comes in drops, or an origin
// that is slow itself, is no slowness of the client's. One goroutine; the zero value asks for nothing.
type flow struct {
	least  int64 // bytes a second; 0: no limit
	window time.Duration
	waited time.Duration // since the last look
	moved  int64         // bytes in that time
}

// errTooSlow ends a client's body, or an answer that it reads.
var errTooSlow = fmt.Errorf("slower than the least rate: %w", os.ErrDeadlineExceeded)

// restart forgets what has been. Each request body is looked at by itself: a client far away waits for a way there and back with each of many
// small ones, and would be too slow with all of them together.
func (f *flow) restart() { f.waited, f.moved = 0, 0 }

// begin is the time at which a wait for the client begins. It is zero where nobody wants to know.
func (f *flow) begin() time.Time {
	if f.least == 0 {
		return time.Time{}
	}
	return time.Now()
}

// end takes in that n bytes have moved since begin, and reports errTooSlow once a window is over in which they were too few.
func (f *flow) end(begun time.Time, n int) error {
	if f.least == 0 {
		return nil
	}
	f.waited += time.Since(begun)
	f.moved += int64(n)
	if f.waited < f.window {
		return nil
	}
	slow := float64(f.moved) < float64(f.least)*f.waited.Seconds()
	f.waited, f.moved = 0, 0
	if slow {
		return errTooSlow
	}
	return nil
}

// tooSlow counts a connection that is ended because its client makes too little progress, or none.
func (m *metrics) tooSlow(err error) {
	switch {
	case errors.Is(err, errTooSlow):
		m.limited[limitRate].Inc()
	case errors.Is(err, os.ErrDeadlineExceeded):
		m.limited[limitStall].Inc()
	}
}
