package cluster

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// watchSteps is into how many parts the limit of a write is cut. A process that is stopped, or whose machine is moved, in the middle of a
// write comes back to one timer that is due, and has time left for the others; one timer for the whole limit would take the
// pause for a disk that hangs.
const watchSteps = 10

// watch ends the node when a write takes longer than the limit; the function it returns ends the watch.
//
// A leader whose disk hangs commits nothing, but the library's heartbeats come from other goroutines and go on, so nobody
// stands for election (hashicorp/raft issues 503, 612 and 614). The end of the node cuts its connections first (port.cut):
// the others hear nothing more and elect, while the process may still be waiting for its disk.
func (s *store) watch(doing string) (done func()) {
	var ended atomic.Bool
	var timer *time.Timer
	step, left := s.limit/watchSteps, watchSteps
	timer = time.AfterFunc(math.MaxInt64, func() {
		if left--; left > 0 {
			if timer.Reset(step); ended.Load() {
				timer.Stop()
			}
			return
		}
		if !ended.Load() {
			s.fail(fmt.Errorf("%s %s: not done after %v: the disk hangs; mend or replace it, then start the node again; "+
				"nothing that was told to a visitor is lost", doing, s.path, s.limit))
		}
	})
	timer.Reset(step)
	return func() {
		ended.Store(true)
		timer.Stop()
	}
}
