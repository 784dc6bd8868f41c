//go:build linux

package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// A disturbance is one run of arrivals at two nodes while something happens to the third, the leader.
type disturbance struct {
	entries []entry
	at      time.Duration // when it happened, since the load began
	targets int
}

const (
	disturbRate  = 400 // arrivals a second
	disturbAfter = 500 * time.Millisecond
)

// disturb sends the leader a signal while visitors arrive at the other nodes, then brings it back.
func (l *lab) disturb(c *cluster, seen *int, s os.Signal, duration time.Duration) (*disturbance, error) {
	leader, err := c.leader()
	if err != nil {
		return nil, err
	}
	others := c.others(leader)
	count := int(disturbRate*duration.Seconds()) + 100
	d := load{
		targets: publicsOf(others), conns: 1200, duration: duration, rate: disturbRate,
		patience: 8 * time.Second, next: c.crowd(*seen, count).once("/wr_check"), journal: true,
	}
	*seen += count
	at := make(chan time.Time, 1)
	timer := time.AfterFunc(disturbAfter, func() {
		at <- time.Now()
		leader.signal(s)
	})
	r, err := d.run(l.ctx)
	if timer.Stop() || err != nil {
		return nil, fmt.Errorf("the load ended early: %w", err)
	}
	out := &disturbance{entries: r.entries, at: (<-at).Sub(r.begun), targets: len(others)}
	select {
	case <-leader.done:
	case <-time.After(30 * time.Second):
		return nil, fmt.Errorf("%s did not end", leader.id)
	}
	if err := leader.start(); err != nil {
		return nil, err
	}
	return out, leader.awaitReady()
}

// silence is the time from the disturbance until every node has answered an arrival that came after it.
func (d *disturbance) silence() float64 {
	first := make([]time.Duration, d.targets)
	for _, e := range d.entries {
		if end := e.due + e.took; e.status == 200 && e.due >= d.at && (first[e.target] == 0 || end < first[e.target]) {
			first[e.target] = end
		}
	}
	worst := time.Duration(0)
	for _, end := range first {
		if end == 0 {
			return never
		}
		worst = max(worst, end-d.at)
	}
	return worst.Seconds()
}

// longest is the longest that an arrival waited that was under way at the disturbance or came within
// three seconds after, and how many were not answered with a place.
func (d *disturbance) longest() (milliseconds float64, refused int) {
	for _, e := range d.entries {
		if e.due+e.took < d.at || e.due > d.at+3*time.Second {
			continue
		}
		if e.status != 200 {
			refused++
		}
		milliseconds = max(milliseconds, e.took.Seconds()*1000)
	}
	return milliseconds, refused
}

// timeline is the answers with a place per second, in steps of 50 ms, around the disturbance.
func (d *disturbance) timeline() (points [][2]float64) {
	const step = 50 * time.Millisecond
	counts := make(map[int]int)
	for _, e := range d.entries {
		if e.status == 200 {
			counts[int((e.due+e.took-d.at+time.Hour)/step)]++
		}
	}
	zero := int(time.Hour / step)
	for i := zero - int(400*time.Millisecond/step); i <= zero+int(2500*time.Millisecond/step); i++ {
		points = append(points, [2]float64{float64(i-zero) * step.Seconds(), float64(counts[i]) / step.Seconds()})
	}
	return points
}

func measureFailover(l *lab) ([]*figure, error) {
	_, origin, err := l.origin()
	if err != nil {
		return nil, err
	}
	c, err := l.cluster(place{nodes: 3, origin: origin, maxActive: 1, active: 1})
	if err != nil {
		return nil, err
	}
	seen, refusedAll := 1, 0
	var silences, longest []float64
	var shown *disturbance
	for range 4 * l.o.rounds {
		d, err := l.disturb(c, &seen, syscall.SIGKILL, 4*time.Second)
		if err != nil {
			return nil, err
		}
		worst, refused := d.longest()
		silences, longest, refusedAll = append(silences, d.silence()), append(longest, worst/1000), refusedAll+refused
		if shown == nil || abs(d.silence()-median(silences)) < abs(shown.silence()-median(silences)) {
			shown = d
		}
	}
	all := newSeries("owr", silences)
	p99 := alone("p99 of the same", "s", all).wants(nil, nil)
	p99.Value = percentile(silences, 99)
	p99.wants(atMost(2), nil).noted("p99 of %d kills: %.2f s", len(silences), p99.Value)
	p50 := alone("until both other nodes answer a new arrival, p50", "s", all).wants(atMost(1), nil)
	p50.Points, p50.Curve = shown.timeline(), "failover"
	return []*figure{
		p50, p99,
		alone("the longest that an arrival waited", "s", newSeries("owr", longest)).noted("%d arrivals of all kills were told to come back later", refusedAll),
	}, nil
}

func measureHandover(l *lab) ([]*figure, error) {
	_, origin, err := l.origin()
	if err != nil {
		return nil, err
	}
	c, err := l.cluster(place{nodes: 3, origin: origin, maxActive: 1, active: 1})
	if err != nil {
		return nil, err
	}
	seen, refusedAll := 1, 0
	var longest []float64
	var shown *disturbance
	for range 2 * l.o.rounds {
		d, err := l.disturb(c, &seen, syscall.SIGTERM, 4*time.Second)
		if err != nil {
			return nil, err
		}
		worst, refused := d.longest()
		longest, refusedAll = append(longest, worst), refusedAll+refused
		if shown == nil {
			shown = d
		}
	}
	f := alone("the longest that an arrival waited, in each hand-over", "ms", newSeries("owr", longest)).
		wants(atMost(200), nil).noted("%d arrivals of all hand-overs were told to come back later", refusedAll)
	f.Points, f.Curve = shown.timeline(), "handover"
	return []*figure{f}, nil
}

func abs(v float64) float64 { return max(v, -v) }

// measureRestart stops a follower of a cluster with a million rows and starts it again.
func measureRestart(l *lab) ([]*figure, error) {
	const rows = 1_000_000
	var figures []*figure
	for _, snapshot := range []bool{true, false} {
		_, origin, err := l.origin()
		if err != nil {
			return nil, err
		}
		c, err := l.cluster(place{nodes: 3, origin: origin, maxActive: 1, active: 1, waiting: rows, snapshot: snapshot})
		if err != nil {
			return nil, err
		}
		leader, err := c.leader()
		if err != nil {
			return nil, err
		}
		n := c.others(leader)[0]
		var took []float64
		for range l.o.rounds {
			n.end()
			begun := time.Now()
			if err := n.start(); err != nil {
				return nil, err
			}
			if err := n.awaitReady(); err != nil {
				return nil, err
			}
			took = append(took, time.Since(begun).Seconds())
			if s, err := n.status(); err != nil || s.Room.Queued != rows {
				return nil, fmt.Errorf("after its restart %s holds %d, want %d: %w", n.id, s.Room.Queued, rows, err)
			}
		}
		from := "the log"
		if snapshot {
			from = "a snapshot"
		}
		figures = append(figures, alone("a follower's restart to ready with 1,000,000 rows, from "+from, "s", newSeries("owr", took)).
			wants(atMost(3), nil).noted("%.0f MB resident after it", n.memory()/1e6))
		l.endAll()
	}
	return figures, nil
}
