//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"time"
)

// A side is one of those that a row measures in turn.
type side struct {
	name      string
	processes []*process // whose CPU time is counted
	extra     []*process // counted apart, like the Redis of the Lua room
	address   string
	headers   []string
}

// A sample is what one window of one side gave.
type sample struct {
	rate   float64 // requests a second
	micros float64 // CPU per request
	extra  float64 // CPU of extra per request
	client float64 // how busy the client was: 1 is one core
}

// measureClient compares our own client with wrk on the same server, the origin alone, so that a row's
// numbers can be told from the client's.
func measureClient(l *lab) ([]*figure, error) {
	_, origin, err := l.origin()
	if err != nil {
		return nil, err
	}
	cookie := make([]byte, 71)
	for i := range cookie {
		cookie[i] = 'a'
	}
	one := newRequest("/")
	var ours, theirs, oursRate, theirsRate []float64
	for range l.o.rounds {
		w, err := l.wrk(origin, "/", 32, l.o.window, wrkHeaders(cookie)...)
		if err != nil {
			return nil, err
		}
		r, err := load{targets: []string{origin}, conns: 32, duration: l.o.window, next: func(_ *conn, dst []byte) []byte { return one.append(dst, cookie) }}.run(l.ctx)
		if err == nil {
			err = r.only(200)
		}
		if err != nil {
			return nil, err
		}
		ours, theirs = append(ours, 1e6*r.client/float64(r.requests)), append(theirs, 1e6*w.client/w.requests)
		oursRate, theirsRate = append(oursRate, r.rate()), append(theirsRate, w.rate())
	}
	return []*figure{
		compare("CPU of the client per request, ours against wrk", "µs", newSeries("own client", ours), newSeries("wrk", theirs)),
		compare("requests/s that the client drives, ours against wrk", "req/s", newSeries("own client", oursRate), newSeries("wrk", theirsRate)),
	}, nil
}

// measureAllocs runs the tests that hold the hot path at no allocation.
func measureAllocs(l *lab) ([]*figure, error) {
	run := exec.CommandContext(l.ctx, "go", "test", "-count", "1", "-run", "Alloc", "./queue", "./proxy")
	broken := 0.0
	note := ""
	if out, err := run.CombinedOutput(); err != nil {
		broken, note = 1, string(out)
	}
	f := alone("allocation tests that fail", "", newSeries("owr", []float64{broken})).wants(atMost(0), atMost(0))
	f.Note = note
	return []*figure{f}, nil
}

// measureProxied compares owr with all baselines, with one admitted visitor.
func measureProxied(l *lab) ([]*figure, error) {
	_, origin, err := l.origin()
	if err != nil {
		return nil, err
	}
	c, err := l.cluster(place{nodes: 1, origin: origin, maxActive: 100, active: 1})
	if err != nil {
		return nil, err
	}
	headers := wrkHeaders(c.crowd(0, 1).cookie(0))
	sides := []side{{name: "owr", processes: c.processes(), address: c.nodes[0].public}}
	for _, role := range []string{"fasthttp", "httputil"} {
		if role == "httputil" && l.o.quick {
			continue
		}
		p, address, err := l.proxyChild(role, origin)
		if err != nil {
			return nil, err
		}
		sides = append(sides, side{name: role, processes: []*process{p}, address: address})
	}
	p, address, err := l.plainNginx(origin)
	if err != nil {
		return nil, err
	}
	sides = append(sides, side{name: "nginx", processes: []*process{p}, address: address})
	if !l.o.quick {
		redis, at, err := l.redisServer()
		if err != nil {
			return nil, err
		}
		if err := l.fillRoom(at, 1, 0); err != nil {
			return nil, err
		}
		if p, address, err = l.luaRoom(origin, at, 100); err != nil {
			return nil, err
		}
		sides = append(sides, side{name: "Lua room", processes: []*process{p}, extra: []*process{redis}, address: address})
	}
	for i := range sides {
		sides[i].headers = headers
	}
	samples := make(map[string][]sample)
	for round := range l.o.rounds + 1 {
		for _, s := range sides {
			got, err := l.sampleWrk(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			if round > 0 { // the first one warms up
				samples[s.name] = append(samples[s.name], got)
			}
		}
	}
	cpu := func(name string) series { return pick(name, samples[name], func(s sample) float64 { return s.micros }) }
	rate := func(name string) series { return pick(name, samples[name], func(s sample) float64 { return s.rate }) }
	figures := []*figure{
		compare("CPU per request against bare fasthttp", "µs", cpu("owr"), cpu("fasthttp")).wants(atMost(1.05), atMost(2)),
		compare("CPU per request against nginx", "µs", cpu("owr"), cpu("nginx")).wants(atMost(1.0), atMost(3)),
		compare("requests/s against bare fasthttp", "req/s", rate("owr"), rate("fasthttp")),
		compare("requests/s against nginx", "req/s", rate("owr"), rate("nginx")),
	}
	if !l.o.quick {
		redis := median(pick("", samples["Lua room"], func(s sample) float64 { return s.extra }).Values)
		figures = append(figures,
			compare("CPU per request against httputil.ReverseProxy", "µs", cpu("owr"), cpu("httputil")),
			compare("requests/s against httputil.ReverseProxy", "req/s", rate("owr"), rate("httputil")),
			compare("CPU per request against the Lua room", "µs", cpu("owr"), cpu("Lua room")).noted("and %.1f µs in its Redis", redis),
			compare("requests/s against the Lua room", "req/s", rate("owr"), rate("Lua room")))
	}
	return figures, nil
}

// sampleWrk measures one side for one window.
func (l *lab) sampleWrk(s side) (sample, error) {
	before, extra := cpuOfAll(s.processes), cpuOfAll(s.extra)
	profiled := l.profile("proxied-"+s.name, s.processes)
	r, err := l.wrk(s.address, "/", 32, l.o.window, s.headers...)
	if err != nil {
		return sample{}, err
	}
	out := sample{
		rate: r.rate(), micros: 1e6 * (cpuOfAll(s.processes) - before) / r.requests,
		extra: 1e6 * (cpuOfAll(s.extra) - extra) / r.requests, client: r.client / r.seconds,
	}
	return out, profiled()
}

// sampleLoad is the same with our own client. A profile is of the row's first side.
func (l *lab) sampleLoad(processes []*process, d load, statuses ...int) (sample, report, error) {
	before := cpuOfAll(processes)
	profiled := l.profile(l.row, processes)
	r, err := d.run(l.ctx)
	if err == nil {
		err = r.only(statuses...)
	}
	if err != nil {
		return sample{}, r, err
	}
	out := sample{rate: r.rate(), micros: 1e6 * (cpuOfAll(processes) - before) / float64(r.requests), client: r.share()}
	return out, r, profiled()
}

func pick(name string, samples []sample, of func(sample) float64) series {
	var values []float64
	for _, s := range samples {
		values = append(values, of(s))
	}
	return newSeries(name, values)
}

// measureTouching is three nodes under as many active visitors as make every request a sign of life to
// replicate. The baseline is bare fasthttp under the same client, once as one process and once as three.
func measureTouching(l *lab) ([]*figure, error) {
	const active = 100_000
	_, origin, err := l.origin()
	if err != nil {
		return nil, err
	}
	c, err := l.cluster(place{nodes: 3, origin: origin, maxActive: active, active: active})
	if err != nil {
		return nil, err
	}
	var bare []*process
	var addresses []string
	for range 3 {
		p, address, err := l.proxyChild("fasthttp", origin)
		if err != nil {
			return nil, err
		}
		bare, addresses = append(bare, p), append(addresses, address)
	}
	everybody := c.crowd(0, active)
	var owr, one, three []sample
	for round := range l.o.rounds + 1 {
		for i, s := range []struct {
			to        *[]sample
			processes []*process
			targets   []string
		}{{&owr, c.processes(), c.publics()}, {&one, bare[:1], addresses[:1]}, {&three, bare, addresses}} {
			got, _, err := l.sampleLoad(s.processes, load{targets: s.targets, conns: 33, duration: 2 * l.o.window, next: everybody.each("/")}, 200)
			if err != nil {
				return nil, fmt.Errorf("side %d: %w", i, err)
			}
			if round > 0 {
				*s.to = append(*s.to, got)
			}
		}
	}
	cpu := func(s sample) float64 { return s.micros }
	rate := func(s sample) float64 { return s.rate }
	busy := pick("", owr, func(s sample) float64 { return s.client }).Median
	touches := fmt.Sprintf("every request is another visitor's: a touch each; the client was busy for %.0f %% of a core", 100*busy)
	return []*figure{
		compare("CPU per request against one bare fasthttp", "µs", pick("owr", owr, cpu), pick("fasthttp", one, cpu)).wants(atMost(1.15), nil).noted("%s", touches),
		compare("CPU per request against three bare fasthttp", "µs", pick("owr", owr, cpu), pick("3 × fasthttp", three, cpu)),
		compare("requests/s against one bare fasthttp", "req/s", pick("owr", owr, rate), pick("fasthttp", one, rate)),
	}, nil
}

// measureGrowth is the cost of a request as the room fills: the same load over more and more visitors.
func measureGrowth(l *lab) ([]*figure, error) {
	sizes := []int{1_000, 10_000, 100_000, 1_000_000}
	if l.o.quick {
		sizes = []int{1_000, 1_000_000}
	}
	_, origin, err := l.origin()
	if err != nil {
		return nil, err
	}
	bare, address, err := l.proxyChild("fasthttp", origin)
	if err != nil {
		return nil, err
	}
	type room struct {
		c         *cluster
		all, some func(*conn, []byte) []byte
	}
	var rooms []room
	for _, n := range sizes {
		c, err := l.cluster(place{nodes: 1, origin: origin, maxActive: n, active: n})
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, room{c, c.crowd(0, n).each("/"), c.crowd(0, sizes[0]).each("/")})
	}
	owr, few, base := make([][]float64, len(sizes)), make([][]float64, len(sizes)), []float64(nil)
	for round := range l.o.rounds + 1 {
		for i, r := range rooms {
			all, _, err := l.sampleLoad(r.c.processes(), load{targets: r.c.publics(), conns: 32, duration: l.o.window, next: r.all}, 200)
			if err != nil {
				return nil, fmt.Errorf("%d active: %w", sizes[i], err)
			}
			some, _, err := l.sampleLoad(r.c.processes(), load{targets: r.c.publics(), conns: 32, duration: l.o.window, next: r.some}, 200)
			if err != nil {
				return nil, fmt.Errorf("%d active, 1,000 of them asking: %w", sizes[i], err)
			}
			if round > 0 {
				owr[i], few[i] = append(owr[i], all.micros), append(few[i], some.micros)
			}
		}
		got, _, err := l.sampleLoad([]*process{bare}, load{targets: []string{address}, conns: 32, duration: l.o.window, next: rooms[0].all}, 200)
		if err != nil {
			return nil, err
		}
		if round > 0 {
			base = append(base, got.micros)
		}
	}
	// flat compares the sizes; its value is the largest ratio of any two of them.
	flat := func(what string, values [][]float64, wide float64) *figure {
		apart := 1.0
		for _, a := range values {
			for _, b := range values {
				apart = max(apart, compare("", "", newSeries("", a), newSeries("", b)).Ratio)
			}
		}
		f := compare(what, "µs", newSeries("owr", values[len(values)-1]), newSeries("at 1,000", values[0]))
		f.Value = apart
		return f.wants(atMost(1.15), atMost(wide)).noted("the target is for the dearest size against the cheapest: %.3f", apart)
	}
	var figures []*figure
	for i, n := range sizes {
		size := thousands(int64(n))
		figures = append(figures,
			compare(size+" active, all of them asking: CPU per request", "µs", newSeries("owr", owr[i]), newSeries("fasthttp", base)).on("cost", float64(n)),
			compare(size+" active, 1,000 of them asking: CPU per request", "µs", newSeries("owr", few[i]), newSeries("fasthttp", base)).on("costfew", float64(n)))
	}
	return append(figures,
		flat("CPU per request, 1,000,000 active against 1,000, all of them asking", owr, 2),
		flat("the same, 1,000 of them asking", few, 1.5)), nil
}

// settle gives a cluster that has just been loaded a moment to end what it does in the background.
func (l *lab) settle() { l.sleep(300 * time.Millisecond) }
