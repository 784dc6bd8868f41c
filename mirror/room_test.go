package mirror

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// room is a table in the plainest way: a Source for the mirror, and what Redis has to show.
type room struct {
	mu      sync.Mutex
	index   uint64
	ticket  uint64
	line    []queue.Row // Absent and Queued, by ticket
	rest    map[queue.Token]queue.Row
	staged  []queue.Change
	at      int64         // of the entry under way, cluster time
	gone    []queue.Token // left, and may come back
	feeds   map[*queue.Feed]bool
	follows int
	ahead   int64        // cluster time minus wall time, ms
	clock   func() int64 // wall time, ms
	tokens  uint64       // made so far
}

func newRoom() *room {
	return &room{
		rest: make(map[queue.Token]queue.Row), feeds: make(map[*queue.Feed]bool),
		clock: func() int64 { return time.Now().UnixMilli() },
	}
}

// newToken makes tokens that look like any, the same ones in every run.
func (r *room) newToken() queue.Token {
	r.tokens++
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], r.tokens)
	sum := sha256.Sum256(b[:])
	return queue.MakeToken([16]byte(sum[:16]))
}

func (r *room) Now() int64 { return r.clock() + r.ahead }

func (r *room) Follow(limit int) (*queue.Frozen, *queue.Feed, func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.follows++
	feed := queue.NewFeed(limit, r.index)
	r.feeds[feed] = true
	return queue.NewFrozen(r.index, r.Now(), r.rowsLocked()), feed, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.feeds, feed)
	}
}

func (r *room) rowsLocked() []queue.Row {
	tickets, actives := slices.Clone(r.line), []queue.Row(nil)
	for _, row := range r.rest {
		if row.State == queue.Active {
			actives = append(actives, row)
		} else {
			tickets = append(tickets, row)
		}
	}
	slices.SortFunc(tickets, func(a, b queue.Row) int { return int(a.Ticket) - int(b.Ticket) })
	slices.SortFunc(actives, func(a, b queue.Row) int { return slices.Compare(a.Token[:], b.Token[:]) })
	return append(tickets, actives...)
}

// entry runs the transitions of one entry, at one time, and publishes what they changed.
func (r *room) entry(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	r.at = r.Now()
	do()
	for feed := range r.feeds {
		feed.Publish(r.index, r.staged)
	}
	r.staged = r.staged[:0]
}

func (r *room) stage(t queue.Token, before, after queue.State, at int) {
	c := queue.Change{Token: t, Before: before, After: after, Seen: r.at, Ahead: at}
	if !before.Waits() && after.Waits() && at+1 < len(r.line) {
		c.Next = r.line[at+1].Token
	}
	r.staged = append(r.staged, c)
}

// The transitions below are for use inside entry.

func (r *room) queue(t queue.Token) {
	r.ticket++
	r.line = append(r.line, queue.Row{Token: t, State: queue.Queued, Ticket: r.ticket, Seen: r.at})
	r.stage(t, queue.Unknown, queue.Queued, len(r.line)-1)
}

func (r *room) admit(t queue.Token) {
	r.rest[t] = queue.Row{Token: t, State: queue.Active, Seen: r.at}
	r.stage(t, queue.Unknown, queue.Active, 0)
}

// promote releases the i-th in line.
func (r *room) promote(i int) {
	row := r.line[i]
	r.line = slices.Delete(r.line, i, i+1)
	before := row.State
	row.State = queue.Released
	r.rest[row.Token] = row
	r.stage(row.Token, before, queue.Released, i)
}

// sendBack gives a released visitor its ticket back.
func (r *room) sendBack(t queue.Token) {
	row := r.rest[t]
	delete(r.rest, t)
	row.State = queue.Absent
	i, _ := slices.BinarySearchFunc(r.line, row.Ticket, func(r queue.Row, ticket uint64) int { return int(r.Ticket) - int(ticket) })
	r.line = slices.Insert(r.line, i, row)
	r.stage(t, queue.Released, queue.Absent, i)
}

func (r *room) claim(t queue.Token) {
	r.rest[t] = queue.Row{Token: t, State: queue.Active, Seen: r.at}
	r.stage(t, queue.Released, queue.Active, 0)
}

func (r *room) touch(t queue.Token) {
	row := r.rest[t]
	row.Seen = r.at
	r.rest[t] = row
	r.stage(t, row.State, row.State, 0)
}

// turn makes the i-th in line absent, or present again.
func (r *room) turn(i int) {
	before := r.line[i].State
	r.line[i].State = queue.Absent + queue.Queued - before
	r.stage(r.line[i].Token, before, r.line[i].State, i)
}

func (r *room) leave(t queue.Token) {
	before := r.rest[t].State
	delete(r.rest, t)
	r.gone = append(r.gone, t)
	r.stage(t, before, queue.Unknown, 0)
}

func (r *room) abandon(i int) {
	row := r.line[i]
	r.line = slices.Delete(r.line, i, i+1)
	r.gone = append(r.gone, row.Token)
	r.stage(row.Token, row.State, queue.Unknown, i)
}

// in lists the tokens in a state that is not in line, sorted.
func (r *room) in(s queue.State) []queue.Token {
	var out []queue.Token
	for t, row := range r.rest {
		if row.State == s {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b queue.Token) int { return slices.Compare(a[:], b[:]) })
	return out
}

// picture is what the three keys hold, or have to hold.
type picture struct {
	active   map[string]int64 // Unix seconds
	queue    []string
	released map[string]bool
}

func (r *room) picture() picture {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := picture{active: map[string]int64{}, queue: []string{}, released: map[string]bool{}}
	for _, row := range r.rowsLocked() {
		switch {
		case row.State.Waits():
			p.queue = append(p.queue, text(row.Token))
		case row.State == queue.Released:
			p.released[text(row.Token)] = true
		default:
			p.active[text(row.Token)] = (row.Seen - r.ahead) / 1000
		}
	}
	return p
}

// followed is how often the table was copied for a reader.
func (r *room) followed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.follows
}
