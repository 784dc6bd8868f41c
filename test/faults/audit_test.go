package faults

import (
	"strings"
	"testing"
)

// history is a made-up one: one slot, no harm.
func history(events ...Event) History {
	return History{Rules: Rules{MaxActive: 1, ActiveTTL: 5, ClaimTTL: 6, QueueAbsent: 6}, Events: events}
}

// event is one request that took 50 ms.
func event(visitor, node string, sent float64, o Outcome, position int) Event {
	e := Event{Visitor: visitor, Node: node, Sent: sent, Got: sent + 0.05, Outcome: o, Position: position, ID: "id of " + visitor}
	if o == Inside {
		e.Hit = sent + 0.02
	}
	return e
}

// waiting is a visitor who asks once a second, from..to, always told the same place.
func waiting(visitor string, from, to float64, position int) []Event {
	var events []Event
	for at := from; at <= to; at++ {
		events = append(events, event(visitor, "n1", at, Waiting, position))
	}
	return events
}

func (h History) with(f Fault) History {
	h.Faults = append(h.Faults, f)
	return h
}

func as(e Event, id string) Event {
	e.ID = id
	return e
}

func late(e Event) Event {
	e.Late = true
	return e
}

// TestAuditCatches plays, for each kind of violation, a history that has it and the same one with what excuses it.
func TestAuditCatches(t *testing.T) {
	onN1 := Fault{Name: "on n1", Harmed: []string{"n1"}, Majority: true, Begun: 0, Ended: 10}
	cutN1 := Fault{Name: "n1 is cut off", Harmed: []string{"n1"}, Majority: true, Alive: true, Begun: 0, Ended: 10}
	cutAll := Fault{Name: "all are cut off", Harmed: []string{"n1", "n2", "n3"}, Alive: true, Begun: 0, Ended: 10}
	onRedis := Fault{Name: "on Redis", Majority: true, Begun: 0, Ended: 10}
	nobody := Fault{Name: "no majority", Begun: 0, Ended: 10}
	site := Fault{Name: "on the origin", Majority: true, Origin: true, Begun: 0, Ended: 10}
	both := []Event{event("a", "n1", 0, Inside, 0), event("b", "n2", 1, Inside, 0)}
	passed := append(waiting("a", 0, 9, 1), event("b", "n2", 3, Held, 0), event("b", "n2", 4, Inside, 0))
	// a comes back to the line at 7, when it may have been passed over, and asks on.
	returned := func(took float64, more ...Event) History {
		r := event("a", "n1", 7, Waiting, 1)
		r.Got = 7 + took
		return history(append(append(more, event("a", "n1", 0, Waiting, 1), r), waiting("a", 11, 16, 1)...)...)
	}
	last, in := event("b", "n2", 9, Waiting, 2), event("b", "n2", 11.2, Inside, 0)
	back := append(waiting("a", 0, 10, 1), event("b", "n2", -1, Inside, 0), event("b", "n2", 7.5, Inside, 0))
	for _, c := range []struct {
		name string
		h    History
		kind string // "": nothing is found
	}{
		{"nothing", history(), ""},
		{"one after the other", history(both[0], event("b", "n2", 4, Inside, 0)), ""},
		{"two in one slot", history(both...), "cap exceeded, as the origin saw it"},
		{"two in one slot, browsing on", history(both[0], event("a", "n1", 3, Inside, 0), event("b", "n2", 6, Inside, 0)), "cap exceeded, as the origin saw it"},
		{"the first one has left", history(both[0], event("a", "admin", 0.5, Left, 0), both[1]), ""},
		{"the first one's touch may be lost with its node", history(both...).with(onN1), ""},
		{"that Redis was away excuses nothing", history(both...).with(onRedis), "cap exceeded, as the origin saw it"},
		{"a table over its limit", History{Readings: []Reading{{Node: "n1", Index: 7, Held: 2, Max: 1}}}, "cap exceeded in a table"},
		{"a full table", History{Readings: []Reading{{Node: "n1", Index: 7, Held: 1, Max: 1}}}, ""},
		{"two sums", History{Readings: []Reading{{Node: "n1", Index: 7, Sum: "a"}, {Node: "n2", Index: 7, Sum: "b"}}}, "two tables at one index"},
		{"two indexes", History{Readings: []Reading{{Node: "n1", Index: 7, Sum: "a"}, {Node: "n2", Index: 8, Sum: "b"}}}, ""},
		{"a later one is let in", history(passed...), "overtakings"},
		{"and a node elsewhere was harmed", history(passed...).with(Fault{Harmed: []string{"n3"}, Majority: true, Begun: 0, Ended: 10}), "overtakings"},
		{"the one passed was away", history(append(append(waiting("a", 0, 0, 1), waiting("a", 7, 9, 1)...), event("b", "n2", 3, Held, 0), event("b", "n2", 4, Inside, 0))...), ""},
		{"the one passed had come back", returned(0.05, event("b", "n2", 3, Held, 0), last, in), "overtakings"},
		{"the one passed had come back with a commit that took long", returned(2.5, event("b", "n2", 3, Held, 0), last, in), ""},
		{"the one passed had come back, for all that could commit", returned(3.1, event("b", "n2", 3, Held, 0), event("b", "n2", 12, Waiting, 2), event("b", "n2", 13, Inside, 0)), ""},
		{"the other one came first", history(append(waiting("a", 3, 9, 1), event("b", "n2", 2.9, Held, 0), event("b", "n2", 4, Inside, 0))...), ""},
		{"back inside after its slot has ended", history(back...), "overtakings"},
		{"back inside, and new leaders have held expiry back", history(back...).with(Fault{Majority: true, Elected: true, Begun: 0, Ended: 5}), ""},
		{"a place that is worse", history(event("a", "n1", 0, Waiting, 3), event("a", "n2", 3, Waiting, 4)), "places lost"},
		{"a place that is worse for good", history(event("a", "n1", 0, Waiting, 4), event("a", "n2", 1, Waiting, 3), event("a", "n2", 2, Waiting, 4), event("a", "n2", 4, Waiting, 4)), "places lost"},
		{"a place that is worse on a node that is behind", history(event("a", "n1", 0, Waiting, 4), event("a", "n2", 1, Waiting, 3), event("a", "n3", 2, Waiting, 4), event("a", "n3", 4, Waiting, 3)), ""},
		{"a place that is better", history(event("a", "n1", 0, Waiting, 4), event("a", "n2", 1, Waiting, 3)), ""},
		{"a place behind one who came back", history(append([]Event{event("b", "n1", 0, Turn, 0)}, event("a", "n1", 5, Waiting, 3), event("a", "n2", 8, Waiting, 4))...), ""},
		{"two places behind one who came back", history(append([]Event{event("b", "n1", 0, Turn, 0)}, event("a", "n1", 5, Waiting, 3), event("a", "n2", 8, Waiting, 5))...), "places lost"},
		{"inside, then told to wait", history(event("a", "n1", 0, Inside, 0), event("a", "n2", 2, Waiting, 9)), "early expiries"},
		{"inside, then sent to the waiting page", history(event("a", "n1", 0, Inside, 0), event("a", "n2", 2, Held, 0)), "early expiries"},
		{"inside, then sent to the waiting page by a node that is cut off", history(event("a", "n2", 0, Inside, 0), event("a", "n1", 2, Held, 0)).with(onN1), ""},
		{"inside, then told a place by a node that is cut off", history(event("a", "n2", 0, Inside, 0), event("a", "n1", 2, Waiting, 9)).with(onN1), "early expiries"},
		{"inside, then away for long", history(event("a", "n1", 0, Inside, 0), event("a", "n2", 4, Waiting, 9)), ""},
		{"inside on a harmed node, then told to wait", history(event("a", "n1", 0, Inside, 0), event("a", "n2", 2, Waiting, 9)).with(onN1), ""},
		{"another id in line", history(event("a", "n1", 0, Waiting, 3), as(event("a", "n2", 1, Waiting, 3), "other")), "backward steps"},
		{"another id before there was a place", history(event("a", "n1", 0, Held, 0), as(event("a", "n2", 1, Waiting, 3), "other")), ""},
		{"its turn, then none", history(event("a", "n1", 0, Turn, 0), event("a", "n2", 1, Held, 0)), "backward steps"},
		{"an error on a good day", history(event("a", "n1", 0, Failed, 0)), "failed requests while well"},
		{"an error while Redis is away", history(event("a", "n1", 1, Failed, 0)).with(onRedis), "failed requests while well"},
		{"a newcomer turned away after an election", history(event("a", "n2", 12, Failed, 0)).with(onN1), ""},
		{"one in line turned away after an election", history(event("a", "n2", 11, Waiting, 3), event("a", "n2", 12, Failed, 0)).with(onN1), "failed requests while well"},
		{"a newcomer turned away long after it", history(event("a", "n2", 16, Failed, 0)).with(onN1), "failed requests while well"},
		{"an error of a newcomer in an election", history(event("a", "n2", 1, Failed, 0)).with(onN1), ""},
		{"an error of one inside in an election", history(event("a", "n2", 0, Inside, 0), event("a", "n2", 1, Failed, 0)).with(onN1), "failed requests of those inside while a majority lived"},
		{"an error of one inside on the harmed node", history(event("a", "n2", 0, Inside, 0), event("a", "n1", 1, Failed, 0)).with(onN1), ""},
		{"an error of one inside without a majority", history(event("a", "n2", -2, Inside, 0), event("a", "n2", 1, Failed, 0)).with(nobody), ""},
		{"an error of one inside when the site is down", history(event("a", "n2", 0, Inside, 0), event("a", "n2", 1, Failed, 0)).with(site), ""},
		{"inside, and an error of a node that is cut off", history(event("a", "n2", -2, Inside, 0), event("a", "n1", 1, Failed, 0)).with(cutN1), "inside and refused by a node that was cut off"},
		{"inside, and sent to the waiting page by it", history(event("a", "n1", -2, Inside, 0), event("a", "n1", 1, Held, 0)).with(cutN1), "inside and refused by a node that was cut off"},
		{"inside, and an error where nobody has a majority", history(event("a", "n2", -2, Inside, 0), event("a", "n3", 1, Failed, 0)).with(cutAll), "inside and refused by a node that was cut off"},
		{"inside elsewhere meanwhile, and an error of it", history(event("a", "n2", -2, Inside, 0), event("a", "n2", 0.5, Inside, 0), event("a", "n1", 1, Failed, 0)).with(cutN1), "inside and refused by a node that was cut off"},
		{"inside, and let in by it", history(event("a", "n2", -2, Inside, 0), event("a", "n1", 1, Inside, 0)).with(cutN1), ""},
		{"inside only since the cut", history(event("a", "n2", 0.5, Inside, 0), event("a", "n1", 1, Failed, 0)).with(cutN1), ""},
		{"inside too short a time before the cut", history(event("a", "n2", -1, Inside, 0), event("a", "n1", 1, Failed, 0)).with(cutN1), ""},
		{"inside too long before", history(event("a", "n2", -2, Inside, 0), event("a", "n1", 2, Failed, 0)).with(cutN1), ""},
		{"inside, and it took too long", history(event("a", "n2", -2, Inside, 0), late(event("a", "n1", 1, Failed, 0))).with(cutN1), ""},
		{"inside, and it has left", history(event("a", "n2", -2, Inside, 0), event("a", "admin", 0.5, Left, 0), event("a", "n1", 1, Held, 0)).with(cutN1), ""},
		{"inside, and the site is down as well", history(event("a", "n2", -2, Inside, 0), event("a", "n1", 1, Failed, 0)).with(cutN1).with(site), ""},
		{"inside, and it is paused as well", history(event("a", "n2", -2, Inside, 0), event("a", "n1", 1, Failed, 0)).with(cutN1).with(onN1), ""},
	} {
		f := Check(c.h)
		var got []string
		for _, k := range f.Kinds() {
			if len(k.Found) > 0 {
				got = append(got, k.Name)
			}
		}
		if strings.Join(got, ", ") != c.kind {
			t.Errorf("%s: found %q, want %q: %+v", c.name, got, c.kind, f)
		}
	}
}

// A newcomer that is asked to come back is a violation of its own kind. Whoever has a place, or had no answer at all, is none of them.
func TestNewcomersThatAreTurnedAwayAreToldApart(t *testing.T) {
	away := func(visitor string, at float64) Event {
		e := event(visitor, "n1", at, Failed, 0)
		e.Shed = true
		return e
	}
	for _, c := range []struct {
		name         string
		h            History
		shed, failed int
	}{
		{"a newcomer", history(away("b", 1)), 1, 0},
		{"one that was told its place", history(event("b", "n1", 0, Waiting, 3), away("b", 1)), 0, 1},
		{"one that had no answer at all", history(event("b", "n1", 1, Failed, 0)), 0, 1},
		{"a newcomer soon after harm", history(away("b", 12)).with(Fault{Harmed: []string{"n1"}, Majority: true, Begun: 5, Ended: 10}), 0, 0},
	} {
		if f := Check(c.h); len(f.Shed) != c.shed || len(f.Unanswered) != c.failed || f.Count() != c.shed+c.failed {
			t.Errorf("%s: turned away %v, failed %v", c.name, f.Shed, f.Unanswered)
		}
	}
}

func TestGapLooksAtTheHarmOnly(t *testing.T) {
	f := Fault{Begun: 10, Ended: 14}
	h := history(event("a", "n1", 0, Inside, 0), event("b", "n1", 9, Inside, 0), event("c", "n1", 12, Waiting, 1), event("d", "n1", 15, Waiting, 2), event("e", "n1", 30, Waiting, 3))
	if got := Gap(h, f); got < 2.99 || got > 3.01 {
		t.Errorf("gap %.2f, want 3", got)
	}
}

func TestSummaryCountsWhatWasFound(t *testing.T) {
	a := Result{Cell: cells[0].name, Kind: "kill -9", Requests: 10, Gap: 1, Findings: Findings{Overtakings: []string{"x", "y"}}, Failed: true}
	b := Result{Cell: cells[1].name, Kind: "kill -9", Requests: 20, Gap: 3}
	skipped := Result{Cell: cells[2].name, Kind: "disk", Skipped: "why"}
	dir := t.TempDir()
	for _, r := range []Result{a, b, skipped} {
		must(t, r.save(dir))
	}
	all, err := load(dir)
	must(t, err)
	var out strings.Builder
	must(t, summarize(&out, all))
	for _, want := range []string{"| runs, and failed ones | 2, 1 |", "kill -9 2", "| operations | 30 |", "| overtakings | 2 |", "skipped: why", "p50 and p99 of the runs | 3.0 s, 3.0 s |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
}

func TestCellsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range cells {
		if seen[c.name] || c.kind == "" || c.expect == "" || c.harm == nil {
			t.Errorf("%q: twice, or not whole", c.name)
		}
		seen[c.name] = true
	}
}
