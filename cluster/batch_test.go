package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/queue"
)

// desk stands in for the leader: it keeps what it was sent and answers as told.
type desk struct {
	mu      sync.Mutex
	batches [][]queue.Command
	answer  func(n int) error // of the nth batch; nil: carried out
	slow    time.Duration
	alone   time.Duration // for how long no leader has been known
	refusal queue.Refusal // of every decision
}

func (d *desk) send(ctx context.Context, commands []queue.Command) ([]queue.Decision, error) {
	d.mu.Lock()
	d.batches = append(d.batches, slices.Clone(commands))
	n, slow := len(d.batches)-1, d.slow
	d.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d.answer != nil {
		if err := d.answer(n); err != nil {
			return nil, err
		}
	}
	out := make([]queue.Decision, len(commands))
	for i, c := range commands {
		out[i] = queue.Decision{State: queue.Active, Refusal: d.refusal, Ticket: uint64(c.Token[0])}
	}
	return out, nil
}

func (d *desk) leaderless() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.alone
}

func (d *desk) batcher(t *testing.T) *batcher {
	b := newBatcher(queue.DefaultRoom, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x"}), d.leaderless, d.send)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		b.run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return b
}

func arrive(n int) queue.Command { return queue.Command{Kind: queue.KindArrive, Token: visitor(n)} }

func TestCommandsGatherWhileABatchIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{slow: 3 * time.Millisecond}
		b := d.batcher(t)
		var wg sync.WaitGroup
		begun := time.Now()
		for n := range 100 {
			wg.Go(func() {
				got, err := b.submit(t.Context(), arrive(n))
				if err != nil || len(got) != 1 || got[0].Ticket != uint64(n) {
					t.Errorf("visitor %d got %+v, %v", n, got, err)
				}
			})
		}
		wg.Wait()
		if len(d.batches) > 3 {
			t.Errorf("100 commands took %d batches", len(d.batches))
		}
		if took := time.Since(begun); took > 9*time.Millisecond {
			t.Errorf("they took %v, a batch takes 3 ms", took)
		}
	})
}

func TestAnIdlePipeWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{slow: time.Millisecond}
		b := d.batcher(t)
		begun := time.Now()
		if _, err := b.submit(t.Context(), arrive(1)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != time.Millisecond {
			t.Errorf("it took %v, the commit takes 1 ms", took)
		}
	})
}

func TestABatchOfUnknownFateIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{answer: func(n int) error {
			return []error{errNotLeader, errors.New("connection reset"), nil}[n]
		}}
		b := d.batcher(t)
		got, err := b.submit(t.Context(), arrive(7), arrive(8))
		if err != nil || len(got) != 2 || got[1].Ticket != 8 {
			t.Fatalf("%+v, %v", got, err)
		}
		if len(d.batches) != 3 || !slices.Equal(d.batches[0], d.batches[2]) {
			t.Errorf("batches %v, want the same one three times", d.batches)
		}
	})
}

func TestOrderIsKeptThroughARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{slow: time.Millisecond, answer: func(n int) error {
			if n == 0 {
				return errNotLeader
			}
			return nil
		}}
		b := d.batcher(t)
		var wg sync.WaitGroup
		for n := range 3 {
			wg.Go(func() { b.submit(t.Context(), arrive(n)) })
			synctest.Wait()
		}
		wg.Wait()
		var order []byte
		for _, batch := range d.batches[1:] {
			for _, c := range batch {
				order = append(order, c.Token[0])
			}
		}
		if !slices.Equal(order, []byte{0, 1, 2}) {
			t.Errorf("order %v", order)
		}
	})
}

func TestSubmittersHearThatThereIsNoLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{answer: func(int) error { return errNotLeader }}
		b := d.batcher(t)
		go func() {
			time.Sleep(500 * time.Millisecond) // synctest's clock
			d.mu.Lock()
			d.alone = leaderless + 1
			d.mu.Unlock()
		}()
		if _, err := b.submit(t.Context(), arrive(1)); !errors.Is(err, ErrNoLeader) {
			t.Errorf("error %v, want %v", err, ErrNoLeader)
		}
		sent := len(d.batches)
		if _, err := b.submit(t.Context(), arrive(1)); !errors.Is(err, ErrNoLeader) || len(d.batches) != sent {
			t.Errorf("the next one: %v, and %d batches more; want %v at once", err, len(d.batches)-sent, ErrNoLeader)
		}
	})
}

func TestWhoHasGoneIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{slow: time.Second}
		b := d.batcher(t)
		go b.submit(t.Context(), arrive(1))
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			time.Sleep(10 * time.Millisecond) // synctest's clock
			cancel()
		}()
		if _, err := b.submit(ctx, arrive(2)); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if _, err := b.submit(t.Context(), arrive(3)); err != nil {
			t.Error(err)
		}
		if len(d.batches) != 2 || len(d.batches[1]) != 1 || d.batches[1][0] != arrive(3) {
			t.Errorf("batches %v: the visitor that hung up was sent", d.batches)
		}
		if b.waiting != 0 {
			t.Errorf("%d commands are counted as waiting", b.waiting)
		}
	})
}

func TestTooManyCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{slow: time.Hour}
		b := d.batcher(t)
		go b.submit(t.Context(), arrive(1))
		synctest.Wait()
		go b.submit(t.Context(), make([]queue.Command, maxPending)...)
		synctest.Wait()
		if _, err := b.submit(t.Context(), arrive(2)); !errors.Is(err, ErrBusy) {
			t.Errorf("error %v, want %v", err, ErrBusy)
		}
	})
}

func TestTouchesAreKeptUntilTheyHaveCommitted(t *testing.T) {
	now := int64(10_000)
	touches := newTouches(func() int64 { return now })
	touches.note(visitor(1), signTouch)
	now += 300
	touches.note(visitor(2), signTouch)
	var sent []queue.Command
	fail := errors.New("no")
	submit := func(_ context.Context, c ...queue.Command) ([]queue.Decision, error) {
		sent = slices.Clone(c)
		return nil, fail
	}
	now += 200
	if err := touches.flush(t.Context(), submit); !errors.Is(err, fail) {
		t.Fatalf("error %v", err)
	}
	touches.note(visitor(2), signTouch) // seen again while the flush failed: the newer sign counts
	fail = nil
	now += 1000
	if err := touches.flush(t.Context(), submit); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(sent, func(a, b queue.Command) int { return int(a.Token[0]) - int(b.Token[0]) })
	want := []queue.Command{{Kind: queue.KindTouch, Token: visitor(1), Arg: 1500}, {Kind: queue.KindTouch, Token: visitor(2), Arg: 1000}}
	if !slices.Equal(sent, want) {
		t.Errorf("sent %+v, want %+v", sent, want)
	}
	sent = nil
	if err := touches.flush(t.Context(), submit); err != nil || sent != nil {
		t.Errorf("after the commit %+v were sent again, %v", sent, err)
	}
}

// A leave whose leader dies before it can answer is sent again, and finds nobody: the one who asked for it is told that it was done.
func TestALeaveThatIsSentTwiceWasDone(t *testing.T) {
	lost, never := errors.New("the connection is gone"), errNotLeader
	for _, c := range []struct {
		name  string
		knows bool  // this replica, when the leave is handed in
		first error // of the first sending; nil: there is none
		want  queue.Refusal
	}{
		{"somebody is there, and the first answer is lost", true, lost, queue.Granted},
		{"nobody is there, and the first answer is lost", false, lost, queue.NoVisitor},
		{"somebody is there for this replica, and the first sending met no leader", true, never, queue.NoVisitor},
		{"somebody is there for this replica, and it is sent once", true, nil, queue.NoVisitor},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &desk{refusal: queue.NoVisitor, answer: func(n int) error {
					if n == 0 {
						return c.first
					}
					return nil
				}}
				b := d.batcher(t)
				b.knows = func(queue.Token) bool { return c.knows }
				got, err := b.submit(t.Context(), queue.Command{Kind: queue.KindLeave, Token: visitor(1)})
				if err != nil || got[0].Refusal != c.want {
					t.Errorf("%v, %v; want %v", got, err, c.want)
				}
			})
		})
	}
}
