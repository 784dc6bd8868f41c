package harness

import (
	"fmt"
	"testing"
	"time"
)

// at is a moment of a made-up history, in seconds.
func at(seconds float64) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

func TestOverCapCountsVisitorsBetweenTheirFirstAndLastHit(t *testing.T) {
	hit := func(visitor string, seconds float64) Hit { return Hit{Visitor: visitor, At: at(seconds)} }
	for _, c := range []struct {
		name string
		hits []Hit
		max  int
		want int
	}{
		{"nobody", nil, 0, 0},
		{"one after the other", []Hit{hit("a", 0), hit("a", 1), hit("b", 2), hit("b", 3)}, 1, 0},
		{"two at once", []Hit{hit("a", 0), hit("b", 1), hit("a", 2), hit("b", 3)}, 1, 1},
		{"two at once with two slots", []Hit{hit("a", 0), hit("b", 1), hit("a", 2)}, 2, 0},
		{"in any order of the log", []Hit{hit("a", 2), hit("b", 1), hit("a", 0)}, 1, 1},
		{"one hit each at one moment", []Hit{hit("a", 1), hit("b", 1)}, 1, 1},
		{"a slot where there is none", []Hit{hit("a", 1)}, 0, 1},
	} {
		if got := OverCap(c.hits, c.max); len(got) != c.want {
			t.Errorf("%s: %v, want %d", c.name, got, c.want)
		}
	}
}

func TestOvertakenFindsWhoWaitsBehindALaterOne(t *testing.T) {
	event := func(visitor string, sent float64, o Outcome, position int, known bool) Event {
		return Event{Visitor: visitor, Sent: at(sent), Got: at(sent + 0.1), Outcome: o, Position: position, Known: known}
	}
	first := []Event{event("a", 0, Waiting, 0, false), event("a", 0.2, Waiting, 1, true)}
	for _, c := range []struct {
		name string
		rest []Event
		want int
	}{
		{"b waits behind a", []Event{event("b", 1, Waiting, 2, true), event("a", 2, Inside, 0, true), event("b", 3, Inside, 0, true)}, 0},
		{"b is in and a waits on", []Event{event("b", 1, Inside, 0, false), event("a", 3, Waiting, 1, true)}, 1},
		{"b is let in and a waits on", []Event{event("b", 1, LetIn, 0, false), event("a", 3, Waiting, 1, true)}, 1},
		{"a waits on for less than the slack", []Event{event("b", 1, Inside, 0, false), event("a", 1.5, Waiting, 1, true)}, 0},
		{"a has failed since", []Event{event("b", 1, Inside, 0, false), event("a", 3, Failed, 0, true)}, 0},
		{"b began before a was told", []Event{event("b", 0.1, Failed, 0, false), event("b", 1, Inside, 0, true), event("a", 3, Waiting, 1, true)}, 0},
	} {
		if got := Overtaken(append(append([]Event(nil), first...), c.rest...), time.Second); len(got) != c.want {
			t.Errorf("%s: %v, want %d", c.name, got, c.want)
		}
	}
	estimate := []Event{event("a", 0, Waiting, 7, false), event("b", 1, Inside, 0, false), event("a", 3, Waiting, 0, true)}
	if got := Overtaken(estimate, time.Second); len(got) != 0 {
		t.Errorf("an estimate is no ticket: %v", got)
	}
}

func TestPortsAreNotGivenTwice(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		p := Port(t)
		if seen[p] {
			t.Fatalf("port %d twice", p)
		}
		seen[p] = true
	}
}

func TestPollGivesUp(t *testing.T) {
	asked := 0
	if Poll(3*pause, func() bool { asked++; return false }) || asked < 2 {
		t.Errorf("asked %d times", asked)
	}
	if !Poll(time.Minute, func() bool { return true }) {
		t.Error("what is true at once is not seen")
	}
}

func TestTail(t *testing.T) {
	if got := tail("a\nb\nc\n", 2); got != "b\nc" {
		t.Errorf("got %q", got)
	}
	if got := fmt.Sprintf("%q", tail("", 2)); got != `""` {
		t.Errorf("got %s", got)
	}
}
