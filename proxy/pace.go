package proxy

import (
	"math/rand/v2"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// pollStep is how many places further back a visitor may stay away a second longer.
const pollStep = 500

// A pace says when who waits may ask again. Near the head it is shortest, so that a released slot stands empty
// for a moment only; far back it is longest, where the place changes and the turn does not come. So N in line
// cost at most N / longest requests a second, and what those near the head add to it: see TestLoadOfALine.
type pace struct {
	shortest, longest time.Duration // WR_POLL_MIN, WR_POLL_MAX
	random            func() float64
}

// jitter spreads the visitors who came together, and would otherwise ask together for as long as they wait.
const jitter = 0.3

// retryShed is how long an arrival that is turned away is asked to stay away.
func (s *Server) retryShed() int { return retryShed + int(2*retryShed*s.pace.random()) }

// after is how long a visitor at that place is asked to stay away, jitter included, and so many times as long as usual. It is always
// well before the visitor would count as absent.
func (p pace) after(position int, times float64, limits queue.Limits) time.Duration {
	d := min(p.shortest+time.Duration(position)*time.Second/pollStep, p.longest)
	d = time.Duration(float64(d) * times * (1 - jitter + 2*jitter*p.random()))
	return max(min(d, min(limits.QueueAbsent, limits.ClaimTTL, limits.QueueTTL)/3), time.Second/2)
}

// retryAfter is after as a header has it: whole seconds, at least one. Rounding is by chance, so that the mean
// stays what it is.
func (s *Server) retryAfter(position int) int {
	d := s.pace.after(position, s.shed.patience(), s.room.Limits())
	return max(1, int(d.Seconds()+s.pace.random()))
}

func newPace(cfg Config) pace {
	return pace{cfg.PollMin, cfg.PollMax, rand.Float64}
}
