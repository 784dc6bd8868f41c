package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// touches are the signs of life that this node has seen and that have not committed yet. One that could
// not be sent stays until an entry with it has committed (I4). Any number of callers may note.
type touches struct {
	now      func() int64
	flushing chan struct{}             // holds one token while a flush is under way
	settled  atomic.Pointer[time.Time] // every sign noted before it has committed

	shards [64]struct {
		mu   sync.Mutex
		seen map[queue.Token]sign
	}
}

// A sign is the newest time at which a visitor was seen, and the most that was seen of it since the last flush: cluster time in Unix
// milliseconds, shifted by signBits, and a strength.
type sign int64

const signBits = 2

// The strengths: with a higher one the cluster is told more.
const (
	signStay  sign = iota // a request without the cookie was under way
	signAsk               // it brought its cookie, and was not let in with that
	signTouch             // it was let in to a page with its cookie
)

var signKinds = [...]queue.Kind{signStay: queue.KindStay, signAsk: queue.KindAsk, signTouch: queue.KindTouch}

func (s sign) at() int64 { return int64(s >> signBits) }

func (s sign) strength() sign { return s & (1<<signBits - 1) }

// and is both signs in one.
func (s sign) and(o sign) sign {
	return max(s>>signBits, o>>signBits)<<signBits | max(s.strength(), o.strength())
}

func newTouches(now func() int64) *touches {
	t := &touches{now: now, flushing: make(chan struct{}, 1)}
	t.settle(time.Now())
	for i := range t.shards {
		t.shards[i].seen = make(map[queue.Token]sign)
	}
	return t
}

// note keeps a sign of life for the next flush. The clock is read under the lock: a sign of before a flush is then in it (settled).
func (t *touches) note(token queue.Token, strength sign) {
	s := &t.shards[token[1]%64]
	s.mu.Lock()
	seen := sign(t.now())<<signBits | strength
	if strength < signTouch { // a page is the most that can be seen, and spares the hot path a look at what was
		seen = s.seen[token].and(seen)
	}
	s.seen[token] = seen
	s.mu.Unlock()
}

// take empties the gathered touches into a list.
func (t *touches) take() []touch {
	var out []touch
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for token, seen := range s.seen {
			out = append(out, touch{token, seen})
		}
		clear(s.seen)
		s.mu.Unlock()
	}
	return out
}

type touch struct {
	token queue.Token
	seen  sign
}

// giveBack keeps touches that could not be sent, together with what has been noted meanwhile.
func (t *touches) giveBack(list []touch) {
	for _, v := range list {
		s := &t.shards[v.token[1]%64]
		s.mu.Lock()
		s.seen[v.token] = s.seen[v.token].and(v.seen)
		s.mu.Unlock()
	}
}

func (t *touches) settle(at time.Time) { t.settled.Store(&at) }

// lag is for how long there may be signs that have not committed. Any number of callers.
func (t *touches) lag() time.Duration { return max(time.Since(*t.settled.Load()), 0) }

// flush submits everything noted so far and reports whether all of it has committed. One at a time: the second waits, or ctx ends.
func (t *touches) flush(ctx context.Context, submit func(context.Context, ...queue.Command) ([]queue.Decision, error)) error {
	select {
	case t.flushing <- struct{}{}:
		defer func() { <-t.flushing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	begun := time.Now()
	list := t.take()
	for len(list) > 0 {
		n := min(len(list), maxEntry)
		if _, err := submit(ctx, t.commands(list[:n])...); err != nil {
			t.giveBack(list)
			return err
		}
		list = list[n:]
	}
	t.settle(begun)
	return nil
}

// commands tell the cluster of the touches: how long ago each was.
func (t *touches) commands(list []touch) []queue.Command {
	now, out := t.now(), make([]queue.Command, len(list))
	for i, v := range list {
		age := min(max(now-v.seen.at(), 0), int64(time.Hour/time.Millisecond))
		out[i] = queue.Command{Kind: signKinds[v.seen.strength()], Token: v.token, Arg: uint32(age)}
	}
	return out
}

// run flushes at every interval until ctx ends.
func (t *touches) run(ctx context.Context, every time.Duration, submit func(context.Context, ...queue.Command) ([]queue.Decision, error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			// An error is not news here: the touches are kept, and the next flush brings them.
			limit, cancel := context.WithTimeout(ctx, 4*every)
			_ = t.flush(limit, submit)
			cancel()
		case <-ctx.Done():
			return
		}
	}
}
