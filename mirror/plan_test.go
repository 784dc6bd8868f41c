package mirror

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/openwaitingroom/owr/queue"
)

// shown are the three keys as plain values, changed by ops the way the group script does it.
type shown struct {
	active   map[queue.Token]int64
	line     []queue.Token
	released map[queue.Token]bool
}

func (s *shown) holders() int { return len(s.active) + len(s.released) }

func (s *shown) apply(t *rapid.T, o op) {
	switch o.verb {
	case verbUnrelease:
		delete(s.released, o.token)
	case verbDeactivate:
		delete(s.active, o.token)
	case verbUnqueue:
		i := slices.Index(s.line, o.token)
		if i < 0 {
			t.Fatalf("%v is taken out of a line that does not hold it", o.token)
		}
		s.line = slices.Delete(s.line, i, i+1)
	case verbQueue:
		s.line = append(s.line, o.token)
	case verbInsert:
		i := slices.Index(s.line, o.next)
		if i < 0 {
			t.Fatalf("%v is inserted before %v, which is not in line", o.token, o.next)
		}
		s.line = slices.Insert(s.line, i, o.token)
	case verbActivate:
		s.active[o.token] = o.seen
	case verbTouch:
		if _, ok := s.active[o.token]; !ok {
			t.Fatalf("%v is touched and not active", o.token)
		}
		s.active[o.token] = o.seen
	case verbRelease:
		s.released[o.token] = true
	}
}

// drawEntry lets one entry happen in the room: a few transitions, one after the other.
func drawEntry(t *rapid.T, r *room) {
	r.entry(func() {
		for range rapid.IntRange(1, 12).Draw(t, "transitions") {
			released, active := r.in(queue.Released), r.in(queue.Active)
			choices := []string{"queue", "admit"}
			if len(r.line) > 0 {
				choices = append(choices, "promote", "promote", "abandon", "turn")
			}
			if len(released) > 0 {
				choices = append(choices, "sendBack", "sendBack", "claim", "leaveReleased")
			}
			if len(active) > 0 {
				choices = append(choices, "touch", "leaveActive")
			}
			comer := func() queue.Token { // new, or back after it had gone
				if len(r.gone) > 0 && rapid.Bool().Draw(t, "back") {
					i := rapid.IntRange(0, len(r.gone)-1).Draw(t, "who")
					token := r.gone[i]
					r.gone = slices.Delete(r.gone, i, i+1)
					return token
				}
				return r.newToken()
			}
			place := func() int { return rapid.IntRange(0, len(r.line)-1).Draw(t, "place") }
			switch rapid.SampledFrom(choices).Draw(t, "transition") {
			case "queue":
				r.queue(comer())
			case "admit":
				r.admit(comer())
			case "promote":
				r.promote(place())
			case "abandon":
				r.abandon(place())
			case "turn":
				r.turn(place())
			case "sendBack":
				r.sendBack(rapid.SampledFrom(released).Draw(t, "visitor"))
			case "claim":
				r.claim(rapid.SampledFrom(released).Draw(t, "visitor"))
			case "leaveReleased":
				r.leave(rapid.SampledFrom(released).Draw(t, "visitor"))
			case "leaveActive":
				r.leave(rapid.SampledFrom(active).Draw(t, "visitor"))
			case "touch":
				r.touch(rapid.SampledFrom(active).Draw(t, "visitor"))
			}
		}
	})
}

func TestPlanAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRoom()
		now := int64(0)
		r.clock = func() int64 { now++; return now }
		for range rapid.IntRange(0, 5).Draw(t, "before") {
			drawEntry(t, r)
		}
		frozen, feed, stop := r.Follow(1 << 20)
		defer stop()
		keys, held := load(frozen)
		p := newPlanner(held)
		var changes []queue.Change
		t.Repeat(map[string]func(*rapid.T){
			"entry": func(t *rapid.T) { drawEntry(t, r) },
			"show": func(t *rapid.T) {
				changes, _, _ = feed.Take(changes)
				groups, scan := p.plan(changes, nil)
				walked := 0
				for _, g := range groups {
					walked += g.scan
					before := keys.holders()
					after := g.tally.active + g.tally.released
					for i, o := range g.ops {
						keys.apply(t, o)
						if keys.holders() > max(before, after) {
							t.Fatalf("after op %d of %d the keys show %d holders, of %d before and %d after", i, len(g.ops), keys.holders(), before, after)
						}
					}
					if got := (tally{len(keys.active), len(keys.line), len(keys.released)}); got != g.tally {
						t.Fatalf("keys hold %+v, the plan says %+v", got, g.tally)
					}
				}
				if walked != scan {
					t.Fatalf("plan says %d elements to walk over, its groups %d", scan, walked)
				}
				if touched := rapid.IntRange(0, 20).Draw(t, "touches"); touched > 0 {
					for _, o := range p.takeTouches(nil, touched) {
						keys.apply(t, o)
					}
				}
				want, _ := load(queue.NewFrozen(0, 0, r.rowsLocked()))
				if !slices.Equal(keys.line, want.line) {
					t.Fatalf("line %v, want %v", keys.line, want.line)
				}
				if !maps.Equal(keys.released, want.released) {
					t.Fatalf("released %v, want %v", keys.released, want.released)
				}
				maps.Copy(keys.active, p.touches) // what has not been shown yet
				if !maps.Equal(keys.active, want.active) {
					t.Fatalf("active %v, want %v", keys.active, want.active)
				}
			},
		})
	})
}

func load(f *queue.Frozen) (shown, tally) {
	s := shown{active: map[queue.Token]int64{}, released: map[queue.Token]bool{}}
	for r := range f.Rows() {
		switch {
		case r.State.Waits():
			s.line = append(s.line, r.Token)
		case r.State == queue.Released:
			s.released[r.Token] = true
		default:
			s.active[r.Token] = r.Seen
		}
	}
	return s, tally{len(s.active), len(s.line), len(s.released)}
}

func TestPlan(t *testing.T) {
	tokens := newRoom()
	a, b := tokens.newToken(), tokens.newToken()
	cases := []struct {
		name    string
		held    tally
		changes []queue.Change
		want    []op
		scan    int
	}{
		{
			"an absent visitor stands where it stood",
			tally{queue: 1},
			[]queue.Change{{Token: a, Before: queue.Queued, After: queue.Absent}},
			nil, 0,
		},
		{
			"a waiting visitor's sign of life shows nowhere",
			tally{queue: 1},
			[]queue.Change{{Token: a, Before: queue.Queued, After: queue.Queued, Seen: 5}},
			nil, 0,
		},
		{
			"who came and went between two scripts is not shown",
			tally{},
			[]queue.Change{{Token: a, After: queue.Queued}, {Token: a, Before: queue.Queued}},
			nil, 0,
		},
		{
			"near the head the line is walked from its head",
			tally{queue: 10},
			[]queue.Change{{Token: a, Before: queue.Queued, Ahead: 2}},
			[]op{{verb: verbUnqueue, end: 1, token: a}},
			3,
		},
		{
			"near the end from its end",
			tally{queue: 10},
			[]queue.Change{{Token: a, Before: queue.Queued, Ahead: 8}},
			[]op{{verb: verbUnqueue, end: -1, token: a}},
			2,
		},
		{
			"a slot is given up before it is taken",
			tally{active: 1, queue: 1},
			[]queue.Change{{Token: b, Before: queue.Queued, After: queue.Released}, {Token: a, Before: queue.Active}},
			[]op{{verb: verbDeactivate, token: a}, {verb: verbUnqueue, end: 1, token: b}, {verb: verbRelease, token: b}},
			1,
		},
		{
			"a ticket that came back goes before the next one",
			tally{queue: 3, released: 1},
			[]queue.Change{{Token: a, Before: queue.Released, After: queue.Absent, Ahead: 1, Next: b}},
			[]op{{verb: verbUnrelease, token: a}, {verb: verbInsert, token: a, next: b}},
			2,
		},
		{
			"an appended visitor that another is put before is not left out",
			tally{released: 1},
			[]queue.Change{
				{Token: b, After: queue.Queued},
				{Token: a, Before: queue.Released, After: queue.Absent, Next: b},
				{Token: b, Before: queue.Queued, Ahead: 1},
			},
			[]op{
				{verb: verbUnrelease, token: a},
				{verb: verbQueue, token: b},
				{verb: verbInsert, token: a, next: b},
				{verb: verbUnqueue, end: -1, token: b},
			},
			2,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := newPlanner(c.held)
			groups, scan := p.plan(c.changes, nil)
			var got []op
			for _, g := range groups {
				got = append(got, g.ops...)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("ops %+v, want %+v", got, c.want)
			}
			if scan != c.scan {
				t.Errorf("walks over %d elements, want %d", scan, c.scan)
			}
		})
	}
}

func TestPlanBoundsAScript(t *testing.T) {
	r, p := newRoom(), newPlanner(tally{queue: 2_000_000})
	var changes []queue.Change
	for range 3 * groupOps {
		changes = append(changes, queue.Change{Token: r.newToken(), After: queue.Queued})
	}
	for range 10 {
		changes = append(changes, queue.Change{Token: r.newToken(), Before: queue.Queued, Ahead: 400_000})
	}
	groups, scan := p.plan(changes, nil)
	if len(groups) < 3+4 {
		t.Errorf("%d groups, want at least 3 for the arrivals and 4 for the walks", len(groups))
	}
	if want := 10 * 400_001; scan != want {
		t.Errorf("walks over %d elements, want %d", scan, want)
	}
	for i, g := range groups {
		if len(g.ops) > 2*groupOps || g.scan > groupScan+400_001 {
			t.Errorf("group %d has %d ops and walks over %d elements", i, len(g.ops), g.scan)
		}
	}
}

func TestTouchesCoalesce(t *testing.T) {
	r := newRoom()
	a, b, c := r.newToken(), r.newToken(), r.newToken()
	p := newPlanner(tally{active: 3})
	groups, _ := p.plan([]queue.Change{
		{Token: a, Before: queue.Active, After: queue.Active, Seen: 1},
		{Token: b, Before: queue.Active, After: queue.Active, Seen: 2},
		{Token: a, Before: queue.Active, After: queue.Active, Seen: 3},
		{Token: c, Before: queue.Active, After: queue.Active, Seen: 4},
		{Token: b, Before: queue.Active},
	}, nil)
	if len(groups) != 1 || groups[0].changes != 1 {
		t.Fatalf("groups %+v, want one for the visitor that left", groups)
	}
	got := p.takeTouches(nil, 10)
	slices.SortFunc(got, func(x, y op) int { return int(x.seen - y.seen) })
	want := []op{{verb: verbTouch, token: a, seen: 3}, {verb: verbTouch, token: c, seen: 4}}
	if !slices.Equal(got, want) {
		t.Errorf("touches %+v, want %+v", got, want)
	}
	if more := p.takeTouches(nil, 10); len(more) > 0 {
		t.Errorf("touches %+v are given twice", more)
	}
}
