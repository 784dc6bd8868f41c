package queue

import "sync"

const (
	shardBits  = 8
	shardCount = 1 << shardBits
	slabRows   = 256 // rows are allocated this many at a time, and never move
)

// A rowID names a row for Apply: slot << shardBits | shard. noRow ends a list.
type rowID uint32

const noRow rowID = 1<<32 - 1

// A row is one visitor. It holds no pointers, so the garbage collector does not look inside.
// Readers hold the shard's lock for token, ticket, stamp, state and unconfirmed; prev and next are Apply's own.
type row struct {
	token      Token
	ticket     uint64 // zero when Active, unless unconfirmed or reserved
	stamp      uint32 // last sign of life; when Released: the promotion. Steps since Table.epoch
	prev, next rowID  // the other rows of the same state and stamp
	state      State  // Unknown: the slot is free
	// unconfirmed is the mark of a first hit, whose visitor has not brought its cookie yet. It is Active then and holds a ticket
	// all the same, or Absent because its slot was taken back. It lies in what the compiler pads, so no row is longer for it.
	unconfirmed bool
}

// A shard is the part of the rows whose tokens begin with the same byte. Tokens are random, so
// the parts are of one size.
type shard struct {
	mu    sync.RWMutex
	index index // token → slot
	slabs []*[slabRows]row
	free  []uint32 // slots without a visitor; Apply only
	used  uint32   // slots ever used; Apply only
}

func (s *shard) at(slot uint32) *row { return &s.slabs[slot/slabRows][slot%slabRows] }

func (t *Table) row(id rowID) *row {
	return t.shards[id%shardCount].at(uint32(id) >> shardBits)
}

// find is Apply's lookup. Apply is the only writer, so it reads without the lock.
func (t *Table) find(token Token) (rowID, bool) {
	s := &t.shards[token[0]]
	slot, ok := s.index.find(&token, s)
	return rowID(slot<<shardBits | uint32(token[0])), ok
}

// add makes a row. With move and remove it is all that ever changes one: counts, line, ages,
// hash and feeds follow here and nowhere else.
// A row that is Active with a ticket is reserved, unless first says that it is unconfirmed.
func (t *Table) add(token Token, state State, ticket uint64, stamp uint32, first bool) rowID {
	s := &t.shards[token[0]]
	s.mu.Lock()
	var slot uint32
	if n := len(s.free); n > 0 {
		slot, s.free = s.free[n-1], s.free[:n-1]
	} else {
		slot = s.used
		s.used++
		if slot/slabRows == uint32(len(s.slabs)) {
			s.slabs = append(s.slabs, new([slabRows]row))
		}
	}
	r := s.at(slot)
	*r = row{token: token, ticket: ticket, stamp: stamp, prev: noRow, next: noRow, state: state, unconfirmed: first}
	s.index.add(&token, slot)
	s.mu.Unlock()

	id := rowID(slot<<shardBits | uint32(token[0]))
	if ticket != 0 {
		t.line.hold(ticket, id)
	}
	t.relocate(ticket, Unknown, state)
	t.file(id, r)
	t.tell(r, Unknown, state)
	return id
}

// reserved reports whether the row's slot was taken by a poll, and its visitor has not come for a page since: it is Active and holds the
// ticket that the slot was given for.
func (r *row) reserved() bool { return r.state == Active && r.ticket != 0 && !r.unconfirmed }

// move changes a row's state, or its stamp alone. The row is confirmed by it, and lets go of the ticket of its slot, unless it
// becomes absent: then it stays what it was.
func (t *Table) move(id rowID, to State, stamp uint32) {
	r := t.row(id)
	ticket := r.ticket
	if to == Active {
		ticket = 0
	}
	t.change(id, to, stamp, ticket, r.unconfirmed && to == Absent)
}

// stay moves the stamp of a row and nothing else.
func (t *Table) stay(id rowID, stamp uint32) {
	r := t.row(id)
	t.change(id, r.state, stamp, r.ticket, r.unconfirmed)
}

// change takes the row's own ticket, or zero: then the ticket is dropped.
func (t *Table) change(id rowID, to State, stamp uint32, ticket uint64, unconfirmed bool) {
	r := t.row(id)
	from := r.state
	t.unfile(id, r)
	t.relocate(r.ticket, from, to)
	if ticket != r.ticket {
		t.line.drop(r.ticket)
	}
	s := &t.shards[r.token[0]]
	s.mu.Lock()
	r.state, r.stamp, r.ticket, r.unconfirmed = to, stamp, ticket, unconfirmed
	s.mu.Unlock()
	t.file(id, r)
	t.tell(r, from, to)
}

// remove forgets a visitor.
func (t *Table) remove(id rowID) {
	r := t.row(id)
	gone := *r
	t.unfile(id, r)
	t.relocate(gone.ticket, gone.state, Unknown)
	t.tell(&gone, gone.state, Unknown)
	if gone.ticket != 0 {
		t.line.drop(gone.ticket)
	}
	s := &t.shards[gone.token[0]]
	s.mu.Lock()
	s.index.remove(&gone.token, uint32(id)>>shardBits)
	*r = row{}
	s.mu.Unlock()
	s.free = append(s.free, uint32(id)>>shardBits)
}

// relocate puts a ticket into the line or takes it out. One that stays in line is there at every moment: a reader
// who counts it out between two steps would tell those behind it a place that they do not have (I6).
func (t *Table) relocate(ticket uint64, from, to State) {
	switch {
	case from == to:
	case from.Waits() && to.Waits():
		t.line.mark(ticket, to == Queued)
	case from.Waits():
		t.line.leave(ticket)
	case to.Waits():
		t.line.join(ticket, to == Queued)
	}
}

// file puts a row into everything that is kept by state, but for the line; unfile is its inverse.
func (t *Table) file(id rowID, r *row) {
	t.counts[r.state]++
	if r.unconfirmed {
		t.firsts[r.state]++
	}
	if r.reserved() {
		t.reserved++
	}
	t.hash += rowHash(r)
	t.agesOf(r).push(t, id, r)
}

func (t *Table) unfile(id rowID, r *row) {
	t.counts[r.state]--
	if r.unconfirmed {
		t.firsts[r.state]--
	}
	if r.reserved() {
		t.reserved--
	}
	t.hash -= rowHash(r)
	t.agesOf(r).unlink(t, id, r)
}

// agesOf is the list that the row belongs to.
func (t *Table) agesOf(r *row) *ages {
	if r.unconfirmed && r.state == Active {
		return &t.firstHits
	}
	return &t.byState[r.state]
}

// tell hands a change to the feeds. What costs time to find out is found out only for them.
func (t *Table) tell(r *row, from, to State) {
	if len(t.feeds) == 0 {
		return
	}
	c := Change{Token: r.token, Before: from, After: to, Seen: t.seen(r.stamp)}
	if from.Waits() || to.Waits() {
		c.Ahead = t.line.ahead(r.ticket)
	}
	if from.Holds() && to.Waits() {
		if next, ok := t.line.after(r.ticket); ok {
			c.Next = t.row(next).token
		}
	}
	for _, f := range t.feeds {
		f.staged = append(f.staged, c)
	}
}

// rowHash mixes what a row says into 64 bits. The finalizer is that of SplitMix64 (Steele, Lea,
// Flood 2014); the table's hash is the sum over its rows, so that one row changes it in O(1).
func rowHash(r *row) uint64 {
	var hi, lo uint64
	for i := range 8 {
		hi = hi<<8 | uint64(r.token[i])
		lo = lo<<8 | uint64(r.token[8+i])
	}
	h := mix(hi + 0x9e3779b97f4a7c15)
	h = mix(h ^ lo)
	h = mix(h ^ r.ticket)
	if r.unconfirmed {
		h ^= 1 << 40
	}
	return mix(h ^ uint64(r.state)<<32 ^ uint64(r.stamp))
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// sum is Sum for those who hold t.mu.
func (t *Table) sum() uint64 {
	h := t.hash
	for _, v := range []int64{t.now, t.epoch, t.holdUntil, int64(t.nextTicket), int64(t.overridden)} {
		h = mix(h + 0x9e3779b97f4a7c15 ^ uint64(v))
	}
	for _, f := range Fields {
		base, override := uint64(t.base.Get(f.Field)), uint64(t.override.Get(f.Field))
		if f.Field&LaterFields != 0 && base|override == 0 {
			continue // a version that does not know the field has to come to the same sum
		}
		h = mix(h ^ base)
		h = mix(h ^ override)
	}
	return h
}

// Sum is a hash of the whole table as of the last whole entry: equal index means equal Sum (I7).
// It is kept while applying, so asking costs nothing. Any number of callers.
func (t *Table) Sum() uint64 { return t.Stats().Sum }
