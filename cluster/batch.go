package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/queue"
)

const (
	// maxEntry is the most commands in one entry: 63 KB, so that a heartbeat behind it is not late.
	maxEntry = 3000
	// maxPending is the most commands that may wait on one node; beyond it ErrBusy.
	maxPending = 200_000
	// leaderless is how long submissions wait for a leader to appear before they are told at once that
	// there is none. An election takes less.
	leaderless = 2 * time.Second
	// retryPause is how long a batch rests that met no leader, or one that is not ready yet.
	retryPause = 15 * time.Millisecond
)

// A submission is commands that belong together, and whoever waits for them: at done until ctx ends, or by then until a time.
type submission struct {
	commands []queue.Command
	ctx      context.Context
	done     chan outcome // holds one
	leaves   []int        // those commands that are leaves of visitors whom this replica knew when they were handed in
	resent   bool         // it was sent before, and nobody knows whether that was carried out

	then  func(outcome)
	until time.Time
}

// wanted reports whether anybody waits for it yet.
func (s *submission) wanted() bool {
	if s.then != nil {
		return time.Now().Before(s.until)
	}
	return s.ctx.Err() == nil
}

func (s *submission) end(o outcome) {
	if s.then != nil {
		s.then(o)
		return
	}
	s.done <- o
}

// settle puts right what a leave is told that was sent twice. The first time was carried out and its answer lost, most likely, so the second
// time nobody was there any more; but somebody was when it was asked for.
func (s *submission) settle(decisions []queue.Decision) {
	if !s.resent {
		return
	}
	for _, i := range s.leaves {
		if decisions[i].Refusal == queue.NoVisitor {
			decisions[i].Refusal = queue.Granted
		}
	}
}

type outcome struct {
	decisions []queue.Decision
	err       error
}

// errNotLeader says that nothing was done, because the node asked does not lead (any more, or yet).
var errNotLeader = errors.New("that node does not lead")

// A batcher gathers commands of one room while a batch is on its way, and sends what has gathered when that
// one is done: nothing waits for a timer when the pipe is idle, and under load thousands share one entry.
type batcher struct {
	room queue.RoomID
	// send carries out one batch: errNotLeader when nothing was done, any other error when its fate is unknown.
	send func(context.Context, []queue.Command) ([]queue.Decision, error)
	// led reports how long no leader has been known, zero when one is.
	led  func() time.Duration
	size prometheus.Observer // commands per batch
	// knows reports whether this node's replica holds the visitor; nil: it is not asked.
	knows func(queue.Token) bool

	more chan struct{} // holds one token while something is pending

	mu      sync.Mutex
	pending []*submission
	waiting int // commands in pending
	closed  bool
}

func newBatcher(room queue.RoomID, size prometheus.Observer, led func() time.Duration,
	send func(context.Context, []queue.Command) ([]queue.Decision, error),
) *batcher {
	return &batcher{room: room, send: send, led: led, size: size, more: make(chan struct{}, 1)}
}

// submit waits until the commands have committed, or ctx ends. Commands are idempotent, so a batch whose
// fate is unknown is sent again until then. Any number of callers.
func (b *batcher) submit(ctx context.Context, commands ...queue.Command) ([]queue.Decision, error) {
	s := &submission{ctx: ctx, commands: commands, done: make(chan outcome, 1)}
	if err := b.enqueue(s); err != nil {
		return nil, err
	}
	select {
	case o := <-s.done:
		return o.decisions, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// submitFunc is submit for who cannot wait. Without an error it calls then once, from a goroutine that must not be held up;
// after until perhaps not any more. Any number of callers.
func (b *batcher) submitFunc(until time.Time, c queue.Command, then func(queue.Decision, error)) error {
	return b.enqueue(&submission{commands: []queue.Command{c}, until: until, then: func(o outcome) {
		if o.err != nil {
			then(queue.Decision{}, o.err)
			return
		}
		then(o.decisions[0], nil)
	}})
}

func (b *batcher) enqueue(s *submission) error {
	if b.led() > leaderless {
		return ErrNoLeader
	}
	for i, c := range s.commands {
		if c.Kind == queue.KindLeave && b.knows != nil && b.knows(c.Token) {
			s.leaves = append(s.leaves, i)
		}
	}
	b.mu.Lock()
	switch {
	case b.closed:
		b.mu.Unlock()
		return ErrClosed
	case b.waiting+len(s.commands) > maxPending:
		b.mu.Unlock()
		return ErrBusy
	}
	b.pending = append(b.pending, s)
	b.waiting += len(s.commands)
	b.mu.Unlock()
	b.wake()
	return nil
}

func (b *batcher) wake() {
	select {
	case b.more <- struct{}{}:
	default:
	}
}

// idle reports whether nothing waits that somebody still waits for.
func (b *batcher) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !slices.ContainsFunc(b.pending, (*submission).wanted)
}

// run sends batch after batch until ctx ends, then turns away whoever still waits.
func (b *batcher) run(ctx context.Context) {
	defer b.shut()
	for {
		select {
		case <-b.more:
		case <-ctx.Done():
			return
		}
		batch := b.take()
		if len(batch) == 0 {
			continue
		}
		commands := commandsOf(batch)
		b.size.Observe(float64(len(commands)))
		decisions, err := b.send(ctx, commands)
		if err == nil {
			answer(batch, decisions)
			continue
		}
		if !errors.Is(err, errNotLeader) {
			for _, s := range batch {
				s.resent = true
			}
		}
		b.again(ctx, batch)
	}
}

func commandsOf(batch []*submission) (commands []queue.Command) {
	for _, s := range batch {
		commands = append(commands, s.commands...)
	}
	return commands
}

// answer gives each submission of a batch its part of the decisions.
func answer(batch []*submission, decisions []queue.Decision) {
	for _, s := range batch {
		n := len(s.commands)
		s.settle(decisions[:n:n])
		s.end(outcome{decisions: decisions[:n:n]})
		decisions = decisions[n:]
	}
}

// take removes what goes into the next batch: whole submissions in order, those that nobody waits for any
// more left out.
func (b *batcher) take() []*submission {
	b.mu.Lock()
	defer b.mu.Unlock()
	var batch []*submission
	size, n := 0, 0
	for _, s := range b.pending {
		if size > 0 && size+len(s.commands) > maxEntry {
			break
		}
		n++
		b.waiting -= len(s.commands)
		if s.wanted() {
			batch = append(batch, s)
			size += len(s.commands)
		}
	}
	rest := copy(b.pending, b.pending[n:])
	clear(b.pending[rest:])
	b.pending = b.pending[:rest]
	if rest > 0 {
		b.wake()
	}
	return batch
}

// again puts a batch back in front, after a pause, unless there has been no leader for so long that its
// submitters should hear of it.
func (b *batcher) again(ctx context.Context, batch []*submission) {
	if b.giveUp(batch) {
		return
	}
	select {
	case <-time.After(retryPause):
	case <-ctx.Done():
	}
	b.putBack(batch)
}

// giveUp ends a batch when there has been no leader for long, and reports whether that was so.
func (b *batcher) giveUp(batch []*submission) bool {
	if b.led() <= leaderless {
		return false
	}
	for _, s := range batch {
		s.end(outcome{err: ErrNoLeader})
	}
	return true
}

// putBack puts a batch back in front.
func (b *batcher) putBack(batch []*submission) {
	b.mu.Lock()
	b.pending = append(batch, b.pending...)
	for _, s := range batch {
		b.waiting += len(s.commands)
	}
	b.mu.Unlock()
	b.wake()
}

func (b *batcher) shut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, s := range b.pending {
		s.end(outcome{err: ErrClosed})
	}
	b.pending, b.waiting = nil, 0
}
