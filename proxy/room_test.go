package proxy

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// fakeRoom is a room of one replica that a test sets by hand. Its decisions follow the
// words of package queue, without time: what the real table does is that package's to test.
type fakeRoom struct {
	mu        sync.Mutex
	views     map[queue.Token]queue.View
	line      []queue.Token
	limits    queue.Limits
	now       int64
	applied   uint64
	keys      seal.Ring
	ready     error
	noQuorum  bool
	submitErr error
	behind    map[uint64]func(*fakeRoom) // what applying an index brings; missing: it never comes
	hasRoom   *bool                      // what HasRoom says, when not the truth
	gone      queue.Token                // it has been taken out, which no view shows, and then there was no quorum any more
	turn      queue.Token                // an absent visitor that is promoted as soon as it comes

	touched   []queue.Token
	asked     []queue.Token
	stayed    []queue.Token
	submitted []queue.Command
}

var errNoQuorum = errors.New("no quorum")

func newRoom(t testing.TB, slots int) *fakeRoom {
	t.Helper()
	limits := queue.DefaultLimits()
	limits.MaxActive = slots
	return &fakeRoom{
		views: make(map[queue.Token]queue.View), limits: limits, now: 1_700_000_000_000, applied: 100,
		keys: seal.Ring{seal.NewKey(2), seal.NewKey(1)}, behind: make(map[uint64]func(*fakeRoom)),
	}
}

func (r *fakeRoom) Lookup(t queue.Token) queue.View {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.views[t]
}

func (r *fakeRoom) Touch(t queue.Token) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.touched = append(r.touched, t)
}

func (r *fakeRoom) Asked(t queue.Token) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, t)
}

func (r *fakeRoom) Stay(t queue.Token) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stayed = append(r.stayed, t)
}

func (r *fakeRoom) SubmitFunc(until time.Time, c queue.Command, then func(queue.Decision, error)) error {
	ctx, cancel := context.WithDeadline(context.Background(), until)
	go func() {
		defer cancel()
		then(r.Submit(ctx, c))
	}()
	return nil
}

func (r *fakeRoom) Quorum() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.noQuorum
}

func (r *fakeRoom) HasRoom() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hasRoom != nil {
		return *r.hasRoom
	}
	return r.roomLocked()
}

func (r *fakeRoom) roomLocked() bool {
	return len(r.line) == 0 && r.heldLocked() < r.limits.MaxActive
}

func (r *fakeRoom) heldLocked() int {
	n := 0
	for _, v := range r.views {
		if v.State.Holds() {
			n++
		}
	}
	return n
}

func (r *fakeRoom) Counts() queue.Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return queue.Counts{Active: r.heldLocked(), Queued: len(r.line)}
}

func (r *fakeRoom) Limits() queue.Limits {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limits
}

func (r *fakeRoom) Now() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *fakeRoom) Applied() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

func (r *fakeRoom) Keys() seal.Ring {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys
}

func (r *fakeRoom) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}

func (r *fakeRoom) WaitApplied(ctx context.Context, index uint64) error {
	r.mu.Lock()
	bring := r.behind[index]
	if bring != nil {
		r.applied = index
		bring(r)
	}
	ok := r.applied >= index
	r.mu.Unlock()
	if ok {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (r *fakeRoom) Submit(ctx context.Context, c queue.Command) (queue.Decision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.submitted = append(r.submitted, c)
	switch {
	case c.Token == r.gone && c.Kind == queue.KindClaim:
		return queue.Decision{Refusal: queue.NoVisitor}, nil
	case c.Token == r.gone:
		return queue.Decision{}, errNoQuorum
	}
	if r.submitErr != nil {
		return queue.Decision{}, r.submitErr
	}
	if err := ctx.Err(); err != nil {
		return queue.Decision{}, err
	}
	r.applied++
	d := r.applyLocked(c)
	d.Index = r.applied
	return d, nil
}

func (r *fakeRoom) applyLocked(c queue.Command) queue.Decision {
	v := r.views[c.Token]
	switch {
	case (c.Kind == queue.KindClaim || c.Kind == queue.KindReserve || c.Kind == queue.KindAsk) && v.State == queue.Unknown:
		return queue.Decision{Refusal: queue.NoVisitor}
	case c.Kind == queue.KindAsk && c.Token == r.turn:
		r.views[c.Token] = queue.View{State: queue.Released, Ticket: v.Ticket}
	case c.Kind == queue.KindArrive && c.Token == r.turn:
		r.admitLocked(c.Token)
	case c.Kind == queue.KindReserve && v.State == queue.Released:
		r.admitLocked(c.Token)
		admitted := r.views[c.Token]
		admitted.Reserved, admitted.Ticket, admitted.TouchAfter = true, v.Ticket, 0
		r.views[c.Token] = admitted
	case c.Kind == queue.KindClaim && v.State == queue.Released:
		r.admitLocked(c.Token)
	case v.State == queue.Active:
		r.admitLocked(c.Token)
	case v.State == queue.Unknown && r.roomLocked():
		r.admitLocked(c.Token)
	case v.State == queue.Unknown && c.Kind == queue.KindEnter:
		return queue.Decision{Refusal: queue.NoSlot}
	case v.State == queue.Unknown && r.limits.QueueMax > 0 && len(r.line) >= r.limits.QueueMax:
		return queue.Decision{Refusal: queue.QueueFull}
	case v.State == queue.Unknown:
		r.line = append(r.line, c.Token)
		r.views[c.Token] = queue.View{State: queue.Queued, Ticket: r.applied, Position: len(r.line), Seen: r.now}
	}
	v = r.views[c.Token]
	return queue.Decision{State: v.State, Ticket: v.Ticket, Position: v.Position}
}

func (r *fakeRoom) admitLocked(t queue.Token) {
	r.views[t] = queue.View{State: queue.Active, Seen: r.now, Deadline: r.now + 60_000, TouchAfter: r.now + 1000}
}

// set gives a visitor a view, and takes it out of the line when it waits there no more.
func (r *fakeRoom) set(t queue.Token, v queue.View) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.views[t] = v
	if v.State.Waits() {
		return
	}
	line := r.line[:0]
	for _, other := range r.line {
		if other != t {
			line = append(line, other)
		}
	}
	r.line = line
	for i, other := range line {
		w := r.views[other]
		w.Position = i + 1
		r.views[other] = w
	}
}

func (r *fakeRoom) do(f func(*fakeRoom)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

func (r *fakeRoom) advance(d time.Duration) {
	r.do(func(r *fakeRoom) { r.now += d.Milliseconds() })
}

// commands forgets and returns what has been submitted.
func (r *fakeRoom) commands() []queue.Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.submitted
	r.submitted = nil
	return out
}

func (r *fakeRoom) touches() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.touched)
	r.touched = nil
	return n
}

// asks forgets and counts the signs of life that were no touches.
func (r *fakeRoom) asks() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.asked)
	r.asked = nil
	return n
}

// active returns a visitor that is inside, and its cookie.
func (r *fakeRoom) active(t testing.TB) (queue.Token, string) {
	t.Helper()
	token := newToken()
	r.set(token, queue.View{State: queue.Active, Deadline: r.Now() + 60_000, TouchAfter: r.Now() + 1000})
	return token, r.cookie(token, 50)
}

// queued returns a visitor at the end of the line, and its cookie.
func (r *fakeRoom) queued(t testing.TB) (queue.Token, string) {
	t.Helper()
	token := newToken()
	r.do(func(r *fakeRoom) {
		r.line = append(r.line, token)
		r.views[token] = queue.View{State: queue.Queued, Ticket: uint64(len(r.line)), Position: len(r.line)}
	})
	return token, r.cookie(token, 50)
}

// older is the cookie that a visitor got before the last key was made.
func (r *fakeRoom) older(token queue.Token) string {
	return "wr_token=" + string(AppendCookie(nil, token, r.Keys()[1], 50))
}

// cookie is the whole pair that a browser sends.
func (r *fakeRoom) cookie(token queue.Token, index uint64) string {
	return "wr_token=" + string(AppendCookie(nil, token, r.Keys()[0], index))
}
