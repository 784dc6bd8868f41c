package faults

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// An Outcome is what the answer to one request means.
type Outcome uint8

// The outcomes.
const (
	Failed  Outcome = iota // no answer, or one that says to come back
	Held                   // sent to the waiting page; no place was told
	Waiting                // told a place in line
	Turn                   // told that it is its turn
	Inside                 // answered by the origin
	Left                   // taken out by the admin API
)

func (o Outcome) String() string {
	return [...]string{"failed", "held", "waiting", "turn", "inside", "left"}[o]
}

// An Event is one request of a visitor. What owr decided for it, it decided between Sent and Got. All
// times are seconds of the one clock of the process that plays visitors and origin, so they compare exactly.
type Event struct {
	Visitor  string
	Node     string
	Sent     float64
	Got      float64
	Outcome  Outcome
	Position int     // Waiting: as told
	ID       string  // the visitor's id after the answer
	Hit      float64 // Inside: when the request reached the origin
	Detail   string  // Failed: why
	Shed     bool    // Failed: 503 with Retry-After
	Late     bool    // Failed: the visitor's patience was over
}

func (e Event) String() string {
	s := fmt.Sprintf("%s on %s %.2f-%.2f %v", e.Visitor, e.Node, e.Sent, e.Got, e.Outcome)
	if e.Position > 0 {
		s += fmt.Sprintf(" at %d", e.Position)
	}
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	return s
}

// A Fault is one piece of harm: it begins when the cluster was last known to be well and ends when it was
// known to be well again, which is every node ready and a write through each of them committed.
type Fault struct {
	Name     string
	Harmed   []string // nodes whose word and whose touches may be lost or late
	Majority bool     // whether a majority lived and was in reach of one another all the time
	Alive    bool     // whether all of them lived, and were no more than cut off: they let in whom they know to be inside
	Origin   bool     // whether the site itself was harmed, so that its errors are its own
	Elected  bool     // whether there were new leaders, so that expiry was held back
	Begun    float64
	Ended    float64
}

// forever is the end of a fault that has not ended.
var forever = math.Inf(1)

func (f Fault) overlaps(begun, ended float64) bool { return begun <= f.Ended && ended >= f.Begun }

// excuses reports whether the fault explains an error of some node. That Redis was harmed explains none.
func (f Fault) excuses() bool { return len(f.Harmed) > 0 || !f.Majority || f.Origin }

func (f Fault) harms(node string) bool { return slices.Contains(f.Harmed, node) }

// Rules are the limits of the room during a history, in seconds where they are times.
type Rules struct {
	MaxActive                        int
	ActiveTTL, ClaimTTL, QueueAbsent float64

	Late float64 // how many times as long each of them may take, where clocks are slow; 0: once
}

// most is the longest that a time of the rules may take.
func (r Rules) most(seconds float64) float64 { return seconds * max(r.Late, 1) }

// A Reading is one answer of /v1/status.
type Reading struct {
	Node  string
	At    float64
	Index uint64
	Sum   string
	Held  int // active and released
	Max   int
}

// A History is all that was seen from the outside during one run.
type History struct {
	Rules    Rules
	Events   []Event
	Faults   []Fault
	Readings []Reading
}

// start is the moment from which times are counted.
var start = time.Now()

// clock is the time now, in seconds of the monotonic clock.
func clock() float64 { return time.Since(start).Seconds() }
