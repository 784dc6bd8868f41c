package queue

import (
	"math/bits"
	"sync"
)

const (
	chunkBits    = 10
	chunkTickets = 1 << chunkBits
	chunkWords   = chunkTickets / 64
)

// A line keeps the order of the tickets. Tickets are handed out rising and never reused, so the
// line is an array over them in chunks, with a bit for each ticket that waits and one for each
// that is present, and a Fenwick tree (Fenwick 1994) over the chunks' counts: a position is a few
// sums and a popcount, whatever the length of the line and however many have left its middle.
//
// Apply is the only writer and reads without the lock; it takes the lock to write, readers take
// it to read.
type line struct {
	mu     sync.RWMutex
	first  uint64   // number of chunks[0]: a ticket's chunk number is ticket >> chunkBits
	chunks []*chunk // nil where no visitor holds a ticket
	tree   []int32  // tree[i] counts the waiting tickets of the chunks (i - lowbit(i), i], 1-based
	some   []uint64 // a bit for each chunk that has a present ticket
}

type chunk struct {
	rows    [chunkTickets]rowID // valid for held tickets
	waiting [chunkWords]uint64  // in line, present or absent
	present [chunkWords]uint64  // in line and present
	held    int32               // tickets held by a visitor, a released one's included
	joined  int32               // bits in waiting
	here    int32               // bits in present
}

func (l *line) locate(ticket uint64) (n int, word int, bit uint64) {
	return int(ticket>>chunkBits - l.first), int(ticket % chunkTickets / 64), 1 << (ticket % 64)
}

// hold gives the ticket to a row. Its chunk stays until every ticket in it has been dropped.
func (l *line) hold(ticket uint64, id rowID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.chunks) == 0 {
		l.first = ticket >> chunkBits
	}
	n, _, _ := l.locate(ticket)
	for len(l.chunks) <= n {
		l.grow()
	}
	c := l.chunks[n]
	if c == nil {
		c = new(chunk)
		l.chunks[n] = c
	}
	c.rows[ticket%chunkTickets] = id
	c.held++
}

// grow appends one empty chunk: its tree node sums the nodes below it.
func (l *line) grow() {
	l.chunks = append(l.chunks, nil)
	i := len(l.chunks)
	sum := int32(0)
	for j := i - 1; j > i-i&-i; j -= j & -j {
		sum += l.tree[j-1]
	}
	l.tree = append(l.tree, sum)
	if (i-1)%64 == 0 {
		l.some = append(l.some, 0)
	}
}

// drop takes the ticket from its row: it never comes back. It is out of the line already.
func (l *line) drop(ticket uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, _, _ := l.locate(ticket)
	c := l.chunks[n]
	if c.held--; c.held > 0 {
		return
	}
	l.chunks[n] = nil
	gone := 0
	for gone < len(l.chunks) && l.chunks[gone] == nil {
		gone++
	}
	// Moving the rest up costs as much as the rest is long, so it waits until half is gone.
	if gone*2 >= len(l.chunks) {
		l.shift(gone)
	}
}

// shift drops the first chunks, which are empty.
func (l *line) shift(gone int) {
	rest := l.chunks[gone:]
	l.first += uint64(gone)
	l.chunks, l.tree, l.some = make([]*chunk, 0, len(rest)), nil, nil
	for n, c := range rest {
		l.grow()
		l.chunks[n] = c
		if c != nil && c.joined > 0 {
			l.count(n, c.joined)
		}
		if c != nil && c.here > 0 {
			l.some[n/64] |= 1 << (n % 64)
		}
	}
}

func (l *line) count(n int, by int32) {
	for i := n + 1; i <= len(l.tree); i += i & -i {
		l.tree[i-1] += by
	}
}

// join puts a held ticket into the line; leave takes it out.
func (l *line) join(ticket uint64, present bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, w, bit := l.locate(ticket)
	c := l.chunks[n]
	c.waiting[w] |= bit
	c.joined++
	l.count(n, 1)
	if present {
		c.present[w] |= bit
		c.here++
		l.some[n/64] |= 1 << (n % 64)
	}
}

// mark says whether a ticket that is in line is present.
func (l *line) mark(ticket uint64, present bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, w, bit := l.locate(ticket)
	c := l.chunks[n]
	switch was := c.present[w]&bit != 0; {
	case was == present:
	case present:
		c.present[w] |= bit
		c.here++
		l.some[n/64] |= 1 << (n % 64)
	default:
		c.present[w] &^= bit
		if c.here--; c.here == 0 {
			l.some[n/64] &^= 1 << (n % 64)
		}
	}
}

func (l *line) leave(ticket uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, w, bit := l.locate(ticket)
	c := l.chunks[n]
	c.waiting[w] &^= bit
	c.joined--
	l.count(n, -1)
	if c.present[w]&bit != 0 {
		c.present[w] &^= bit
		if c.here--; c.here == 0 {
			l.some[n/64] &^= 1 << (n % 64)
		}
	}
}

// ahead is how many wait with a lower ticket. Apply's own; readers use position.
func (l *line) ahead(ticket uint64) int {
	n, w, bit := l.locate(ticket)
	sum := 0
	for i := n; i > 0; i -= i & -i {
		sum += int(l.tree[i-1])
	}
	if c := l.chunks[n]; c != nil {
		for i := range w {
			sum += bits.OnesCount64(c.waiting[i])
		}
		sum += bits.OnesCount64(c.waiting[w] & (bit - 1))
	}
	return sum
}

// position is 1 + ahead for a ticket that waits; it reports false for one that does not (any
// more). Any number of callers.
func (l *line) position(ticket uint64) (int, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	n, w, bit := l.locate(ticket)
	if n < 0 || n >= len(l.chunks) || l.chunks[n] == nil || l.chunks[n].waiting[w]&bit == 0 {
		return 0, false
	}
	return l.ahead(ticket) + 1, true
}

// firstPresent is the row with the lowest present ticket.
func (l *line) firstPresent() (rowID, bool) {
	for i, word := range l.some {
		if word == 0 {
			continue
		}
		c := l.chunks[i*64+bits.TrailingZeros64(word)]
		for w, present := range c.present {
			if present != 0 {
				return c.rows[w*64+bits.TrailingZeros64(present)], true
			}
		}
	}
	return noRow, false
}

// after is the row that waits next behind the ticket.
func (l *line) after(ticket uint64) (rowID, bool) {
	n, w, bit := l.locate(ticket)
	mask := ^(bit | (bit - 1))
	for ; n < len(l.chunks); n++ {
		if c := l.chunks[n]; c != nil && c.joined > 0 {
			for ; w < chunkWords; w++ {
				if rest := c.waiting[w] & mask; rest != 0 {
					return c.rows[w*64+bits.TrailingZeros64(rest)], true
				}
				mask = ^uint64(0)
			}
		}
		w, mask = 0, ^uint64(0)
	}
	return noRow, false
}
