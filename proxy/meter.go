package proxy

import (
	"hash/maphash"
	"sync"
	"time"
)

// A meter holds a token bucket for each key that was seen lately, in half a megabyte whatever comes. A bucket is one number, the
// time at which it will be full again (the generic cell rate algorithm, ITU-T I.371 annex A). A full bucket is as good as none,
// so its cell is free: a key that keeps to its rate takes one for a moment after each of its requests. Where no cell is free,
// the bucket that would be full first is forgotten. So a flood of keys pushes out its own, and not those that have used theirs up; and
// what is forgotten errs on the side of the key.
//
// Which cell a key gets cannot be guessed from outside. Any number of callers.
type meter struct {
	interval int64 // between two requests at the rate, in nanoseconds
	depth    int64 // of a bucket: the burst, in nanoseconds
	now      func() int64
	seed     maphash.Seed
	shards   [meterShards]meterShard
}

const (
	meterShards = 64 // locks
	meterSets   = 128
	meterWays   = 4 // cells that a key may have
)

type meterShard struct {
	mu   sync.Mutex
	sets [meterSets][meterWays]meterCell
}

type meterCell struct {
	tag  uint64 // of the key
	full int64  // when the bucket is full again, in nanoseconds as now has them
}

// newMeter makes a meter for so many requests a second, with bursts of that many. It is nil, which is off, without a rate.
func newMeter(rate float64, burst int) *meter {
	if rate <= 0 {
		return nil
	}
	begun := time.Now()
	m := &meter{
		interval: max(int64(float64(time.Second)/rate), 1), seed: maphash.MakeSeed(),
		now: func() int64 { return int64(time.Since(begun)) },
	}
	m.depth = m.interval * int64(max(burst, 1))
	return m
}

// allow takes one from the key's bucket and reports whether there was one.
func (m *meter) allow(key [16]byte) bool {
	tag := maphash.Bytes(m.seed, key[:])
	shard := &m.shards[tag%meterShards]
	set := &shard.sets[tag/meterShards%meterSets]
	now := m.now()
	shard.mu.Lock()
	defer shard.mu.Unlock()
	cell := &set[0]
	for i := range set {
		if set[i].tag == tag {
			cell = &set[i]
			break
		}
		if set[i].full < cell.full {
			cell = &set[i]
		}
	}
	full := now
	if cell.tag == tag {
		full = max(full, cell.full)
	}
	if full += m.interval; full-now > m.depth {
		return false
	}
	*cell = meterCell{tag, full}
	return true
}
