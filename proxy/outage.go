package proxy

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/queue"
)

// An outage is the time in which this node has no majority of the cluster behind it. Nothing can be changed then: those inside
// pass up to their deadline (I5), those in line are told the place that they had, and the line stands still.
//
// With WR_NO_QUORUM=admit the site goes on taking visitors in, so many a minute, without slots. They go in the order of the line
// as this node last knew it: it is as if the head of the line moved on at that rate, those inside before it and newcomers
// behind it. This node alone remembers whom it let in, for as long as the outage lasts and they keep coming. The cap does not
// hold meanwhile, which is what the operator has chosen; it is exact again with the first entry that commits, and who was let in
// without a slot is a newcomer then.
//
// Any number of callers.
type outage struct {
	perMinute float64 // 0: hold
	room      Room
	now       func() time.Time
	log       *slog.Logger
	admitted  prometheus.Counter

	on atomic.Bool // since is set

	mu     sync.Mutex
	since  time.Time // of the outage at hand; zero: none
	newest int       // newcomers that were let in
	passes map[queue.Token]time.Time
}

// standsStill reports whether the line stands still, and ends what an outage has begun when it is over.
func (o *outage) standsStill() bool {
	if o.room.Quorum() {
		if o.on.Load() {
			o.end()
		}
		return false
	}
	return true
}

func (o *outage) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return
	}
	o.log.Warn("there is a majority again: the limit is exact again", "after", o.now().Sub(o.since).Round(time.Second), "remembered", len(o.passes))
	o.since, o.newest, o.passes = time.Time{}, 0, nil
	o.on.Store(false)
}

// admits reports whether a visitor passes without a slot. Its view is what this replica knows of it; Unknown for a newcomer.
func (o *outage) admits(token queue.Token, view queue.View) bool {
	if o.perMinute == 0 || !o.standsStill() {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	if o.since.IsZero() {
		o.since, o.passes = now, make(map[queue.Token]time.Time)
		o.on.Store(true)
		o.log.Warn("no majority: visitors are let in without slots", "per_minute", o.perMinute)
	}
	stay := o.room.Limits().ActiveTTL
	if until, ok := o.passes[token]; ok && now.Before(until) {
		o.passes[token] = now.Add(stay)
		return true
	}
	place := 0 // who has a slot, or had one, is before the line
	counts := o.room.Counts()
	switch view.State {
	case queue.Queued, queue.Absent:
		place = view.Position
	case queue.Unknown:
		place = counts.Queued - counts.Absent + o.newest + 1
	}
	if float64(place) > o.perMinute*now.Sub(o.since).Minutes() {
		return false
	}
	if view.State == queue.Unknown {
		o.newest++
	}
	o.forget(now)
	o.passes[token] = now.Add(stay)
	o.admitted.Inc()
	return true
}

// renew lets a visitor that passes without a slot do so for another while.
func (o *outage) renew(token queue.Token) {
	if !o.on.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := o.now(); now.Before(o.passes[token]) {
		o.passes[token] = now.Add(o.room.Limits().ActiveTTL)
	}
}

// lets reports whether a visitor still passes without a slot. To look is no sign of life.
func (o *outage) lets(token queue.Token) bool {
	if !o.on.Load() || !o.standsStill() {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now().Before(o.passes[token])
}

// forget drops a few of those who have not come for long. With each new one a few are looked at, so there are never many more than
// those who are there.
func (o *outage) forget(now time.Time) {
	looked := 0
	for token, until := range o.passes { // in random order
		if now.After(until) {
			delete(o.passes, token)
		}
		if looked++; looked == 4 {
			return
		}
	}
}

// passApart lets a visitor in without a slot, where that is wanted and nobody can give it one.
func (s *Server) passApart(c *caller) (verdict, bool) {
	if !s.outage.admits(c.token, c.view) {
		return verdict{}, false
	}
	return verdict{outcome: letIn, token: c.token, index: s.room.Applied(), tell: !c.good || c.renew, apart: true}, true
}

// count counts a decision. Who was let in without a slot is counted apart.
func (s *Server) count(v *verdict) {
	if !v.apart {
		s.metrics.decisions[v.outcome].Inc()
	}
}
