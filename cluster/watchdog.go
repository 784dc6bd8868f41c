package cluster

import (
	"fmt"
	"time"
)

// watch ends the node when a write takes longer than the limit; the function it returns ends the watch.
//
// A leader whose disk hangs commits nothing, but the library's heartbeats come from other goroutines and go on, so nobody
// stands for election (hashicorp/raft issues 503, 612 and 614). The end of the node cuts its connections first (port.cut):
// the others hear nothing more and elect, while the process may still be waiting for its disk.
func (s *store) watch(doing string) (done func()) {
	timer := time.AfterFunc(s.limit, func() {
		s.fail(fmt.Errorf("%s %s: not done after %v: the disk hangs; mend or replace it, then start the node again; "+
			"nothing that was told to a visitor is lost", doing, s.path, s.limit))
	})
	return func() { timer.Stop() }
}
