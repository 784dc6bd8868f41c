package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
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
}

// The ranges of a limit.
const (
	MaxCount    = 1 << 30 // of MaxActive and QueueMax
	MinDuration = 100 * time.Millisecond
	MaxDuration = 31 * 24 * time.Hour
)

// DefaultLimits are those of a node that was told nothing.
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

	AllFields = FieldMaxActive | FieldActiveTTL | FieldClaimTTL | FieldQueueAbsent | FieldQueueTTL | FieldQueueMax
)

// Fields lists every field with the name that the admin API and the settings give it, in
// the order of the wire form.
var Fields = []struct {
	Field Field
	Name  string
	Count bool // a number of visitors; otherwise a time
}{
	{FieldMaxActive, "max_active", true},
	{FieldActiveTTL, "active_ttl", false},
	{FieldClaimTTL, "claim_ttl", false},
	{FieldQueueAbsent, "queue_absent", false},
	{FieldQueueTTL, "queue_ttl", false},
	{FieldQueueMax, "queue_max", true},
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

const limitsSize = 1 + 2 + 8 + 3 + 6*8

// AppendLimits appends the wire form of c to dst: EntryLimits, room, now, layer, set, clear
// and the six values, those outside Set as zero.
func AppendLimits(dst []byte, c LimitsChange) []byte {
	dst = append(dst, EntryLimits)
	dst = binary.BigEndian.AppendUint16(dst, uint16(c.Room))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.Now))
	dst = append(dst, boolByte(c.Base), byte(c.Set), byte(c.Clear))
	return appendValues(dst, c.Values, c.Set)
}

// DecodeLimits is the inverse of AppendLimits.
func DecodeLimits(data []byte) (LimitsChange, error) {
	if len(data) != limitsSize || data[0] != EntryLimits {
		return LimitsChange{}, fmt.Errorf("%w: %d bytes", ErrBadLimits, len(data))
	}
	c := LimitsChange{
		Room: RoomID(binary.BigEndian.Uint16(data[1:])), Now: int64(binary.BigEndian.Uint64(data[3:])),
		Base: data[11] == 1, Set: Field(data[12]), Clear: Field(data[13]),
	}
	if c.Now < 0 || c.Now > maxNow || data[11] > 1 || (c.Set|c.Clear)&^AllFields != 0 || c.Set&c.Clear != 0 || c.Base && c.Clear != 0 {
		return LimitsChange{}, fmt.Errorf("%w: header % x", ErrBadLimits, data[:14])
	}
	var err error
	c.Values, err = decodeValues(data[14:], c.Set)
	return c, err
}

// appendValues appends all six values, those outside set as zero.
func appendValues(dst []byte, l Limits, set Field) []byte {
	for _, f := range Fields {
		v := int64(0)
		if set&f.Field != 0 {
			v = l.Get(f.Field)
		}
		dst = binary.BigEndian.AppendUint64(dst, uint64(v))
	}
	return dst
}

func decodeValues(data []byte, set Field) (Limits, error) {
	var l Limits
	for i, f := range Fields {
		v := binary.BigEndian.Uint64(data[8*i:])
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
