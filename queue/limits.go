package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"time"
)

// Limits are the settings that every replica must agree on. They travel through the log, so
// a flag edited on one node changes nothing until an entry with it has committed.
type Limits struct {
	MaxActive   int           // slots: visitors active or released at once; 0 holds everybody
	ActiveTTL   time.Duration // an active visitor unseen for this long loses its slot
	ClaimTTL    time.Duration // a released visitor has this long to come in
	QueueAbsent time.Duration // a queued visitor unseen for this long is passed over
	QueueTTL    time.Duration // a queued visitor unseen for this long leaves the queue
	QueueMax    int           // the most visitors in line; 0: no limit
	FirstHitTTL time.Duration // a slot given to a first visit goes on after this long when others wait and its cookie has not come back; 0: off
}

// The ranges of a limit.
const (
	MaxCount    = 1 << 30 // of MaxActive and QueueMax
	MinDuration = 100 * time.Millisecond
	MaxDuration = 31 * 24 * time.Hour
)

// DefaultLimits are those of a table that no entry has told anything. The later fields are off: a log from before them, read
// again, has to give the table that it gave then (I7). What a node proposes for them when it was told nothing is package main's.
func DefaultLimits() Limits {
	return Limits{
		MaxActive: 100, ActiveTTL: 60 * time.Second, ClaimTTL: 120 * time.Second,
		QueueAbsent: 90 * time.Second, QueueTTL: 1800 * time.Second,
	}
}

// A Field is one limit: a bit, so that a set of fields is a number. The bits are in the log.
type Field uint8

// The fields of Limits.
const (
	FieldMaxActive Field = 1 << iota
	FieldActiveTTL
	FieldClaimTTL
	FieldQueueAbsent
	FieldQueueTTL
	FieldQueueMax
	FieldFirstHitTTL

	firstFields = FieldMaxActive | FieldActiveTTL | FieldClaimTTL | FieldQueueAbsent | FieldQueueTTL | FieldQueueMax
	// LaterFields are those that came with feature level 3: an entry with one of them has a layout of its own, which no
	// older version reads, and they have no say in the sum of a table in which they are zero.
	LaterFields = FieldFirstHitTTL
	AllFields   = firstFields | LaterFields
)

// Fields lists every field with the name that the admin API and the settings give it, in
// the order of the wire form.
var Fields = []struct {
	Field Field
	Name  string
	Count bool // a number of visitors; otherwise a time
	Off   bool // a time of zero turns it off
}{
	{FieldMaxActive, "max_active", true, false},
	{FieldActiveTTL, "active_ttl", false, false},
	{FieldClaimTTL, "claim_ttl", false, false},
	{FieldQueueAbsent, "queue_absent", false, false},
	{FieldQueueTTL, "queue_ttl", false, false},
	{FieldQueueMax, "queue_max", true, false},
	{FieldFirstHitTTL, "first_hit_ttl", false, true},
}

// firstHit is for how long an unconfirmed visitor has its slot for sure.
func (l Limits) firstHit() time.Duration {
	if l.FirstHitTTL == 0 {
		return l.ActiveTTL
	}
	return min(l.ActiveTTL, l.FirstHitTTL)
}

// Get returns one field as a count, or as milliseconds.
func (l Limits) Get(f Field) int64 {
	switch f {
	case FieldMaxActive:
		return int64(l.MaxActive)
	case FieldActiveTTL:
		return l.ActiveTTL.Milliseconds()
	case FieldClaimTTL:
		return l.ClaimTTL.Milliseconds()
	case FieldQueueAbsent:
		return l.QueueAbsent.Milliseconds()
	case FieldQueueTTL:
		return l.QueueTTL.Milliseconds()
	case FieldQueueMax:
		return int64(l.QueueMax)
	case FieldFirstHitTTL:
		return l.FirstHitTTL.Milliseconds()
	}
	panic(fmt.Sprintf("queue: no field %d", f))
}

// Set sets one field from a count, or from milliseconds. It does not check the range.
func (l *Limits) Set(f Field, v int64) {
	switch f {
	case FieldMaxActive:
		l.MaxActive = int(v)
	case FieldActiveTTL:
		l.ActiveTTL = time.Duration(v) * time.Millisecond
	case FieldClaimTTL:
		l.ClaimTTL = time.Duration(v) * time.Millisecond
	case FieldQueueAbsent:
		l.QueueAbsent = time.Duration(v) * time.Millisecond
	case FieldQueueTTL:
		l.QueueTTL = time.Duration(v) * time.Millisecond
	case FieldQueueMax:
		l.QueueMax = int(v)
	case FieldFirstHitTTL:
		l.FirstHitTTL = time.Duration(v) * time.Millisecond
	default:
		panic(fmt.Sprintf("queue: no field %d", f))
	}
}

// Validate names the first field of the set that is out of range, and the range.
func (l Limits) Validate(set Field) error {
	for _, f := range Fields {
		if set&f.Field == 0 {
			continue
		}
		v := l.Get(f.Field)
		if f.Count && (v < 0 || v > MaxCount) {
			return fmt.Errorf("%s: %d is not between 0 and %d", f.Name, v, MaxCount)
		}
		if f.Off && v == 0 {
			continue
		}
		if !f.Count && (v < MinDuration.Milliseconds() || v > MaxDuration.Milliseconds()) {
			return fmt.Errorf("%s: %v s is not between %v and %v s", f.Name, float64(v)/1000, MinDuration.Seconds(), MaxDuration.Seconds())
		}
	}
	return nil
}

// A LimitsChange is the payload of an EntryLimits entry. There are two layers: the base comes
// from the environment of the node that leads; the override comes from the admin API, lies
// over the base, and stays until it is cleared.
type LimitsChange struct {
	Index  uint64 // the entry's index in the log; not part of the wire form
	Room   RoomID
	Now    int64  // the leader's clock, Unix milliseconds
	Base   bool   // the base layer; otherwise the override
	Set    Field  // the fields that Values brings
	Clear  Field  // override only: the fields that fall back to the base
	Values Limits // fields outside Set are ignored
}

// ErrBadLimits is the answer of DecodeLimits to bytes that AppendLimits could not have written.
var ErrBadLimits = errors.New("queue: bad limits")

const limitsHead = 1 + 2 + 8 + 3

// AppendLimits appends the wire form of c to dst: EntryLimits, room, now, layer, set, clear
// and the six values, those outside Set as zero. A change of any of the later fields begins with EntryLaterLimits and has
// a value for each field.
func AppendLimits(dst []byte, c LimitsChange) []byte {
	layout, fields := EntryLimits, firstFields
	if (c.Set|c.Clear)&LaterFields != 0 {
		layout, fields = EntryLaterLimits, AllFields
	}
	dst = append(dst, layout)
	dst = binary.BigEndian.AppendUint16(dst, uint16(c.Room))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.Now))
	dst = append(dst, boolByte(c.Base), byte(c.Set), byte(c.Clear))
	return appendValues(dst, c.Values, fields, c.Set)
}

// DecodeLimits is the inverse of AppendLimits.
func DecodeLimits(data []byte) (LimitsChange, error) {
	fields := firstFields
	if len(data) > 0 && data[0] == EntryLaterLimits {
		fields = AllFields
	}
	if len(data) != limitsHead+valuesSize(fields) || data[0] != EntryLimits && data[0] != EntryLaterLimits {
		return LimitsChange{}, fmt.Errorf("%w: %d bytes", ErrBadLimits, len(data))
	}
	c := LimitsChange{
		Room: RoomID(binary.BigEndian.Uint16(data[1:])), Now: int64(binary.BigEndian.Uint64(data[3:])),
		Base: data[11] == 1, Set: Field(data[12]), Clear: Field(data[13]),
	}
	if c.Now < 0 || c.Now > maxNow || data[11] > 1 || (c.Set|c.Clear)&^fields != 0 || fields == AllFields && (c.Set|c.Clear)&LaterFields == 0 ||
		c.Set&c.Clear != 0 || c.Base && c.Clear != 0 {
		return LimitsChange{}, fmt.Errorf("%w: header % x", ErrBadLimits, data[:14])
	}
	var err error
	c.Values, err = decodeValues(data[limitsHead:], fields, c.Set)
	return c, err
}

// valuesSize is how many bytes the values of those fields take.
func valuesSize(fields Field) int { return 8 * bits.OnesCount8(uint8(fields)) }

// appendValues appends a value for each of the fields, those outside set as zero.
func appendValues(dst []byte, l Limits, fields, set Field) []byte {
	for _, f := range Fields {
		if fields&f.Field == 0 {
			continue
		}
		v := int64(0)
		if set&f.Field != 0 {
			v = l.Get(f.Field)
		}
		dst = binary.BigEndian.AppendUint64(dst, uint64(v))
	}
	return dst
}

func decodeValues(data []byte, fields, set Field) (Limits, error) {
	var l Limits
	for _, f := range Fields {
		if fields&f.Field == 0 {
			continue
		}
		v := binary.BigEndian.Uint64(data)
		data = data[8:]
		if v > math.MaxInt64/1_000_000 || v != 0 && set&f.Field == 0 {
			return Limits{}, fmt.Errorf("%w: %s is %d", ErrBadLimits, f.Name, v)
		}
		l.Set(f.Field, int64(v))
	}
	if err := l.Validate(set); err != nil {
		return Limits{}, fmt.Errorf("%w: %w", ErrBadLimits, err)
	}
	return l, nil
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
