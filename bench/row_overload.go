//go:build linux

package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// A crush is what came of one load of admitted visitors and newcomers together.
type crush struct {
	goodput  float64 // useful answers in time, a second
	admitted float64 // share of the admitted visitors' requests that were answered in time
	waited   float64 // p99 of those, in milliseconds
	offered  float64 // requests a second
	client   float64 // how busy the busier of the two threads was
}

// inTime is how long an answer may take that is still of use to somebody.
const inTime = time.Second

// measureOverload keeps three nodes on one core, and origin and clients on another, so that the nodes are
// what runs out. Admitted visitors ask at a rate that stays; newcomers come in ever greater numbers.
func measureOverload(l *lab) ([]*figure, error) {
	const active = 10_000
	_, origin, err := l.origin()
	if err != nil {
		return nil, err
	}
	c, err := l.cluster(place{nodes: 3, origin: origin, maxActive: active, active: active, core: "0"})
	if err != nil {
		return nil, err
	}
	inside := c.crowd(0, active).each("/")
	newcomer := []byte("GET / HTTP/1.1\r\nHost: bench\r\n" + userAgent + "\r\n" + accept + "\r\n\r\n")
	visits := wholeVisits(c.publics(), 1000, l.o.window, newcomer)

	// A first idea of the peak: as much as so many connections ask for, one request after the other. Four of
	// ten requests are of admitted visitors, the others are visits of newcomers.
	n := 0
	mixed := visits
	mixed.core = 2
	mixed.next = func(at *conn, dst []byte) []byte {
		if at.step == 1 {
			return visits.next(at, dst)
		}
		if n++; n%7 < 4 { // 4 requests, and 3 visits of 2
			at.kind = kindProxied
			return inside(at, dst)
		}
		at.kind = kindArrival
		return visits.next(at, dst)
	}
	mixed.answered = func(at *conn, a answer) bool { return at.kind == kindArrival && visits.answered(at, a) }
	peak := 0.0
	for range 2 { // the first one warms up
		r, err := mixed.run(l.ctx)
		if err == nil {
			err = r.only(200, 302)
		}
		if err != nil {
			return nil, fmt.Errorf("peak: %w", err)
		}
		peak = r.rate()
	}

	once := func(times float64) (crush, error) {
		stay := load{targets: c.publics(), conns: 2000, duration: 2 * l.o.window, rate: 0.4 * peak, next: inside, journal: true, core: 2, patience: 3 * time.Second, backlog: 3000}
		come := wholeVisits(c.publics(), 3000, 2*l.o.window, newcomer)
		come.rate, come.journal, come.core, come.patience, come.backlog = (times-0.4)*peak/2, true, 2, 3*time.Second, 3000
		var a, b report
		var errA, errB error
		var wg sync.WaitGroup
		wg.Go(func() { a, errA = stay.run(l.ctx) })
		wg.Go(func() { b, errB = come.run(l.ctx) })
		wg.Wait()
		if errA != nil || errB != nil {
			return crush{}, errors.Join(errA, errB)
		}
		out := crush{client: max(a.share(), b.share()), waited: a.percentile(99)}
		useful := 0
		for _, e := range a.entries {
			if e.status == 200 && e.took <= inTime {
				useful++
			}
		}
		out.admitted = float64(useful) / float64(len(a.entries)+a.dropped)
		for _, e := range b.entries {
			if (e.status == 200 || e.status == 302) && e.took <= inTime {
				useful++
			}
		}
		out.goodput = float64(useful) / a.seconds
		out.offered = float64(len(a.entries)+a.dropped+len(b.entries)+2*b.dropped) / a.seconds
		return out, nil
	}
	rest := func() error {
		l.sleep(time.Second)
		return l.await(20*time.Second, func() error { return answers(c.nodes[0].public, "/wr_ready", 200) })
	}
	// The peak itself: the most useful answers that any load gets, since larger batches make it cheaper.
	best := peak
	for _, times := range []float64{1.2, 1.5, 1.8, 2.2} {
		got, err := once(times)
		if err == nil {
			err = rest()
		}
		if err != nil {
			return nil, err
		}
		best = max(best, got.goodput)
	}
	peak = best
	var one, three []crush
	most := 0.0
	for range l.o.rounds {
		for _, run := range []struct {
			times float64
			to    *[]crush
		}{{1, &one}, {3, &three}} {
			got, err := once(run.times)
			if err != nil {
				return nil, err
			}
			*run.to = append(*run.to, got)
			for _, node := range c.nodes {
				most = max(most, node.memory())
			}
			if err := rest(); err != nil {
				return nil, err
			}
		}
	}
	of := func(name string, list []crush, f func(crush) float64) series {
		var values []float64
		for _, v := range list {
			values = append(values, f(v))
		}
		return newSeries(name, values)
	}
	goodput := func(v crush) float64 { return v.goodput }
	return []*figure{
		compare("useful answers/s at 3 × the peak's load against 1 ×", "req/s", of("3 ×", three, goodput), of("1 ×", one, goodput)).wants(atLeast(0.9), nil).
			noted("the peak was %s req/s; offered %s; the client was busy for %.0f %%; the largest node had %.0f MB", number(peak),
				number(of("", three, func(v crush) float64 { return v.offered }).Median), 100*of("", three, func(v crush) float64 { return v.client }).Max, most/1e6),
		alone("admitted visitors answered within a second, at 3 ×", "%", of("3 ×", three, func(v crush) float64 { return 100 * v.admitted })).wants(atLeast(99.9), nil),
		compare("p99 of an admitted visitor's request", "ms", of("3 ×", three, func(v crush) float64 { return v.waited }), of("1 ×", one, func(v crush) float64 { return v.waited })),
	}, nil
}
