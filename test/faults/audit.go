package faults

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
)

// The allowances of the audit, in seconds. Every bound errs to the side of silence: what is
// reported cannot be explained by a slow network, a touch that waits for its flush, or a replica that is
// one commit behind.
const (
	flushTime = 1.0  // a node may hold back the news of a visitor for so long
	edgeTime  = 0.25 // a commit, and scheduling on a busy machine
	staleTime = 1.5  // how far behind the answer of a healthy node may be

	decisionTime = 3.0 // how long a node waits for a commit; who has a place is then told the last one all the same
	shedTime     = 5.0 // for how long after harm that made commits slow a node may turn arrivals away
)

// Findings are the violations in one history, by kind. An empty list is what is promised.
type Findings struct {
	OverCap      []string // more visitors surely inside than slots, as the origin saw it
	OverTable    []string // more slots held than there are, in a node's table
	Overtakings  []string // let in past a present visitor with a lower ticket
	LostPlaces   []string // a told place that is worse afterwards, without anybody who came back
	EarlyExpiry  []string // told to wait while the slot was surely kept
	Backward     []string // a state or an identity that went back
	TwoSums      []string // two tables at one applied index
	Unanswered   []string // an error while the cluster was well
	Shed         []string // the same of a newcomer that was asked to come back, as in an overload
	FailedInside []string // an error for a visitor inside, on an unharmed node, while a majority lived
	Refused      []string // somebody inside who was not let in by a node that was cut off and knew of it
}

// Kinds are the findings with their names, in the order of a report.
func (f Findings) Kinds() []Kind {
	return []Kind{
		{"cap exceeded, as the origin saw it", f.OverCap},
		{"cap exceeded in a table", f.OverTable},
		{"overtakings", f.Overtakings},
		{"places lost", f.LostPlaces},
		{"early expiries", f.EarlyExpiry},
		{"backward steps", f.Backward},
		{"two tables at one index", f.TwoSums},
		{"failed requests while well", f.Unanswered},
		{"newcomers asked to come back while well", f.Shed},
		{"failed requests of those inside while a majority lived", f.FailedInside},
		{"inside and refused by a node that was cut off", f.Refused},
	}
}

// A Kind is one kind of violation and what was found of it.
type Kind struct {
	Name  string
	Found []string
}

// Count is the number of all violations.
func (f Findings) Count() (n int) {
	for _, k := range f.Kinds() {
		n += len(k.Found)
	}
	return n
}

// Check audits a history. It is pure: no clock and no I/O.
func Check(h History) Findings {
	a := newAudit(h)
	f := Findings{
		OverCap: a.overCap(), OverTable: a.overTable(), Overtakings: a.overtakings(), LostPlaces: a.lostPlaces(), TwoSums: a.twoSums(),
	}
	f.EarlyExpiry, f.Backward = a.wentBack()
	f.Unanswered, f.Shed, f.FailedInside = a.failures()
	f.Refused, _ = a.refused()
	return f
}

// audit is a history in the order in which it is looked at.
type audit struct {
	History
	visitors [][]Event // of one visitor each, by time sent
	stays    []stay
}

// A stay is one visitor's way from its first request to a slot, as the visitor saw it. Its ticket was made
// after "after", and not later than "by".
type stay struct {
	visitor  string
	after    float64
	by       float64 // got of the first answer with a place; infinite when there was none
	waits    []Event // with a place, in order
	admitted bool
	last     float64 // admitted: sent of the last request that was still told to wait, or after
	in       float64 // admitted: got of the answer that let it in
}

func newAudit(h History) *audit {
	a := &audit{History: h}
	by := map[string][]Event{}
	for _, e := range h.Events {
		by[e.Visitor] = append(by[e.Visitor], e)
	}
	for _, events := range by {
		slices.SortFunc(events, func(x, y Event) int { return cmp.Compare(x.Sent, y.Sent) })
		a.visitors = append(a.visitors, events)
	}
	slices.SortFunc(a.visitors, func(x, y []Event) int { return cmp.Compare(x[0].Sent, y[0].Sent) })
	for _, events := range a.visitors {
		a.stays = append(a.stays, a.staysOf(events)...)
	}
	return a
}

// durable reports whether the request surely counts as a sign of life. It does not when its node was
// harmed before the touch had to be flushed, nor when no majority was there to commit it. On an unharmed node
// it does count during an election, because an election expires nobody (I4).
func (a *audit) durable(e Event) bool {
	if e.Outcome != Inside && e.Outcome != Waiting {
		return false
	}
	return !slices.ContainsFunc(a.Faults, func(f Fault) bool {
		return (f.harms(e.Node) || !f.Majority) && f.overlaps(e.Sent, e.Got+flushTime)
	})
}

// keptUntil is the time until which a durable Inside surely keeps its slot: active_ttl counts from the
// decision, which came after Sent.
func (a *audit) keptUntil(e Event) float64 { return e.Sent + a.Rules.ActiveTTL - flushTime - edgeTime }

// harmed reports whether the node that answered was harmed then, or alone with the others.
func (a *audit) harmed(e Event) bool {
	return slices.ContainsFunc(a.Faults, func(f Fault) bool { return (f.harms(e.Node) || !f.Majority) && f.overlaps(e.Sent, e.Got) })
}

// harm reports whether any node was harmed in between, or another one led.
func (a *audit) harm(begun, ended float64) bool {
	return slices.ContainsFunc(a.Faults, func(f Fault) bool { return (len(f.Harmed) > 0 || f.Elected) && f.overlaps(begun, ended) })
}

func (a *audit) staysOf(events []Event) []stay {
	var found []stay
	var current *stay
	after := math.NaN()
	var lastIn *Event
	for i, e := range events {
		if e.Outcome == Left {
			break
		}
		if math.IsNaN(after) {
			after = e.Sent
		}
		switch e.Outcome {
		case Waiting:
			if current == nil {
				current = &stay{visitor: e.Visitor, after: after, by: e.Got}
			}
			current.waits = append(current.waits, e)
		case Inside, Turn:
			switch {
			case current != nil:
				current.admitted, current.last, current.in = true, current.waits[len(current.waits)-1].Sent, e.Got
				found = append(found, *current)
			case e.Outcome == Inside && (lastIn == nil || a.gone(*lastIn, e)):
				found = append(found, stay{visitor: e.Visitor, after: after, by: forever, admitted: true, last: after, in: e.Got})
			}
			current = nil
			if e.Outcome == Inside {
				// A later ticket is made by a later request. After Turn alone that is not sure: who does not take its
				// slot has its old ticket back.
				after, lastIn = math.NaN(), &events[i]
			}
		case Failed, Held, Left:
		}
	}
	if current != nil {
		found = append(found, *current)
	}
	return found
}

// gone reports whether the slot of last had surely ended when e was let in. Around harm it is not sure, since a
// new leader holds expiry back.
func (a *audit) gone(last, e Event) bool {
	return e.Sent-last.Got > a.Rules.most(a.Rules.ActiveTTL)+2*flushTime && !a.harm(last.Got, e.Got)
}

// overCap counts who surely holds a slot: from the moment at which a durable request reached the origin,
// until the slot may have ended or the visitor was taken out. That is never more than the table holds, so a count
// above the limit breaks I1 or I4.
func (a *audit) overCap() []string {
	type edge struct {
		at   float64
		step int
	}
	var edges []edge
	for _, events := range a.visitors {
		left := forever
		for _, e := range events {
			if e.Outcome == Left {
				left = min(left, e.Sent)
			}
		}
		end := math.Inf(-1)
		for _, e := range events {
			if e.Outcome != Inside || !a.durable(e) {
				continue
			}
			begun, ends := e.Got, min(a.keptUntil(e), left)
			if e.Hit > 0 {
				begun = e.Hit
			}
			if ends <= begun {
				continue
			}
			if begun <= end { // it goes on
				if ends > end {
					edges = append(edges, edge{end, 1}, edge{ends, -1})
					end = ends
				}
				continue
			}
			edges = append(edges, edge{begun, 1}, edge{ends, -1})
			end = ends
		}
	}
	// Ends first: at one moment one may go and another come.
	slices.SortFunc(edges, func(x, y edge) int { return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.step, y.step)) })
	var found []string
	held := 0
	for _, e := range edges {
		held += e.step
		if e.step > 0 && held > a.Rules.MaxActive {
			found = append(found, fmt.Sprintf("%d hold one of %d slots at %.2f", held, a.Rules.MaxActive, e.at))
		}
	}
	return found
}

func (a *audit) overTable() []string {
	var found []string
	for _, r := range a.Readings {
		if r.Held > r.Max {
			found = append(found, fmt.Sprintf("%s holds %d of %d slots at index %d", r.Node, r.Held, r.Max, r.Index))
		}
	}
	return found
}

func (a *audit) twoSums() []string {
	var found []string
	first := map[uint64]Reading{}
	for _, r := range a.Readings {
		f, seen := first[r.Index]
		if !seen {
			first[r.Index] = r
		} else if f.Sum != r.Sum {
			found = append(found, fmt.Sprintf("index %d: %s on %s, %s on %s", r.Index, f.Sum, f.Node, r.Sum, r.Node))
		}
	}
	return found
}

// reach is how far apart two signs of life of a visitor may be that was surely present in between, and was not
// promoted and passed over unseen, nor let in by an answer that it never had.
func (a *audit) reach() float64 {
	return min(a.Rules.QueueAbsent, a.Rules.ClaimTTL, a.Rules.ActiveTTL+flushTime) - flushTime - edgeTime
}

// overtakings finds a visitor b that was let in past another one, a. All of this holds then:
//   - a was told its place before b's first request that can have made b's ticket, so a's ticket is lower;
//   - a was still told to wait, in a durable request sent more than staleTime after b was let in, within the
//     same stay: a's ticket was in line when b's slot was given;
//   - a was present all the time in which that can have been.
func (a *audit) overtakings() []string {
	type line struct {
		of    *stay
		marks []mark
	}
	var lines []line
	for i := range a.stays {
		l := line{of: &a.stays[i], marks: a.marks(a.stays[i].waits)}
		if len(l.marks) > 1 {
			lines = append(lines, l)
		}
	}
	slices.SortFunc(lines, func(x, y line) int { return cmp.Compare(x.of.by, y.of.by) })
	var found []string
	for _, b := range a.stays {
		if !b.admitted {
			continue
		}
		begun, ended := b.last-staleTime, b.in+staleTime
		before := sort.Search(len(lines), func(i int) bool { return lines[i].of.by >= b.after })
		for _, l := range lines[:before] {
			if l.of.visitor != b.visitor && l.marks[len(l.marks)-1].Sent > ended && a.present(l.marks, begun, ended) {
				found = append(found, fmt.Sprintf("%s (first asked at %.2f, in by %.2f) passed %s (had its place by %.2f, waits still: %v)",
					b.visitor, b.after, b.in, l.of.visitor, l.of.by, l.marks[len(l.marks)-1]))
			}
		}
	}
	return found
}

// A mark is a durable sign of life of a visitor in line. since is when it surely counts.
type mark struct {
	Event
	since float64
}

// marks are those of a stay. Most are touches, which count from when they were seen, however late they commit. Who may have been passed over before
// is back with a commit, somewhere between question and answer; and not for sure with the answer of a node that could not
// commit, and told the place that the visitor had.
func (a *audit) marks(waits []Event) []mark {
	var marks []mark
	for _, e := range waits {
		if !a.durable(e) {
			continue
		}
		m := mark{e, e.Sent}
		if n := len(marks); n > 0 && e.Sent-marks[n-1].Sent >= a.reach() {
			if e.Got-e.Sent >= decisionTime {
				continue
			}
			m.since = e.Got
		}
		marks = append(marks, m)
	}
	return marks
}

// present reports whether the marks lie close enough all the way from begun to ended.
func (a *audit) present(marks []mark, begun, ended float64) bool {
	first := sort.Search(len(marks), func(i int) bool { return marks[i].since > begun }) - 1
	if first < 0 {
		return false
	}
	for i := first; i+1 < len(marks) && marks[i].Sent <= ended; i++ {
		if marks[i+1].Sent-marks[i].Sent >= a.reach() {
			return false
		}
	}
	return true
}

// lostPlaces finds positions that rise. A position rises only when somebody with a lower ticket comes back into
// the line: one that was released and did not claim, or claimed and never heard of it, after a silence of its own of at least reach. Each such
// visitor may add one; a rise by more than the number of those for whom it can be is a lost place. An answer is compared with the
// best one of more than staleTime before, since a replica may be that far behind another one.
func (a *audit) lostPlaces() []string {
	var starts, ends []float64
	for _, events := range a.visitors {
		var answered []Event
		for _, e := range events {
			if e.Outcome != Failed && e.Outcome != Left {
				answered = append(answered, e)
			}
		}
		for i, e := range answered {
			if e.Outcome == Inside {
				continue
			}
			gone := e.Sent + a.Rules.most(a.Rules.QueueAbsent+a.Rules.ClaimTTL) + 2*flushTime + 5
			switch {
			case i+1 == len(answered):
				starts, ends = append(starts, e.Sent+a.reach()), append(ends, gone)
			case answered[i+1].Got-e.Sent > a.reach():
				starts, ends = append(starts, e.Sent+a.reach()), append(ends, max(gone, answered[i+1].Got+staleTime))
			}
		}
	}
	slices.Sort(starts)
	slices.Sort(ends)
	var found []string
	for _, s := range a.stays {
		var marks []Event
		for _, e := range s.waits {
			if a.durable(e) {
				marks = append(marks, e)
			}
		}
		var best *Event
		old := 0
		for _, e := range marks {
			for ; marks[old].Got+staleTime < e.Sent; old++ {
				if best == nil || marks[old].Position <= best.Position {
					best = &marks[old]
				}
			}
			if best == nil || e.Position <= best.Position {
				continue
			}
			back := sort.Search(len(starts), func(i int) bool { return starts[i] > e.Got }) - sort.SearchFloat64s(ends, best.Sent-staleTime)
			if e.Position-best.Position > back {
				found = append(found, fmt.Sprintf("%v, then %v: %d can have come back", *best, e, back))
			}
		}
	}
	return found
}

// wentBack finds who was told to wait while its last durable Inside still kept the slot, and who was given another
// id while it had a slot or a told place.
func (a *audit) wentBack() (early, backward []string) {
	for _, events := range a.visitors {
		var holds, last *Event
		for i, e := range events {
			if e.Outcome == Left {
				break
			}
			kept := holds != nil && e.Sent < a.keptUntil(*holds)
			// A node that is cut off cannot know who has come in elsewhere meanwhile. It may send such a visitor to the waiting page, but
			// not tell it a place.
			if kept && (e.Outcome == Waiting || e.Outcome == Held && !a.harmed(e)) {
				early = append(early, fmt.Sprintf("%v, then %v: the slot was kept until %.2f", *holds, e, a.keptUntil(*holds)))
			}
			if e.Outcome == Failed {
				continue
			}
			if last != nil && e.ID != last.ID && (kept || last.Outcome == Waiting && e.Sent-last.Sent < a.Rules.QueueAbsent) {
				backward = append(backward, fmt.Sprintf("%v, then %v: another id", *last, e))
			}
			if e.Outcome == Held && last != nil && last.Outcome == Turn && e.Sent-last.Sent < a.Rules.ClaimTTL/2 && !a.harm(last.Sent, e.Got) {
				backward = append(backward, fmt.Sprintf("%v, then %v: it was its turn", *last, e))
			}
			if e.Outcome == Inside {
				if holds = nil; a.durable(e) {
					holds = &events[i]
				}
			}
			last = &events[i]
		}
	}
	return early, backward
}

// failures finds errors that no fault explains: any while the cluster was well, and one of a visitor that surely
// kept its slot, on an unharmed node, while a majority lived. Of those while it was well, it tells apart newcomers that were asked to come back.
func (a *audit) failures() (well, shed, inside []string) {
	for _, events := range a.visitors {
		var holds *Event
		nothing := true // it has neither a place nor a slot to lose
		for i, e := range events {
			nothing = nothing && (e.Outcome == Failed || e.Outcome == Held)
			switch e.Outcome {
			case Failed:
				around := func(f Fault) bool {
					return f.excuses() && (f.overlaps(e.Sent, e.Got) || nothing && f.overlaps(e.Sent-shedTime, e.Got))
				}
				excused := func(f Fault) bool { return around(f) && (f.harms(e.Node) || !f.Majority || f.Origin) }
				switch {
				case !slices.ContainsFunc(a.Faults, around) && nothing && e.Shed:
					shed = append(shed, e.String())
				case !slices.ContainsFunc(a.Faults, around):
					well = append(well, e.String())
				case holds != nil && e.Got < a.keptUntil(*holds) && !slices.ContainsFunc(a.Faults, excused):
					inside = append(inside, e.String())
				}
			case Inside:
				if holds = nil; a.durable(e) {
					holds = &events[i]
				}
			case Waiting, Held, Turn, Left:
				holds = nil
			}
		}
	}
	return well, shed, inside
}

// refused finds who was inside and was not let in by a node that was alive and cut off. Such a node serves on from the table that it
// has, and lets in whoever is inside by it, up to the deadline that it knows (I5). So the visitor has to have been inside long enough before
// the cut for every node to have heard of it; what was seen of the visitor since then may not have come to this node. It answers
// how many requests it has looked at, too.
func (a *audit) refused() (found []string, looked int) {
	for _, f := range a.Faults {
		if !f.Alive {
			continue
		}
		for _, events := range a.visitors {
			var holds *Event // the newest that the node surely knows of
			for i, e := range events {
				if e.Outcome == Left {
					break
				}
				asked := f.harms(e.Node) && e.Sent >= f.Begun && e.Sent <= f.Ended
				if holds != nil && asked && e.Got < a.keptUntil(*holds)-edgeTime && !e.Late && !a.harmedOtherwise(e) {
					if looked++; e.Outcome == Held || e.Outcome == Failed {
						found = append(found, fmt.Sprintf("%v, then %v: cut off from %.2f on", *holds, e, f.Begun))
					}
				}
				switch e.Outcome {
				case Inside:
					if e.Got+staleTime < f.Begun {
						if holds = nil; a.durable(e) {
							holds = &events[i]
						}
					}
				case Waiting, Held, Turn:
					holds = nil
				case Failed, Left:
				}
			}
		}
	}
	return found, looked
}

// harmedOtherwise reports whether more was the matter with the node, or with what it needs to let somebody in, than that it was cut off.
func (a *audit) harmedOtherwise(e Event) bool {
	return slices.ContainsFunc(a.Faults, func(f Fault) bool {
		return !f.Alive && (f.harms(e.Node) || f.Origin) && f.overlaps(e.Sent, e.Got)
	})
}

// Gap is the longest time around the fault in which nobody was given a ticket or a slot.
func Gap(h History, f Fault) float64 {
	a := newAudit(h)
	marks := []float64{}
	for _, s := range a.stays {
		for _, at := range []float64{s.by, s.in} {
			if at > 0 && at < forever {
				marks = append(marks, at)
			}
		}
	}
	slices.Sort(marks)
	longest := 0.0
	for i := 1; i < len(marks); i++ {
		if f.overlaps(marks[i-1], marks[i]) {
			longest = max(longest, marks[i]-marks[i-1])
		}
	}
	return longest
}
