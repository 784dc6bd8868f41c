package queue

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// What a tick grants beyond a deadline. A node flushes its touches twice a second and skips the
// touch of an active visitor seen less than touchSkip ago, so a sign of life is in the table
// that long after it happened, plus the time of a commit.
const (
	slotGrace     = 1200 * time.Millisecond // beyond active_ttl: covers touchSkip, or flush and commit
	presenceGrace = 700 * time.Millisecond  // beyond queue_absent and queue_ttl: flush and commit
	touchSkip     = 1000 * time.Millisecond

	// resumeHold is how long a new leader's table expires nobody: the nodes hand in what they
	// noted while there was no leader (I4).
	resumeHold = 2000 * time.Millisecond
)

// Grace is the shortest time that a tick grants beyond a deadline. Before one, every sign of life from before that long ago
// has to be in the table (I4): who proposes it waits for the nodes that are late.
const Grace = presenceGrace

// A Table is the admission table of one room. One goroutine at a time applies entries; any
// number of goroutines may look up while it does.
type Table struct {
	mu     sync.Mutex // held by Apply, ApplyLimits, Freeze, Follow: the writers take turns
	shards [shardCount]shard
	line   line

	// mu guards everything down to the blank line.
	now        int64 // of the newest entry, Unix milliseconds; never runs back
	epoch      int64 // the time of stamp 0, Unix milliseconds; zero before the first entry
	holdUntil  int64 // a tick before this time expires nobody
	nextTicket uint64
	byState    [Active + 1]ages // but for those in firstHits
	firstHits  ages             // the unconfirmed that are Active
	counts     [Active + 1]int
	firsts     [Active + 1]int // of counts: the unconfirmed
	reserved   int             // of counts[Active]
	hash       uint64          // of all rows; see Sum
	base       Limits
	override   Limits
	overridden Field
	feeds      []*Feed

	limits atomic.Pointer[Limits] // in force; never changed in place
	room   atomic.Bool            // see HasRoom
	epochs atomic.Int64           // epoch, for Lookup

	statsMu sync.Mutex
	stats   Stats // as of the last whole entry; statsMu
}

// Stats are the figures of a table after one whole entry.
type Stats struct {
	Index        uint64 // of the entry
	Now          int64  // cluster time of the entry, Unix milliseconds
	Sum          uint64
	Counts       Counts
	Limits       Limits // in force
	Overridden   Field  // limits that the admin API has set over the base
	NextDeadline int64  // cluster time from which a tick has something to do; 0: never, as things are
}

// NewTable returns an empty table with that base of limits.
func NewTable(base Limits) *Table {
	t := &Table{base: base, nextTicket: 1}
	t.setLimits()
	t.publish(0)
	return t
}

// Apply carries out b and appends one Decision per command to out. Equal tables given equal
// batches end equal, on every replica and every replay: nothing in here depends on a clock, a
// random source, map order or this node's own settings (I7).
func (t *Table) Apply(b Batch, out []Decision) []Decision {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.advance(b.Now)
	for _, c := range b.Commands {
		d := t.step(c)
		d.Index = b.Index
		out = append(out, d)
	}
	t.publish(b.Index)
	return out
}

// ApplyLimits carries out c and returns the limits that are in force from now on. A raised
// limit promotes at once; a lowered one expels nobody (I1).
func (t *Table) ApplyLimits(c LimitsChange) Limits {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.advance(c.Now)
	layer := &t.override
	if c.Base {
		layer = &t.base
	} else {
		t.overridden = t.overridden&^c.Clear | c.Set
	}
	for _, f := range Fields {
		if c.Set&f.Field != 0 {
			layer.Set(f.Field, c.Values.Get(f.Field))
		} else if c.Clear&f.Field != 0 {
			layer.Set(f.Field, 0)
		}
	}
	t.setLimits()
	t.promote()
	t.publish(c.Index)
	return *t.limits.Load()
}

// advance moves the clock. A new leader's clock may be behind; the table's never goes back.
func (t *Table) advance(now int64) {
	t.now = max(t.now, now)
	if t.epoch == 0 {
		t.epoch = t.now
		t.epochs.Store(t.epoch)
	}
}

// step is one command: at its end the table rests (I2).
func (t *Table) step(c Command) Decision {
	id, known := t.find(c.Token)
	switch c.Kind {
	case KindArrive:
		return t.arrive(c.Token, id, known)
	case KindEnter:
		return t.enter(c.Token, id, known)
	case KindTouch, KindAsk:
		return t.touch(id, known, int64(c.Arg), c.Kind == KindAsk)
	case KindStay:
		return t.remain(id, known, int64(c.Arg))
	case KindClaim:
		if known && (t.row(id).state == Released || t.row(id).state == Active && t.row(id).ticket != 0) {
			t.move(id, Active, t.stamp(t.now))
		}
		return t.decide(id, known)
	case KindReserve:
		return t.reserve(id, known)
	case KindLeave:
		if known {
			t.remove(id)
			t.promote()
			return Decision{}
		}
		return t.decide(id, known)
	case KindTick:
		t.expire()
		t.promote()
		return Decision{}
	case KindResume:
		t.resume(int64(c.Arg))
		return Decision{}
	}
	panic(fmt.Sprintf("queue: command of kind %d in an entry that was decoded", c.Kind)) // validate refuses it
}

// open reports whether a newcomer may have a slot now: one is free, and nobody present waits.
func (t *Table) open() bool {
	return t.counts[Active]+t.counts[Released] < t.limits.Load().MaxActive && t.counts[Queued] == 0
}

// enter is a first visit: a slot at once, or nothing. As long as first_hit_ttl is off that is all. Otherwise the slot is the
// visitor's until somebody else waits for it: it is unconfirmed until its cookie comes back, and it draws a ticket, so that its place
// is known should its slot be taken back. Whoever joins the line later has a higher one (I2).
//
// A second enter of an unconfirmed visitor is the first one, sent again since its fate was unknown: the request is under way yet, and
// brings no cookie.
func (t *Table) enter(token Token, id rowID, known bool) Decision {
	switch {
	case known && t.row(id).unconfirmed && t.row(id).state == Active:
		return t.remain(id, true, 0)
	case known:
		return t.arrive(token, id, true)
	case !t.open():
		return Decision{Refusal: NoSlot}
	case t.limits.Load().FirstHitTTL == 0:
		return t.arrive(token, id, false)
	}
	id = t.add(token, Active, t.nextTicket, t.stamp(t.now), true)
	t.nextTicket++
	return t.decide(id, true)
}

// arrive is "this visitor is here and wants in": a slot or a ticket for a new one, a sign of
// life of a known one, and the claim of a released one.
func (t *Table) arrive(token Token, id rowID, known bool) Decision {
	stamp := t.stamp(t.now)
	switch {
	case !known && t.open():
		id = t.add(token, Active, 0, stamp, false)
	case !known:
		// Whose slot was taken back does not count: otherwise those who keep no cookie could fill the line.
		if limit := t.limits.Load().QueueMax; limit > 0 && t.counts[Queued]+t.counts[Absent]-t.firsts[Absent] >= limit {
			return Decision{Refusal: QueueFull}
		}
		id = t.add(token, Queued, t.nextTicket, stamp, false)
		t.nextTicket++
	case t.row(id).state == Absent:
		t.move(id, Queued, stamp)
		t.promote() // a slot may have stood free because everybody in line was absent
	case t.row(id).state != Released:
		t.move(id, t.row(id).state, stamp)
	}
	if t.row(id).state == Released {
		t.move(id, Active, stamp)
	}
	return t.decide(id, true)
}

// reserve is a claim by a poll. Its answer only says where to go: when it is lost, the visitor has its slot and does not know it. So
// the ticket stays with the slot until the visitor comes for a page, and gives it its place back should it never do so (I3). Of an
// unconfirmed visitor it is the cookie that has come back.
func (t *Table) reserve(id rowID, known bool) Decision {
	if known {
		switch r := t.row(id); {
		case r.state == Released:
			t.change(id, Active, t.stamp(t.now), r.ticket, false)
		case r.state == Active && r.unconfirmed:
			t.move(id, Active, t.stamp(t.now))
		}
	}
	return t.decide(id, known)
}

// touch moves the last sign of life to age milliseconds ago, never back, and confirms the visitor: of one inside the ticket goes. One that
// only asks may not have heard of a slot that is reserved for it: its ticket stays. A released visitor's claim deadline does not
// move: it is released until it claims.
func (t *Table) touch(id rowID, known bool, age int64, asks bool) Decision {
	if !known {
		return t.decide(id, known)
	}
	r := t.row(id)
	stamp := max(r.stamp, t.stamp(t.now-age))
	switch r.state {
	case Absent:
		t.move(id, Queued, stamp)
		t.promote()
	case Queued, Active:
		switch {
		case asks && r.reserved():
			if stamp != r.stamp {
				t.stay(id, stamp)
			}
		case stamp != r.stamp || r.state == Active && r.ticket != 0:
			t.move(id, r.state, stamp)
		}
	}
	return t.decide(id, true)
}

// remain is touch for a request that did not bring the cookie and is under way yet: a long first visit keeps its slot as long as
// its bytes move, and is not confirmed by that. It calls nobody back into the line.
func (t *Table) remain(id rowID, known bool, ago int64) Decision {
	if !known {
		return t.decide(id, known)
	}
	if r := t.row(id); r.state == Active {
		if stamp := max(r.stamp, t.stamp(t.now-ago)); stamp != r.stamp {
			t.stay(id, stamp)
		}
	}
	return t.decide(id, true)
}

// promote releases the lowest present tickets until every slot is held (I2). It does not look at
// deadlines: whoever is Queued is present, and becomes Absent only in a tick.
func (t *Table) promote() {
	limit := t.limits.Load().MaxActive
	for t.counts[Active]+t.counts[Released] < limit && t.counts[Queued] > 0 {
		id, ok := t.line.firstPresent()
		if !ok {
			panic(fmt.Sprintf("queue: %d present visitors, none in line", t.counts[Queued]))
		}
		t.move(id, Released, t.stamp(t.now))
	}
}

// resume is a new leader's first word. For gap milliseconds nobody led, so nothing could commit:
// that time does not count against anybody. Moving the epoch moves every row's last sign of life
// at once. Then expiry rests until the nodes have handed in what they noted (I4).
func (t *Table) resume(gap int64) {
	t.epoch += gap - gap%stampStep
	t.epochs.Store(t.epoch)
	t.holdUntil = t.now + resumeHold.Milliseconds()
}

// decide is the answer about a row as it is now.
func (t *Table) decide(id rowID, known bool) Decision {
	if !known {
		return Decision{Refusal: NoVisitor}
	}
	r := t.row(id)
	d := Decision{State: r.state, Ticket: r.ticket}
	if r.state.Waits() {
		d.Position = t.line.ahead(r.ticket) + 1
	}
	return d
}

func (t *Table) setLimits() {
	l := t.base
	for _, f := range Fields {
		if t.overridden&f.Field != 0 {
			l.Set(f.Field, t.override.Get(f.Field))
		}
	}
	t.limits.Store(&l)
}

// publish shows the outside what the entry at index has made of the table.
func (t *Table) publish(index uint64) {
	t.room.Store(t.open())
	for _, f := range t.feeds {
		f.Publish(index, f.staged)
		f.staged = f.staged[:0]
	}
	s := Stats{
		Index: index, Now: t.now, Sum: t.sum(), Limits: *t.limits.Load(), Overridden: t.overridden,
		NextDeadline: t.nextDeadline(),
		Counts: Counts{
			Active: t.counts[Active], Released: t.counts[Released],
			Queued: t.counts[Queued] + t.counts[Absent], Absent: t.counts[Absent],
			Unconfirmed: t.firsts[Active], TakenBack: t.firsts[Absent],
		},
	}
	t.statsMu.Lock()
	t.stats = s
	t.statsMu.Unlock()
}

// Stats returns the figures as of the last whole entry. Any number of callers.
func (t *Table) Stats() Stats {
	t.statsMu.Lock()
	defer t.statsMu.Unlock()
	return t.stats
}

// Limits returns the limits in force. Any number of callers.
func (t *Table) Limits() Limits { return *t.limits.Load() }

// HasRoom reports whether a newcomer would have been given a slot after the last entry: one was
// free and no present visitor waited. A hint, since the next entry may change it. Any number
// of callers.
func (t *Table) HasRoom() bool { return t.room.Load() }

// Follow freezes the table and returns a feed of every change after that moment. At most limit
// changes wait in the feed. Unfollow ends it.
func (t *Table) Follow(limit int) (*Frozen, *Feed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := NewFeed(limit, t.Stats().Index)
	t.feeds = append(t.feeds, f)
	return t.freeze(), f
}

// Unfollow detaches a feed. Detaching one that is not attached does nothing.
func (t *Table) Unfollow(f *Feed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.feeds {
		if t.feeds[i] == f {
			t.feeds = append(t.feeds[:i], t.feeds[i+1:]...)
			return
		}
	}
}
