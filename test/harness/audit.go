package harness

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// orderSlack is how long a node may answer as of the table before the newest commit.
const orderSlack = time.Second

// Audit checks, at the end of a test and with everybody quiet, what must hold whatever happened:
// no more visitors inside than slots, tickets honored in order, equal tables on all nodes, and a
// Redis that shows the table. The crowd is who has not left.
func (w *World) Audit(crowd []*Browser) {
	w.t.Helper()
	hits, events := w.Origin.Hits(), w.Events()
	report(w, "more visitors inside than slots", OverCap(hits, w.Max))
	report(w, "passed in line", Overtaken(events, orderSlack))
	for _, e := range events {
		if e.Err != nil && e.Status != 0 {
			w.t.Errorf("an answer that means nothing: %v", e)
		}
	}
	w.t.Logf("audit: %d requests of visitors, %d at the origin", len(events), len(hits))

	inside, waiting := w.settle(crowd)
	w.sameTables()
	w.sameLine(waiting)
	w.samePicture(inside, waiting)
}

func report(w *World, what string, found []string) {
	w.t.Helper()
	for i, text := range found {
		if i == 3 {
			w.t.Errorf("%s: and %d more", what, len(found)-3)
			break
		}
		w.t.Errorf("%s: %s", what, text)
	}
}

// OverCap finds moments at which more than limit visitors held a slot for sure. A visitor that
// reached the origin twice held its slot in between, because no test here lets a slot expire
// and nobody returns after leaving.
func OverCap(hits []Hit, limit int) []string {
	type edge struct {
		at      time.Time
		visitor string
		step    int
	}
	first, last := map[string]time.Time{}, map[string]time.Time{}
	for _, h := range hits {
		if _, seen := first[h.Visitor]; !seen || h.At.Before(first[h.Visitor]) {
			first[h.Visitor] = h.At
		}
		if h.At.After(last[h.Visitor]) {
			last[h.Visitor] = h.At
		}
	}
	var edges []edge
	for v := range first {
		edges = append(edges, edge{first[v], v, 1}, edge{last[v], v, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int {
		return cmp.Or(a.at.Compare(b.at), -cmp.Compare(a.step, b.step)) // a moment's visitors come before they go
	})
	var found []string
	held := map[string]bool{}
	for _, e := range edges {
		if e.step < 0 {
			delete(held, e.visitor)
			continue
		}
		held[e.visitor] = true
		if len(held) > limit {
			found = append(found, fmt.Sprintf("%d of %d when %s came in: %v", len(held), limit, e.visitor, slices.Sorted(maps.Keys(held))))
		}
	}
	return found
}

// line is what one visitor's events say of its way in.
type line struct {
	visitor string
	began   time.Time // first request sent
	told    time.Time // first time that it was told the place of its ticket
	in      time.Time // first answer that let it in
	waited  time.Time // when the last request that was answered with "wait" had been sent
}

// Overtaken finds visitors that still waited when somebody was let in who had not even begun
// when they were told their place. The slack allows for a node that is one commit behind.
func Overtaken(events []Event, slack time.Duration) []string {
	lines := map[string]*line{}
	for _, e := range events {
		l := lines[e.Visitor]
		if l == nil {
			l = &line{visitor: e.Visitor, began: e.Sent}
			lines[e.Visitor] = l
		}
		if e.Sent.Before(l.began) {
			l.began = e.Sent
		}
		switch e.Outcome {
		case Waiting:
			// A place told to a visitor without a cookie is an estimate: nothing is stored yet.
			if e.Known && e.Position > 0 && (l.told.IsZero() || e.Got.Before(l.told)) {
				l.told = e.Got
			}
			if e.Sent.After(l.waited) {
				l.waited = e.Sent
			}
		case LetIn, Inside:
			if l.in.IsZero() || e.Got.Before(l.in) {
				l.in = e.Got
			}
		case Failed, Left:
		}
	}
	var found []string
	for _, a := range lines {
		if a.told.IsZero() {
			continue
		}
		for _, b := range lines {
			if !b.in.IsZero() && b.began.After(a.told) && a.waited.Sub(b.in) > slack {
				found = append(found, fmt.Sprintf("%s was told its place %v before %s first came, and still waited %v after %s was in",
					a.visitor, b.began.Sub(a.told), b.visitor, a.waited.Sub(b.in), b.visitor))
			}
		}
	}
	slices.Sort(found)
	return found
}

// settle lets everybody in who has been released, until nothing moves. It answers those inside, and
// those waiting by their position.
func (w *World) settle(crowd []*Browser) (inside, waiting []*Browser) {
	w.t.Helper()
	leader := w.Leader()
	place := map[*Browser]int{}
	WaitFor(w.t, "everybody is inside or has a place, and nobody is released", 20*time.Second, func() bool {
		inside, waiting = nil, nil
		for _, b := range crowd {
			switch e := b.Visit(leader, "/"); e.Outcome {
			case Inside:
				inside = append(inside, b)
			case Waiting:
				waiting = append(waiting, b)
				place[b] = e.Position
			case Failed, LetIn, Left:
				return false
			}
		}
		s, err := leader.Status()
		return err == nil && s.Room.Released == 0 && s.Room.Active == len(inside) && s.Room.Queued == len(waiting) &&
			(len(waiting) == 0 || s.Room.Active == w.Max)
	})
	slices.SortFunc(waiting, func(a, b *Browser) int { return cmp.Compare(place[a], place[b]) })
	return inside, waiting
}

// sameTables waits until all nodes have applied the same entries, and compares their tables.
func (w *World) sameTables() {
	w.t.Helper()
	sums := map[string]bool{}
	WaitFor(w.t, "one applied index on all nodes", 10*time.Second, func() bool {
		all := w.statuses()
		clear(sums)
		for _, s := range all {
			if s.AppliedIndex != all[0].AppliedIndex {
				return false
			}
			sums[s.TableSum] = true
		}
		return len(all) == len(w.Alive())
	})
	if len(sums) != 1 {
		w.t.Errorf("the tables differ at one applied index: %v", slices.Sorted(maps.Keys(sums)))
	}
}

// sameLine asks every node for everybody's place.
func (w *World) sameLine(waiting []*Browser) {
	w.t.Helper()
	for i, b := range waiting {
		for _, n := range w.Alive() {
			if e := b.Check(n); e.Outcome != Waiting || e.Position != i+1 {
				w.t.Errorf("%s should wait at %d: %v", b.Name, i+1, e)
			}
		}
	}
}

// samePicture compares Redis with who is inside and who waits where.
func (w *World) samePicture(inside, waiting []*Browser) {
	w.t.Helper()
	var queue, active []string
	for _, b := range waiting {
		queue = append(queue, b.ID())
	}
	for _, b := range inside {
		active = append(active, b.ID())
	}
	slices.Sort(active)
	var shown Picture
	var err error
	if !Poll(5*time.Second, func() bool {
		shown, err = w.Redis.Picture()
		return err == nil && slices.Equal(shown.Queue, queue) && len(shown.Released) == 0 &&
			slices.Equal(slices.Sorted(maps.Keys(shown.Active)), active)
	}) {
		w.t.Errorf("Redis shows %d active, %d queued, %d released (%v); want %d active, %d queued, in order",
			len(shown.Active), len(shown.Queue), len(shown.Released), err, len(active), len(queue))
	}
}
