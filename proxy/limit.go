package proxy

import (
	"net/netip"
	"sync"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// edgeLimits are the limits that one node keeps for itself; nil fields are off.
type edgeLimits struct {
	visitors  *buckets[queue.Token]
	newcomers *buckets[netip.Addr]
}

func newEdgeLimits(perVisitorSecond, newPerMinute int) *edgeLimits {
	l := &edgeLimits{}
	if perVisitorSecond > 0 {
		l.visitors = newBuckets[queue.Token](float64(perVisitorSecond), float64(2*perVisitorSecond))
	}
	if newPerMinute > 0 {
		l.newcomers = newBuckets[netip.Addr](float64(newPerMinute)/60, float64(newPerMinute))
	}
	return l
}

// prefixOf is what counts as one address: an IPv4 address, or the /64 that one IPv6
// subscriber has to itself.
func prefixOf(a netip.Addr) netip.Addr {
	if a.Is4() || !a.IsValid() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// buckets are token buckets, one for each key that was seen lately. Memory is bounded by
// forgetting the keys of the generation before the last, whose buckets are full again.
type buckets[K comparable] struct {
	rate  float64 // per second
	burst float64
	span  time.Duration // after which an untouched bucket is full
	now   func() time.Time

	mu       sync.Mutex
	young    map[K]bucket
	old      map[K]bucket
	turnedAt time.Time
}

type bucket struct {
	left float64
	at   time.Time
}

func newBuckets[K comparable](rate, burst float64) *buckets[K] {
	b := &buckets[K]{rate: rate, burst: max(burst, 1), now: time.Now, young: make(map[K]bucket), old: make(map[K]bucket)}
	b.span = time.Duration(b.burst / rate * float64(time.Second))
	b.turnedAt = b.now()
	return b
}

// allow takes one from the key's bucket and reports whether there was one.
func (b *buckets[K]) allow(key K) bool {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.turnedAt) > b.span {
		b.old, b.young, b.turnedAt = b.young, make(map[K]bucket), now
	}
	got, ok := b.young[key]
	if !ok {
		if got, ok = b.old[key]; !ok {
			got = bucket{left: b.burst, at: now}
		}
	}
	got.left = min(b.burst, got.left+now.Sub(got.at).Seconds()*b.rate)
	got.at = now
	allowed := got.left >= 1
	if allowed {
		got.left--
	}
	b.young[key] = got
	return allowed
}
