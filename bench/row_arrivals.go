//go:build linux

package main

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// The kinds of requests in a journal.
const (
	kindArrival = iota
	kindPoll
	kindProxied
)

// measureArrivals counts the requests that put a visitor in the queue: in owr the first poll, which brings
// back the cookie of the first visit and waits for the commit; in the Lua room the first visit itself, which
// stores at once, in memory.
func measureArrivals(l *lab) ([]*figure, error) {
	_, origin, err := l.origin()
	if err != nil {
		return nil, err
	}
	c, err := l.cluster(place{nodes: 3, origin: origin, maxActive: 1, active: 1})
	if err != nil {
		return nil, err
	}
	// One Lua room that nobody waits in, for the first visits, and one for whole visits, whose queue is of a
	// fixed length as far as that goes: it grows by what arrives.
	address, err := l.fullLuaRoom(origin, 0)
	if err != nil {
		return nil, err
	}
	const conns, openConns = 768, 3000
	newcomer := []byte("GET / HTTP/1.1\r\nHost: bench\r\n" + userAgent + "\r\n" + accept + "\r\n\r\n")
	first := func(_ *conn, dst []byte) []byte { return append(dst, newcomer...) }
	seen := 1 // visitors whose cookies have been used
	fresh := func(count int) func(*conn, []byte) []byte {
		next := c.crowd(seen, count).once("/wr_check")
		seen += count
		return next
	}
	var ours, theirs, visits, theirVisits []sample
	for round := range l.o.rounds + 1 {
		a, _, err := l.sampleLoad(c.processes(), load{targets: c.publics(), conns: conns, duration: l.o.window, next: fresh(freshPerSecond * int(l.o.window/time.Second+1))}, 200)
		if err != nil {
			return nil, fmt.Errorf("owr: %w", err)
		}
		l.settle()
		b, _, err := l.sampleLoad(nil, load{targets: []string{address}, conns: 64, duration: l.o.window, next: first}, 302)
		if err != nil {
			return nil, fmt.Errorf("the Lua room: %w", err)
		}
		v, _, err := l.sampleLoad(c.processes(), wholeVisits(c.publics(), conns, l.o.window, newcomer), 302, 200)
		if err != nil {
			return nil, fmt.Errorf("owr, whole visits: %w", err)
		}
		v.rate /= 2 // two requests
		l.settle()
		queue, err := l.fullLuaRoom(origin, luaWaiting)
		if err != nil {
			return nil, err
		}
		w, _, err := l.sampleLoad(nil, wholeVisits([]string{queue}, 64, l.o.window, newcomer), 302, 200)
		if err != nil {
			return nil, fmt.Errorf("the Lua room, whole visits: %w", err)
		}
		w.rate /= 2
		if round > 0 {
			ours, theirs, visits, theirVisits = append(ours, a), append(theirs, b), append(visits, v), append(theirVisits, w)
		}
	}
	rate := func(s sample) float64 { return s.rate }
	busy := pick("", ours, func(s sample) float64 { return s.client }).Median
	peak := pick("owr", ours, rate)
	figures := []*figure{
		compare("arrivals/s, the request that takes the place", "req/s", peak, pick("Lua room", theirs, rate)).wants(atLeast(2), nil).
			noted("%d connections; the client was busy for %.0f %% of a core", conns, 100*busy),
		compare("visits/s, first request and first poll, against the first request alone", "visits/s", pick("owr", visits, rate), pick("Lua room", theirs, rate)),
		compare("visits/s until the visitor knows its place, 10,000 waiting there", "visits/s", pick("owr", visits, rate), pick("Lua room", theirVisits, rate)),
		alone("CPU of all three nodes per arrival", "µs", pick("owr", ours, func(s sample) float64 { return s.micros })),
	}
	// The latency at a part of what the cluster takes at most.
	for _, part := range []float64{0.1, 0.25, 0.5, 0.75, 0.9} {
		var p50, p99 []float64
		for range min(l.o.rounds, 3) {
			rate := part * peak.Median
			r, err := load{targets: c.publics(), conns: openConns, duration: l.o.window, rate: rate, next: fresh(int(rate*l.o.window.Seconds()) + 1000)}.run(l.ctx)
			if err == nil && part <= 0.5 { // closer to the peak some are turned away, or give up
				err = r.only(200)
			}
			if err != nil {
				return nil, fmt.Errorf("%.0f %%: %w", 100*part, err)
			}
			p50, p99 = append(p50, r.percentile(50)), append(p99, r.percentile(99))
			l.settle()
		}
		f := alone(fmt.Sprintf("p99 of an arrival at %.0f %% of the peak", 100*part), "ms", newSeries("p99", p99)).on("latency99", part*peak.Median)
		if part == 0.5 {
			f.wants(atMost(50), nil)
		}
		figures = append(figures, f, alone(fmt.Sprintf("p50 of an arrival at %.0f %% of the peak", 100*part), "ms", newSeries("p50", p50)).on("latency50", part*peak.Median))
	}
	return figures, nil
}

// luaWaiting is how many wait in the Lua room before the whole visits.
const luaWaiting = 10_000

// fullLuaRoom is a Lua room with its Redis in which there is no free slot.
func (l *lab) fullLuaRoom(origin string, waiting int) (string, error) {
	_, at, err := l.redisServer()
	if err != nil {
		return "", err
	}
	if err := l.fillRoom(at, 1, waiting); err != nil {
		return "", err
	}
	_, address, err := l.luaRoom(origin, at, 1)
	return address, err
}

// freshPerSecond is more arrivals than this machine takes in a second.
const freshPerSecond = 60_000

// wholeVisits is visitors as browsers are: a first request without a cookie, then the first poll with the
// cookie that came back.
func wholeVisits(targets []string, conns int, d time.Duration, newcomer []byte) load {
	poll := newRequest("/wr_check")
	return load{
		targets: targets, conns: conns, duration: d,
		next: func(c *conn, dst []byte) []byte {
			if c.step == 0 {
				return append(dst, newcomer...)
			}
			return poll.append(dst, c.cookie)
		},
		answered: func(c *conn, a answer) bool {
			if c.step == 1 {
				c.step = 0
				return false
			}
			c.cookie = append(c.cookie[:0], cookieOf(a.head)...)
			c.step = 1
			return true
		},
	}
}

func cookieOf(head []byte) []byte {
	_, rest, ok := bytes.Cut(head, []byte("wr_token="))
	if !ok {
		return nil
	}
	end := bytes.IndexAny(rest, ";\r")
	if end < 0 {
		return nil
	}
	return rest[:end]
}

// measureCommit asks an idle cluster to let one visitor arrive, over HTTP, one after the other, and a bare
// Raft cluster to apply one entry.
func measureCommit(l *lab) ([]*figure, error) {
	_, origin, err := l.origin()
	if err != nil {
		return nil, err
	}
	c, err := l.cluster(place{nodes: 3, origin: origin, maxActive: 1, active: 1})
	if err != nil {
		return nil, err
	}
	bare, err := l.bareRaft()
	if err != nil {
		return nil, err
	}
	leader, err := c.leader()
	if err != nil {
		return nil, err
	}
	count, seen := 200, 1
	if l.o.quick {
		count = 100
	}
	arrive := func(at *node) ([]float64, error) {
		next := c.crowd(seen, count).once("/wr_check")
		seen += count
		var took []float64
		r, err := load{targets: []string{at.public}, conns: 1, duration: time.Minute, patience: 5 * time.Second, next: next}.times(l.ctx, count)
		if err != nil {
			return nil, err
		}
		for _, m := range r.micros {
			took = append(took, float64(m)/1000)
		}
		return took, nil
	}
	var ours, follower, theirs, ours99, theirs99 []float64
	for round := range l.o.rounds + 1 {
		a, err := arrive(leader)
		if err != nil {
			return nil, err
		}
		b, err := bare.apply(count)
		if err != nil {
			return nil, err
		}
		f, err := arrive(c.others(leader)[0])
		if err != nil {
			return nil, err
		}
		if round > 0 {
			ours, theirs, follower = append(ours, median(a)), append(theirs, median(b)), append(follower, median(f))
			ours99, theirs99 = append(ours99, percentile(a, 99)), append(theirs99, percentile(b, 99))
		}
	}
	base := newSeries("bare Raft apply", theirs)
	return []*figure{
		compare("median of an arrival over HTTP at the leader", "ms", newSeries("owr", ours), base).wants(atMost(1.5), atMost(3)),
		compare("p99 of the same", "ms", newSeries("owr", ours99), newSeries("bare Raft apply", theirs99)),
		compare("median of an arrival over HTTP at a follower", "ms", newSeries("owr", follower), base),
	}, nil
}

func percentile(values []float64, p float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(p/100*float64(len(sorted))))]
}
