package queue

// A State says where a visitor stands. The numbers are in snapshots and rise on the way in,
// so "further" can be compared.
type State uint8

// The four states, and the absence of a row.
const (
	Unknown  State = 0 // no row: never stored, left, or expired
	Absent   State = 1 // has a ticket, has not been seen for queue_absent, is passed over
	Queued   State = 2 // has a ticket and is present
	Released State = 3 // promoted: holds a slot, and a ticket until it claims
	Active   State = 4 // inside: holds a slot
)

// Holds reports whether a visitor in this state takes one of max_active slots.
func (s State) Holds() bool { return s == Released || s == Active }

// Waits reports whether a visitor in this state stands in line, present or not.
func (s State) Waits() bool { return s == Queued || s == Absent }

var stateNames = [...]string{"unknown", "absent", "queued", "released", "active"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "invalid"
}

// A View is what one replica knows of a visitor at this moment. It is a copy: nothing in it
// changes, and nothing in it reaches back into the table.
type View struct {
	State    State
	Reserved bool   // Active by a poll, and not seen with a page since
	Ticket   uint64 // zero when Unknown, or Active, confirmed and not reserved
	Position int    // 1 + how many hold a lower ticket; zero unless State.Waits
	Seen     int64  // cluster time in Unix milliseconds of the last committed sign of life
	// Deadline is the cluster time up to which an Active visitor may pass on this replica's word
	// alone (I5). Past it only the cluster can say; zero unless Active. That of an unconfirmed visitor is first_hit_ttl after its
	// only visit whether or not anybody waits: on the other side of a partition somebody may begin to at any moment.
	Deadline int64
	// TouchAfter is the cluster time from which another request is worth a touch; zero means always, as for an
	// unconfirmed visitor and for one that is Reserved.
	TouchAfter int64
}

// A Decision is the outcome of one command, the same on every replica.
type Decision struct {
	State    State // what the visitor is after the command
	Refusal  Refusal
	Ticket   uint64 // zero unless it has one
	Position int    // zero unless State.Waits
	Index    uint64 // of the entry in the log: what the visitor has been told as of (I6)
}

// A Refusal says why a command changed nothing. It is part of a decision, not an error.
type Refusal uint8

// The refusals.
const (
	Granted   Refusal = 0 // not refused
	QueueFull Refusal = 1 // arrive: queue_max visitors are in line; nothing was stored
	NoSlot    Refusal = 2 // enter: no slot is free, or somebody waits; nothing was stored
	NoVisitor Refusal = 3 // leave, claim, touch: the table does not hold this visitor
)

var refusalNames = [...]string{"granted", "queue full", "no slot", "no such visitor"}

func (r Refusal) String() string {
	if int(r) < len(refusalNames) {
		return refusalNames[r]
	}
	return "invalid"
}

// Counts are the sizes of a room. Queued includes Absent.
type Counts struct {
	Active, Released, Queued, Absent int
	Unconfirmed                      int // of Active: first hits whose cookie has not come back
	TakenBack                        int // of Absent: such as had to give their slot to somebody who waited
}

// Line is how many stand in line as far as queue_max counts them.
func (c Counts) Line() int { return c.Queued - c.TakenBack }

// Held is the number of slots taken (I1).
func (c Counts) Held() int { return c.Active + c.Released }
