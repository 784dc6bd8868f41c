//go:build linux

package main

import (
	"fmt"
)

// measurePoll is the rate of polls at several lengths of the queue, against the Lua room at the same
// lengths.
func measurePoll(l *lab) ([]*figure, error) {
	sizes := []int{1_000, 10_000, 100_000, 1_000_000}
	if l.o.quick {
		sizes = []int{1_000, 1_000_000}
	}
	_, origin, err := l.origin()
	if err != nil {
		return nil, err
	}
	type side struct {
		owr, lua    func() load
		owrProcess  []*process
		owr1, lua1  []float64
		cost, lcost []float64
		lua2        []*process
	}
	var sides []*side
	var busy float64
	for _, n := range sizes {
		c, err := l.cluster(place{nodes: 1, origin: origin, maxActive: 1, active: 1, waiting: n})
		if err != nil {
			return nil, err
		}
		redis, at, err := l.redisServer()
		if err != nil {
			return nil, err
		}
		if err := l.fillRoom(at, 1, n); err != nil {
			return nil, err
		}
		lua, address, err := l.luaRoom(origin, at, 1)
		if err != nil {
			return nil, err
		}
		ask := c.crowd(1, n).each("/wr_check")
		sides = append(sides, &side{
			owrProcess: c.processes(), lua2: []*process{lua, redis},
			owr: func() load { return load{targets: c.publics(), conns: 32, duration: l.o.window, next: ask} },
			lua: func() load { return load{targets: []string{address}, conns: 32, duration: l.o.window, next: ask} },
		})
	}
	for round := range l.o.rounds + 1 {
		for i, s := range sides {
			a, _, err := l.sampleLoad(s.owrProcess, s.owr(), 200)
			if err != nil {
				return nil, fmt.Errorf("owr, %d waiting: %w", sizes[i], err)
			}
			b, _, err := l.sampleLoad(s.lua2, s.lua(), 200)
			if err != nil {
				return nil, fmt.Errorf("the Lua room, %d waiting: %w", sizes[i], err)
			}
			busy = max(busy, a.client)
			if round > 0 {
				s.owr1, s.lua1 = append(s.owr1, a.rate), append(s.lua1, b.rate)
				s.cost, s.lcost = append(s.cost, a.micros), append(s.lcost, b.micros)
			}
		}
	}
	var figures []*figure
	for i, n := range sizes {
		f := compare(thousands(int64(n))+" waiting: polls/s against the Lua room", "req/s", newSeries("owr", sides[i].owr1), newSeries("Lua room", sides[i].lua1)).on("poll", float64(n))
		if n == 1_000_000 {
			f.wants(atLeast(100), atLeast(20))
		}
		figures = append(figures, f)
	}
	last := sides[len(sides)-1]
	return append(figures,
		compare("polls/s, 1,000,000 waiting against 1,000", "req/s", newSeries("owr", last.owr1), newSeries("at 1,000", sides[0].owr1)).
			wants(atLeast(0.9), atLeast(0.6)).noted("the client was busy for at most %.0f %% of a core", 100*busy),
		compare("CPU per poll, 1,000,000 waiting against 1,000", "µs", newSeries("owr", last.cost), newSeries("at 1,000", sides[0].cost)),
		compare("CPU per poll at 1,000,000 waiting against the Lua room and its Redis", "µs", newSeries("owr", last.cost), newSeries("Lua room", last.lcost))), nil
}
