package queue

import "sync"

// A Change is one row before and after a command. A change of Seen alone (a touch) is one too.
type Change struct {
	Token  Token
	Before State
	After  State
	Seen   int64 // cluster time in Unix milliseconds; of After
	// Ahead is how many stand in line before the row: where it joins, or where it was taken out.
	// Zero unless Before or After waits.
	Ahead int
	// Next is the visitor behind the row when it joins the line in the middle (a ticket that came
	// back), and zero when it joins at the end.
	Next Token
}

// A Feed collects the changes of a table for one reader. The table never waits for it: what
// does not fit in the backlog is forgotten, and the reader is told that it has lost changes.
type Feed struct {
	staged []Change // of the entry being applied; Apply only

	mu      sync.Mutex
	pending []Change
	limit   int
	index   uint64 // of the newest entry that pending covers
	lost    bool
	more    chan struct{} // holds one token when there is something to take
}

func newFeed(limit int, index uint64) *Feed {
	return &Feed{limit: limit, index: index, more: make(chan struct{}, 1)}
}

// NewFeed makes a feed that no table fills, for the tests of its readers. Publish fills it.
func NewFeed(limit int, index uint64) *Feed { return newFeed(limit, index) }

// More is ready when Take has something to give. One reader.
func (f *Feed) More() <-chan struct{} { return f.more }

// Take hands over the changes since the last call, in the order in which they happened,
// appended to buf[:0], and the index of the entry up to which they reach: whole entries only.
// When the backlog was exceeded it reports lost and gives no changes: the reader has to begin
// again with a new feed.
func (f *Feed) Take(buf []Change) (changes []Change, index uint64, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changes = append(buf[:0], f.pending...)
	f.pending = f.pending[:0]
	return changes, f.index, f.lost
}

// Len is the number of changes that wait to be taken. It may be called from anywhere.
func (f *Feed) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pending)
}

// Publish appends the changes of the entry at index, all at once.
func (f *Feed) Publish(index uint64, changes []Change) {
	f.mu.Lock()
	f.index = index
	switch {
	case f.lost:
	case len(f.pending)+len(changes) > f.limit:
		f.lost, f.pending = true, nil
	default:
		f.pending = append(f.pending, changes...)
	}
	wake := f.lost || len(f.pending) > 0
	f.mu.Unlock()
	if wake {
		select {
		case f.more <- struct{}{}:
		default:
		}
	}
}
