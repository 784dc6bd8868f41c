package mirror

import "github.com/openwaitingroom/owr/queue"

// A verb is one thing to do to a key.
type verb uint8

const (
	noVerb         verb = iota // an op that another one has made needless
	verbUnrelease              // take out of released
	verbDeactivate             // take out of active
	verbUnqueue                // take out of the line
	verbQueue                  // append to the line
	verbInsert                 // put into the line before next
	verbActivate               // put into active
	verbTouch                  // move the score of one that is in active
	verbRelease                // put into released
)

var verbNames = [...]string{"", "unrelease", "deactivate", "unqueue", "queue", "insert", "activate", "touch", "release"}

// An op is one thing to do to one visitor.
type op struct {
	verb  verb
	end   int8 // verbUnqueue: 1 looks from the head of the line, -1 from its end
	token queue.Token
	next  queue.Token // verbInsert
	seen  int64       // verbActivate, verbTouch: cluster time, Unix ms
}

// A tally says how many members each key holds.
type tally struct {
	active, queue, released int
}

// A group is what one script does.
type group struct {
	ops     []op
	tally   tally // of the keys afterwards
	scan    int   // elements of the line that Redis has to walk over
	changes int
}

// The size of a script: Redis serves nobody else meanwhile, so it is kept to some milliseconds.
const (
	groupOps  = 4_000
	groupScan = 500_000 // about 5 ms
)

// A planner turns changes, in their order, into groups. It is pure: no clock, no Redis.
//
// A group may end after any change, not only after a whole entry: the table itself stood there
// for a moment, so no slot is held twice in what a reader sees.
type planner struct {
	held    tally                 // of the keys once every group so far is applied
	touches map[queue.Token]int64 // of active visitors: last seen, cluster time; not yet in a group
	holders []holder              // those that came to or left active or released in this group
	at      map[queue.Token]int   // where in holders
	line    []op                  // what happens to the line in this group, in its order
	pushed  map[queue.Token]int   // where in line, of appended visitors that no insert refers to
	scan    int
	changes int
}

// A holder is where a visitor stood before the group, and where it stands after it.
type holder struct {
	token         queue.Token
	before, after queue.State
	seen          int64
}

func newPlanner(held tally) *planner {
	return &planner{
		held: held, touches: make(map[queue.Token]int64),
		at: make(map[queue.Token]int), pushed: make(map[queue.Token]int),
	}
}

// plan appends to groups what shows changes, and returns the elements of the line that Redis
// has to walk over for it. Touches are only remembered: see takeTouches.
func (p *planner) plan(changes []queue.Change, groups []group) ([]group, int) {
	scan := 0
	for _, c := range changes {
		p.add(c)
		if len(p.line)+len(p.holders) >= groupOps || p.scan >= groupScan {
			groups = append(groups, p.cut())
			scan += groups[len(groups)-1].scan
		}
	}
	if p.changes > 0 {
		groups = append(groups, p.cut())
		scan += groups[len(groups)-1].scan
	}
	return groups, scan
}

// add takes one change into the group.
func (p *planner) add(c queue.Change) {
	if c.Before == c.After {
		if c.After == queue.Active {
			p.touches[c.Token] = c.Seen
		}
		return // a sign of life of anybody else shows nowhere
	}
	if c.Before.Waits() && c.After.Waits() {
		return // absent or present: the line holds both
	}
	p.changes++
	if c.Before.Holds() || c.After.Holds() {
		p.hold(c)
	}
	switch {
	case c.Before.Waits():
		p.unqueue(c)
	case c.After.Waits():
		p.queue(c)
	}
}

// hold notes a change of active or released. Only the first state before and the last one after
// count: both keys are sets, and the scores are absolute.
func (p *planner) hold(c queue.Change) {
	p.count(c.Before, -1)
	p.count(c.After, +1)
	delete(p.touches, c.Token) // older than this change, or of a visitor that has gone
	i, known := p.at[c.Token]
	if !known {
		i = len(p.holders)
		p.at[c.Token] = i
		p.holders = append(p.holders, holder{token: c.Token, before: c.Before})
	}
	p.holders[i].after, p.holders[i].seen = c.After, c.Seen
}

func (p *planner) count(s queue.State, n int) {
	switch s {
	case queue.Active:
		p.held.active += n
	case queue.Released:
		p.held.released += n
	}
}

func (p *planner) unqueue(c queue.Change) {
	p.held.queue--
	if i, ok := p.pushed[c.Token]; ok {
		p.line[i].verb = noVerb // came and went in one group: Redis need not know
		delete(p.pushed, c.Token)
		return
	}
	o := op{verb: verbUnqueue, end: 1, token: c.Token}
	distance := c.Ahead
	if behind := p.held.queue - c.Ahead; behind < distance {
		o.end, distance = -1, behind
	}
	p.line = append(p.line, o)
	p.scan += max(distance, 0) + 1
}

func (p *planner) queue(c queue.Change) {
	p.held.queue++
	if c.Next == (queue.Token{}) {
		p.pushed[c.Token] = len(p.line)
		p.line = append(p.line, op{verb: verbQueue, token: c.Token})
		return
	}
	delete(p.pushed, c.Next) // has to be there when the insert looks for it
	p.line = append(p.line, op{verb: verbInsert, token: c.Token, next: c.Next})
	p.scan += c.Ahead + 1 // LINSERT looks from the head only
}

// cut ends the group: what leaves active and released, the line, then what comes to them.
func (p *planner) cut() group {
	g := group{ops: make([]op, 0, len(p.line)+2*len(p.holders)), tally: p.held, scan: p.scan, changes: p.changes}
	for _, h := range p.holders {
		if h.before == queue.Released && h.after != queue.Released {
			g.ops = append(g.ops, op{verb: verbUnrelease, token: h.token})
		}
	}
	for _, h := range p.holders {
		if h.before == queue.Active && h.after != queue.Active {
			g.ops = append(g.ops, op{verb: verbDeactivate, token: h.token})
		}
	}
	for _, o := range p.line {
		if o.verb != noVerb {
			g.ops = append(g.ops, o)
		}
	}
	for _, h := range p.holders {
		if h.after == queue.Active {
			g.ops = append(g.ops, op{verb: verbActivate, token: h.token, seen: h.seen})
		}
	}
	for _, h := range p.holders {
		if h.after == queue.Released && h.before != queue.Released {
			g.ops = append(g.ops, op{verb: verbRelease, token: h.token})
		}
	}
	p.holders, p.line, p.scan, p.changes = p.holders[:0], p.line[:0], 0, 0
	clear(p.at)
	clear(p.pushed)
	return g
}

// takeTouches appends at most limit of the touches that no group has shown yet. They go last in
// a group: a visitor that has left active meanwhile is not among them.
func (p *planner) takeTouches(ops []op, limit int) []op {
	for token, seen := range p.touches {
		if limit--; limit < 0 {
			break
		}
		ops = append(ops, op{verb: verbTouch, token: token, seen: seen})
		delete(p.touches, token)
	}
	return ops
}
