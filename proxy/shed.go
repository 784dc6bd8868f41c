package proxy

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A shedder turns arrivals away while the cluster cannot keep up with them, so that those it takes are answered in time and
// those inside notice nothing. It watches how long decisions take, as CoDel watches a queue (RFC 8289): a burst makes some of
// them wait, an election all that were under way, but only an overload makes the luckiest of one interval after the other wait
// for longer than target. Then a growing share of the arrivals is told to come back, and a smaller one again for
// each interval that was better, however few were decided in it.
//
// Who has a place or a slot is never turned away. Any number of callers.
type shedder struct {
	now    func() time.Time
	random func() float64
	share  atomic.Int32 // of the arrivals, in percent

	mu    sync.Mutex
	begun time.Time     // of the interval
	least time.Duration // the shortest wait in it; 0: nothing was decided yet
	bad   int           // intervals in a row that were over target
}

const (
	shedInterval = 250 * time.Millisecond
	shedTarget   = 500 * time.Millisecond
	shedAfter    = 2  // bad intervals in a row
	shedStep     = 15 // percent
	shedMost     = 90 // somebody has to be decided, or nobody would see that it is over
)

func newShedder() *shedder { return &shedder{now: time.Now, random: rand.Float64, begun: time.Now()} }

// turnsAway reports whether the next arrival has to come back later.
func (s *shedder) turnsAway() bool {
	if s.share.Load() == 0 {
		return false
	}
	s.mu.Lock()
	if s.now().Sub(s.begun) > 4*shedInterval {
		s.turn(0) // nobody has come for a while
	}
	s.mu.Unlock()
	return s.random()*100 < float64(s.share.Load())
}

// took takes in how long a decision has taken, or was waited for in vain.
func (s *shedder) took(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.least == 0 || d < s.least {
		s.least = max(d, 1)
	}
	if s.now().Sub(s.begun) >= shedInterval {
		s.turn(s.least)
	}
}

// feel is took for what is seen all the time and mostly nothing: while all is well it costs next to nothing.
func (s *shedder) feel(d time.Duration) {
	if d > 0 || s.share.Load() > 0 {
		s.took(d)
	}
}

// turn ends an interval; s.mu is held.
func (s *shedder) turn(least time.Duration) {
	share := s.share.Load()
	if least <= shedTarget {
		s.bad = 0
		intervals := 1
		if least > 0 { // where few are taken the next decision may be long in coming; what it shows goes for the time since the last one
			intervals = max(1, int(s.now().Sub(s.begun)/shedInterval))
		}
		for range min(intervals, shedMost) {
			share = share * 3 / 4
		}
		s.share.Store(share)
	} else if s.bad++; s.bad >= shedAfter {
		s.share.Store(min(share+shedStep, shedMost))
	}
	s.begun, s.least = s.now(), 0
}

// patience is how much longer than usual those who wait are asked to stay away: up to four times.
func (s *shedder) patience() float64 { return 1 + 3*float64(s.share.Load())/100 }
