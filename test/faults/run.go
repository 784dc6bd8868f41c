package faults

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

const (
	// leastLoad is how many operations a second there have to be before the harm, for a run to mean anything.
	leastLoad = 100
	warmUp    = 3 * time.Second
	coolDown  = 2 * time.Second
	// healTime is how long the cluster may take to be well again once the harm is undone.
	healTime = 30 * time.Second
	// repairTime is how long Redis may take to show the table again.
	repairTime = 5 * time.Second
)

// run does one cell's harm to a world that is well, with a crowd of its own, and audits all that was seen.
func (c cell) run(w *world, seed uint64) Result {
	w.t.Helper()
	r := Result{Cell: c.name, Kind: c.kind, Seed: seed}
	defer func() { r.Failed = w.t.Failed() }()
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx = ctx
	var watching sync.WaitGroup
	watching.Go(func() { w.watch(ctx) })
	defer watching.Wait()
	defer cancel()

	w.crowd.start(visitors, seed)
	defer w.crowd.stop()
	term := w.term()
	rest(ctx, warmUp/2)
	before := w.crowd.count()
	rest(ctx, warmUp/2)
	r.Rate = float64(w.crowd.count()-before) / (warmUp / 2).Seconds()
	if r.Rate < leastLoad {
		w.t.Errorf("the run means nothing: %.0f operations a second before the harm, less than %d", r.Rate, leastLoad)
	}

	fault := Fault{Name: c.name, Majority: !c.lost, Alive: c.alive, Origin: c.site, Begun: clock(), Ended: forever}
	var victims []*harness.Node
	if c.victims != nil {
		victims = c.victims(w)
	}
	for _, n := range victims {
		fault.Harmed = append(fault.Harmed, n.ID)
	}
	c.harm(w, victims)
	rest(ctx, c.lasts)
	if c.heal != nil {
		c.heal(w, victims)
	}
	healed := clock()
	if !harness.Poll(healTime, w.well) {
		w.t.Errorf("not well %v after the harm was undone", healTime)
	}
	fault.Ended = clock()
	r.Heal = fault.Ended - healed
	r.Repair = w.repaired(healed)
	r.Terms = w.term() - term
	fault.Elected = r.Terms > 0
	if c.terms > 0 && r.Terms > c.terms {
		w.t.Errorf("%d new terms, more than %d", r.Terms, c.terms)
	}
	rest(ctx, coolDown)
	w.crowd.stop()

	people := w.crowd.present()
	w.settle(people)
	cancel()
	watching.Wait()
	h := History{Rules: w.rules, Events: w.crowd.take(), Faults: append(slices.Clone(w.past), fault), Readings: w.takeReadings()}
	w.past = []Fault{fault} // what it explains may come after this run
	r.take(h, fault)
	w.t.Logf("%s: %v harmed, %.2f-%.2f, undone at %.2f, %d new terms", c.name, fault.Harmed, fault.Begun, fault.Ended, healed, r.Terms)
	if c.alive {
		_, looked := newAudit(h).refused()
		w.t.Logf("%d requests of those inside to nodes that were cut off and knew of them", looked)
	}
	for _, k := range r.Findings.Kinds() {
		for i, text := range k.Found {
			if i == 3 {
				w.t.Errorf("%s: and %d more", k.Name, len(k.Found)-3)
				break
			}
			w.t.Errorf("%s: %s", k.Name, text)
		}
	}
	if short := w.crowd.short.Swap(0); short > 0 {
		w.t.Errorf("%d answers of the origin were cut short and ended as if they were whole", short)
	}
	if !slices.ContainsFunc(h.Events, func(e Event) bool { return e.Sent > fault.Ended && e.Outcome == Inside }) {
		w.t.Error("the run means nothing: nobody was let in after the harm")
	}
	return r
}

// term is Raft's, as the leader has it.
func (w *world) term() uint64 {
	w.t.Helper()
	s, err := w.leader().Status()
	if err != nil {
		w.t.Errorf("term: %v", err)
	}
	return s.Term
}

// repaired waits until Redis shows at least what the leader had applied when the harm was undone, and answers how long after
// that it was.
func (w *world) repaired(healed float64) float64 {
	w.t.Helper()
	s, err := w.leader().Status()
	if err != nil {
		w.t.Errorf("mirror: %v", err)
		return 0
	}
	var shown string
	if !harness.Poll(repairTime, func() bool {
		index, kind, err := w.redis.Marker()
		shown = fmt.Sprintf("index %d, a queue of type %s, %v", index, kind, err)
		return err == nil && index >= s.AppliedIndex && (kind == "list" || kind == "none")
	}) {
		w.t.Errorf("Redis does not show index %d after %v: %s", s.AppliedIndex, repairTime, shown)
	}
	return clock() - healed
}

// settle holds every deadline, has everybody ask until nothing moves, and compares all tables and Redis with what
// everybody is told.
func (w *world) settle(people []*visitor) {
	w.t.Helper()
	frozen := map[string]any{"active_ttl": 3600, "claim_ttl": 3600, "queue_absent": 3600, "queue_ttl": 36000}
	must(w.t, w.nodes[0].TryLimits(frozen))
	var told map[string]int
	still := harness.Poll(30*time.Second, func() bool {
		now := map[string]int{}
		for i, v := range people {
			n := w.nodes[i%len(w.nodes)]
			path := "/wr_check"
			if v.cookie == "" {
				path = "/"
			}
			e := v.ask(n, path)
			if e.Outcome == Turn {
				e = v.ask(n, "/page")
			}
			now[v.id()] = e.Position // 0: inside
			if e.Outcome != Waiting && e.Outcome != Inside {
				now[v.id()] = -1
			}
		}
		same := maps.Equal(now, told) && !slices.Contains(slices.Collect(maps.Values(now)), -1)
		told = now
		return same
	})
	if !still {
		w.t.Errorf("places do not come to rest")
		return
	}
	w.sameTables()
	var wrong []string
	if !harness.Poll(repairTime, func() bool { wrong = w.picture(told); return len(wrong) == 0 }) {
		w.t.Errorf("Redis is not the table %v after the end: %v", repairTime, wrong[:min(3, len(wrong))])
	}
}

// sameTables waits until all nodes have applied the same entries, and compares their tables.
func (w *world) sameTables() {
	w.t.Helper()
	var sums []string
	if !harness.Poll(10*time.Second, func() bool {
		sums = nil
		indexes := map[uint64]bool{}
		for _, n := range w.nodes {
			s, err := n.Status()
			if err != nil {
				return false
			}
			sums, indexes[s.AppliedIndex] = append(sums, s.TableSum), true
		}
		return len(indexes) == 1
	}) {
		w.t.Error("the nodes do not come to one applied index")
		return
	}
	if len(slices.Compact(sums)) != 1 {
		w.t.Errorf("the tables differ at the end: %v", sums)
	}
}

// picture tells where Redis shows something else than what everybody was told, and than the leader counts.
func (w *world) picture(told map[string]int) []string {
	p, err := w.redis.Picture()
	if err != nil {
		return []string{err.Error()}
	}
	s, err := w.leader().Status()
	if err != nil {
		return []string{err.Error()}
	}
	var wrong []string
	if len(p.Active) != s.Room.Active || len(p.Released) != s.Room.Released || len(p.Queue) != s.Room.Queued {
		wrong = append(wrong, fmt.Sprintf("%d active, %d released, %d queued; the table holds %d, %d, %d",
			len(p.Active), len(p.Released), len(p.Queue), s.Room.Active, s.Room.Released, s.Room.Queued))
	}
	place := map[string]int{}
	for i, id := range p.Queue {
		place[id] = i + 1
	}
	for id, position := range told {
		if _, inside := p.Active[id]; place[id] != position || inside != (position == 0) {
			wrong = append(wrong, fmt.Sprintf("%.8s was told %d, Redis shows %d", id, position, place[id]))
		}
	}
	return wrong
}

// clear ends what a cell has left behind, so that the next one can begin on the same nodes.
func (w *world) clear(people []*visitor) {
	w.t.Helper()
	for i, v := range people {
		n := w.nodes[i%len(w.nodes)]
		if !harness.Poll(10*time.Second, func() bool { return v.leave(n) == nil }) {
			w.t.Errorf("%s could not leave", v.name)
		}
	}
	w.crowd.forget()
	must(w.t, w.nodes[0].TryLimits(map[string]any{"active_ttl": nil, "claim_ttl": nil, "queue_absent": nil, "queue_ttl": nil}))
}

// sameSize waits until the nodes have let go of what they held for visitors.
func (w *world) sameSize(before map[string]size) {
	w.t.Helper()
	w.crowd.transport.CloseIdleConnections()
	var found []string
	if !harness.Poll(15*time.Second, func() bool { found = w.grown(before); return len(found) == 0 }) {
		w.t.Errorf("nodes have grown: %v", found)
	}
}

// play runs one cell on a cluster of its own.
func play(t *testing.T, c cell, seed uint64) Result {
	w := newWorld(t, c)
	before, err := w.sizes()
	must(t, err)
	r := c.run(w, seed)
	w.sameSize(before)
	return r
}
