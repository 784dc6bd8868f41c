package queue

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"
)

// stampStep is the resolution of a sign of life, in milliseconds.
const stampStep = 100

// stamp is a time in steps since the epoch, rounded up, so that no stay is cut short by
// rounding. 32 bits reach 13 years from the table's first entry.
func (t *Table) stamp(at int64) uint32 {
	steps := (at - t.epoch + stampStep - 1) / stampStep
	return uint32(min(max(steps, 0), math.MaxUint32))
}

func (t *Table) seen(stamp uint32) int64 { return t.epoch + int64(stamp)*stampStep }

// ages orders the rows of one state by stamp, so that a tick costs what it expires and not what
// the table holds: a sorted list of buckets, each the head of a linked list through its rows. New
// signs of life come at the end, or close to it. Since a deadline is a stamp plus the limit in
// force, a new limit moves nothing in here.
type ages struct {
	buckets []bucket // by stamp; empty ones stay until the front passes them
	rows    int
}

type bucket struct {
	stamp uint32
	first rowID
}

// find is the place of the stamp among the buckets.
func (a *ages) find(stamp uint32) int {
	n := len(a.buckets)
	if n == 0 || a.buckets[n-1].stamp < stamp {
		return n
	}
	if a.buckets[n-1].stamp == stamp {
		return n - 1
	}
	return sort.Search(n, func(i int) bool { return a.buckets[i].stamp >= stamp })
}

func (a *ages) push(t *Table, id rowID, r *row) {
	i := a.find(r.stamp)
	if i == len(a.buckets) || a.buckets[i].stamp != r.stamp {
		if len(a.buckets) > 2*a.rows+1024 {
			a.sweep()
			i = a.find(r.stamp)
		}
		a.buckets = append(a.buckets, bucket{})
		copy(a.buckets[i+1:], a.buckets[i:])
		a.buckets[i] = bucket{stamp: r.stamp, first: noRow}
	}
	b := &a.buckets[i]
	r.prev, r.next = noRow, b.first
	if b.first != noRow {
		t.row(b.first).prev = id
	}
	b.first = id
	a.rows++
}

func (a *ages) unlink(t *Table, _ rowID, r *row) {
	if r.next != noRow {
		t.row(r.next).prev = r.prev
	}
	if r.prev != noRow {
		t.row(r.prev).next = r.next
	} else {
		a.buckets[a.find(r.stamp)].first = r.next
	}
	a.rows--
}

// sweep forgets the empty buckets.
func (a *ages) sweep() {
	kept := a.buckets[:0]
	for _, b := range a.buckets {
		if b.first != noRow {
			kept = append(kept, b)
		}
	}
	a.buckets = kept
}

// oldest is the stamp and one row of the first bucket that has any. Empty buckets before it go.
func (a *ages) oldest() (bucket, bool) {
	for len(a.buckets) > 0 {
		if a.buckets[0].first != noRow {
			return a.buckets[0], true
		}
		a.buckets = a.buckets[1:]
	}
	return bucket{}, false
}

// A rule says what becomes of the rows of one list at their deadline.
type rule struct {
	of    func(*Table) *ages
	after func(Limits) time.Duration // what lies between a row's stamp and its deadline, grace included
	then  func(*Table, rowID)
}

func in(s State) func(*Table) *ages { return func(t *Table) *ages { return &t.byState[s] } }

func firstHits(t *Table) *ages { return &t.firstHits }

// rules, in the order in which a tick goes through them. queue_ttl comes before queue_absent, so
// that a limit below the other is obeyed at once. what first_hit_ttl takes back comes after all of them.
var rules = [...]rule{
	{in(Active), func(l Limits) time.Duration { return l.ActiveTTL + slotGrace }, (*Table).lapse},
	{firstHits, func(l Limits) time.Duration { return l.ActiveTTL + slotGrace }, (*Table).remove},
	{in(Queued), func(l Limits) time.Duration { return l.QueueTTL + presenceGrace }, (*Table).remove},
	{in(Absent), func(l Limits) time.Duration { return l.QueueTTL + presenceGrace }, (*Table).remove},
	{in(Queued), func(l Limits) time.Duration { return l.QueueAbsent + presenceGrace }, (*Table).absent},
	{in(Released), func(l Limits) time.Duration { return l.ClaimTTL }, (*Table).absent},
}

// absent marks a visitor as one to be passed over. A released one gives its slot on and has its
// ticket back (I3); it was not there when its turn came, so it is absent until it is seen.
func (t *Table) absent(id rowID) { t.move(id, Absent, t.row(id).stamp) }

// lapse ends an active visitor's stay. Who never heard that it was let in goes back to its place (I3), as one who did not come when it
// was its turn.
func (t *Table) lapse(id rowID) {
	if t.row(id).reserved() {
		t.absent(id)
		return
	}
	t.remove(id)
}

// wanted reports whether somebody present waits for a slot that a first hit may hold. While first_hit_ttl is off no slot is taken back.
func (t *Table) wanted() bool { return t.counts[Queued] > 0 && t.limits.Load().FirstHitTTL > 0 }

// takeBack gives the slots of unconfirmed visitors to those who wait, one at a time, so that no more are taken back than there are
// present visitors who wait. Such a visitor was let in before any of them had come, and has the ticket that says so: should it bring
// its cookie within queue_ttl it is before them all, and until then it is absent, as one who did not come when it was its turn.
//
// Which ones go must not depend on how the list came about, since a table that was read from a snapshot has another history (I7): the
// oldest sign of life first, and of equal ones the lowest ticket.
func (t *Table) takeBack() {
	t.promote() // who waits may find a slot among those that have just expired
	for t.wanted() {
		b, ok := t.firstHits.oldest()
		if !ok || t.seen(b.stamp)+takenAfter(t.Limits()) > t.now {
			return
		}
		var due []rowID
		for id := b.first; id != noRow; id = t.row(id).next {
			due = append(due, id)
		}
		slices.SortFunc(due, func(a, b rowID) int { return cmp.Compare(t.row(a).ticket, t.row(b).ticket) })
		for _, id := range due {
			if !t.wanted() {
				return
			}
			t.absent(id)
			t.promote()
		}
	}
}

// takenAfter is how long after its last sign of life a first hit may lose its slot, in milliseconds. The grace is that of every slot:
// the touch of a visitor who came back in time has committed by then (I4), and a node that is cut off has stopped letting it in (I5).
func takenAfter(l Limits) int64 { return (l.firstHit() + slotGrace).Milliseconds() }

// expire carries out what is due by the table's clock. It waits out a new leader's hold (I4).
func (t *Table) expire() {
	if t.now < t.holdUntil {
		return
	}
	limits := t.Limits()
	for _, rule := range rules {
		after := rule.after(limits).Milliseconds()
		for {
			b, ok := rule.of(t).oldest()
			if !ok || t.seen(b.stamp)+after > t.now {
				break
			}
			rule.then(t, b.first)
		}
	}
	t.takeBack()
}

// nextDeadline is the time from which a tick has something to expire, or 0.
func (t *Table) nextDeadline() int64 {
	limits, next := t.Limits(), int64(math.MaxInt64)
	for _, rule := range rules {
		if b, ok := rule.of(t).oldest(); ok {
			next = min(next, t.seen(b.stamp)+rule.after(limits).Milliseconds())
		}
	}
	if b, ok := t.firstHits.oldest(); ok && t.wanted() {
		next = min(next, t.seen(b.stamp)+takenAfter(limits))
	}
	if next == math.MaxInt64 {
		return 0
	}
	return max(next, t.holdUntil)
}
