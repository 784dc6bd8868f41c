package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Kind names one transition. Kinds are on disk in every Raft log, so a number keeps its
// meaning for good; a new kind takes the next free number.
type Kind uint8

// The transitions of one visitor, and the leader's own two.
const (
	KindArrive Kind = 1 // give the visitor a slot, or a ticket; for a known one: it is here
	KindTouch  Kind = 2 // the visitor was seen Arg milliseconds ago: move its deadline
	KindClaim  Kind = 3 // a released visitor takes its slot
	KindTick   Kind = 4 // expire, then promote; proposed only by the leader
	KindLeave  Kind = 5 // the visitor gives up its slot or ticket
	KindEnter  Kind = 6 // a first visit: a slot at once, or nothing is stored
	KindResume Kind = 7 // a new leader's first command: time stood still for Arg milliseconds
	KindStay   Kind = 8 // a request without the cookie was still under way Arg milliseconds ago; from feature level 3 on

	// A poll takes a slot by KindReserve, and its answer may be lost: the ticket stays with the slot until a KindClaim, KindArrive or
	// KindTouch. What was seen of the visitor without letting it in to a page comes as KindAsk, which is KindTouch otherwise. Both are from
	// feature level 4 on.
	KindReserve Kind = 9
	KindAsk     Kind = 10

	lastKind = KindAsk
)

// A Command is one requested transition. Sending it twice is harmless: the second one finds
// what the first one did (same slot, same ticket).
type Command struct {
	Kind  Kind
	Token Token  // zero for KindTick and KindResume
	Arg   uint32 // milliseconds; used by KindTouch, KindAsk, KindStay and KindResume, zero for the others
}

// A RoomID names one waiting room in the log. DefaultRoom is the only one the proxy knows
// today; the number is in every entry so that a log written now stays readable then.
type RoomID uint16

// DefaultRoom is the room of a node that was configured with one origin.
const DefaultRoom RoomID = 0

// A Batch is the payload of one Raft entry: the commands that were waiting together, in
// arrival order.
type Batch struct {
	Index    uint64 // the entry's index in the log; not part of the wire form
	Room     RoomID
	Now      int64 // the leader's clock, Unix milliseconds: the only time Apply ever sees
	Commands []Command
}

// The first byte of an entry says which layout follows. A changed layout is a new number.
const (
	EntryBatch  byte = 1 // AppendBatch
	EntryLimits byte = 2 // AppendLimits, without the later fields

	EntryLaterLimits byte = 5 // AppendLimits, with any of the later fields; from feature level 3 on. 3 and 4 are package cluster's
)

const (
	batchHeader = 1 + 2 + 8  // layout, room, now
	commandSize = 1 + 16 + 4 // kind, token, arg
	maxNow      = 1<<53 - 1  // milliseconds; far beyond any clock, and exact in JSON
	maxCommands = 1 << 16    // in one batch; an entry stays well below Raft's advice at half of it
	maxArg      = 1<<31 - 1  // milliseconds, 24 days
)

// ErrBadBatch is the answer of DecodeBatch and DecodeCommands to bytes that AppendBatch or
// AppendCommands could not have written.
var ErrBadBatch = errors.New("queue: bad batch")

// AppendBatch appends the wire form of b to dst: EntryBatch, room, Now, then one record of
// commandSize bytes per command; the length says how many.
func AppendBatch(dst []byte, b Batch) []byte {
	dst = append(dst, EntryBatch)
	dst = binary.BigEndian.AppendUint16(dst, uint16(b.Room))
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.Now))
	return AppendCommands(dst, b.Commands)
}

// DecodeBatch is the inverse of AppendBatch. It appends the commands to buf[:0], so a caller
// that decodes one batch after the other allocates once. Anything AppendBatch could not have
// written is ErrBadBatch.
func DecodeBatch(data []byte, buf []Command) (Batch, error) {
	if len(data) < batchHeader || data[0] != EntryBatch {
		return Batch{}, fmt.Errorf("%w: %d bytes without a batch header", ErrBadBatch, len(data))
	}
	now := binary.BigEndian.Uint64(data[3:])
	if now > maxNow {
		return Batch{}, fmt.Errorf("%w: time %d out of range", ErrBadBatch, now)
	}
	commands, err := DecodeCommands(data[batchHeader:], buf)
	if err != nil {
		return Batch{}, err
	}
	return Batch{Room: RoomID(binary.BigEndian.Uint16(data[1:])), Now: int64(now), Commands: commands}, nil
}

// AppendCommands appends the records of commands to dst: the form in which a batch carries
// them, and in which a node forwards them to the leader.
func AppendCommands(dst []byte, commands []Command) []byte {
	for _, c := range commands {
		dst = append(dst, byte(c.Kind))
		dst = append(dst, c.Token[:]...)
		dst = binary.BigEndian.AppendUint32(dst, c.Arg)
	}
	return dst
}

// DecodeCommands is the inverse of AppendCommands; it appends to buf[:0].
func DecodeCommands(data []byte, buf []Command) ([]Command, error) {
	if len(data)%commandSize != 0 || len(data)/commandSize > maxCommands {
		return nil, fmt.Errorf("%w: %d bytes of commands", ErrBadBatch, len(data))
	}
	buf = buf[:0]
	for ; len(data) > 0; data = data[commandSize:] {
		c := Command{Kind: Kind(data[0]), Token: Token(data[1:17]), Arg: binary.BigEndian.Uint32(data[17:])}
		if err := c.validate(); err != nil {
			return nil, err
		}
		buf = append(buf, c)
	}
	return buf, nil
}

// validate keeps out of the log what no node writes, so that Apply has nothing to refuse.
func (c Command) validate() error {
	if c.Kind == 0 || c.Kind > lastKind {
		return fmt.Errorf("%w: kind %d", ErrBadBatch, c.Kind)
	}
	timed := c.Kind == KindTouch || c.Kind == KindAsk || c.Kind == KindStay || c.Kind == KindResume
	if c.Arg > maxArg || c.Arg != 0 && !timed {
		return fmt.Errorf("%w: kind %d with argument %d", ErrBadBatch, c.Kind, c.Arg)
	}
	whole := c.Kind == KindTick || c.Kind == KindResume
	if whole != (c.Token == Token{}) {
		return fmt.Errorf("%w: kind %d and token do not fit", ErrBadBatch, c.Kind)
	}
	return nil
}
