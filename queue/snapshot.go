package queue

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
)

// A Row is one visitor as a frozen table holds it.
type Row struct {
	Token  Token
	State  State
	Ticket uint64 // zero when Active, unless Unconfirmed or reserved, see View
	Seen   int64  // cluster time in Unix milliseconds
	// Unconfirmed is the mark of a first hit whose cookie has not come back: Active, or Absent when its slot was taken back.
	Unconfirmed bool
}

// Frozen is a table as it was after one entry. It is a copy: the table goes on beside it.
type Frozen struct {
	Index uint64 // of that entry
	Now   int64  // cluster time of that entry, Unix milliseconds

	head  header
	slabs []*[slabRows]row // copies, in no order
	order sync.Once
	rows  []Row // in canonical order, once order is done
}

// header is what a snapshot says before its rows.
type header struct {
	epoch, holdUntil int64
	nextTicket, sum  uint64
	base, override   Limits
	overridden       Field
	first            bool // some row is unconfirmed
	reserved         bool // some row is reserved
}

// NewFrozen makes a frozen table of rows that are in canonical order, for the tests of its readers.
func NewFrozen(index uint64, now int64, rows []Row) *Frozen {
	f := &Frozen{Index: index, Now: now, rows: rows}
	f.order.Do(func() {})
	return f
}

// Freeze copies the table. Apply waits for it, so it only copies memory; order and bytes are made
// by Rows and WriteTo, which may take their time.
func (t *Table) Freeze() *Frozen {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.freeze()
}

func (t *Table) freeze() *Frozen {
	f := &Frozen{Index: t.Stats().Index, Now: t.now, head: t.header()}
	for i := range t.shards {
		for _, slab := range t.shards[i].slabs {
			c := *slab
			f.slabs = append(f.slabs, &c)
		}
	}
	return f
}

func (t *Table) header() header {
	return header{
		epoch: t.epoch, holdUntil: t.holdUntil, nextTicket: t.nextTicket, sum: t.sum(),
		base: t.base, override: t.override, overridden: t.overridden, first: t.firsts[Active]+t.firsts[Absent] > 0,
		reserved: t.reserved > 0,
	}
}

// Rows yields every row in canonical order: those with a ticket by ticket, then the other active
// visitors by token. Any number of callers.
func (f *Frozen) Rows() iter.Seq[Row] {
	return slices.Values(f.ordered())
}

// Len is the number of rows.
func (f *Frozen) Len() int { return len(f.ordered()) }

func (f *Frozen) ordered() []Row {
	f.order.Do(func() {
		for _, slab := range f.slabs {
			for i := range slab {
				if r := &slab[i]; r.state != Unknown {
					f.rows = append(f.rows, Row{r.token, r.state, r.ticket, f.head.epoch + int64(r.stamp)*stampStep, r.unconfirmed})
				}
			}
		}
		f.slabs = nil
		slices.SortFunc(f.rows, compareRows)
	})
	return f.rows
}

func compareRows(a, b Row) int {
	// A ticket of zero, minus one, is the highest number: who has none comes last.
	return cmp.Or(cmp.Compare(a.Ticket-1, b.Ticket-1), bytes.Compare(a.Token[:], b.Token[:]))
}

// The layouts of a table in a snapshot. A changed layout is a new number. The second one has values for the later fields of the
// limits and may mark a row as unconfirmed; in the third one a row that is not may be Active with a ticket. A table is written in the
// lowest layout that can say what it holds: there is nothing of the second before feature level 3, and of the third before 4.
const (
	firstLayout   byte = 1
	laterLayout   byte = 2
	reserveLayout byte = 3
)

const (
	headSize = 1 + 6*8 + 1 // up to the limits
	rowSize  = 16 + 1 + 8 + 4

	markUnconfirmed = 0x80 // in the byte of a row's state
)

// layout is the one in which a table with this header is written.
func (h *header) layout() (layout byte, fields Field) {
	if h.reserved {
		return reserveLayout, AllFields
	}
	if h.first || h.overridden&LaterFields != 0 {
		return laterLayout, AllFields
	}
	for _, v := range Fields {
		if v.Field&LaterFields != 0 && h.base.Get(v.Field) != 0 {
			return laterLayout, AllFields
		}
	}
	return firstLayout, firstFields
}

// ErrBadSnapshot is the answer of ReadTable to bytes that WriteTo could not have written.
var ErrBadSnapshot = errors.New("queue: bad snapshot")

// WriteTo writes the frozen table in its canonical form: equal tables give equal bytes.
func (f *Frozen) WriteTo(w io.Writer) (int64, error) {
	rows := f.ordered()
	buf := make([]byte, 0, 64<<10)
	layout, fields := f.head.layout()
	buf = append(buf, layout)
	for _, v := range []uint64{f.Index, uint64(f.Now), uint64(f.head.epoch), uint64(f.head.holdUntil), f.head.nextTicket, f.head.sum} {
		buf = binary.BigEndian.AppendUint64(buf, v)
	}
	buf = append(buf, byte(f.head.overridden))
	buf = appendValues(buf, f.head.base, fields, fields)
	buf = appendValues(buf, f.head.override, fields, f.head.overridden)
	buf = binary.BigEndian.AppendUint64(buf, uint64(len(rows)))
	written := int64(0)
	flush := func() error {
		n, err := w.Write(buf)
		written, buf = written+int64(n), buf[:0]
		return err
	}
	for _, r := range rows {
		buf = append(buf, r.Token[:]...)
		state := byte(r.State)
		if r.Unconfirmed {
			state |= markUnconfirmed
		}
		buf = append(buf, state)
		buf = binary.BigEndian.AppendUint64(buf, r.Ticket)
		buf = binary.BigEndian.AppendUint32(buf, uint32((r.Seen-f.head.epoch)/stampStep))
		if len(buf) > 60<<10 {
			if err := flush(); err != nil {
				return written, err
			}
		}
	}
	return written, flush()
}

// ReadTable reads what WriteTo wrote, and no byte more, in small reads: the caller buffers. The rows must give the sum that the
// writer's table had, so a table that was read is the table that was written (I7).
func ReadTable(r io.Reader) (*Table, error) {
	head := make([]byte, headSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrBadSnapshot, err)
	}
	fields := firstFields
	switch head[0] {
	case firstLayout:
	case laterLayout, reserveLayout:
		fields = AllFields
	default:
		return nil, fmt.Errorf("%w: layout %d, this version of owr reads up to %d", ErrBadSnapshot, head[0], reserveLayout)
	}
	number := func(i int) uint64 { return binary.BigEndian.Uint64(head[1+8*i:]) }
	index, now, epoch, hold, sum := number(0), number(1), number(2), number(3), number(5)
	overridden := Field(head[49])
	if now > maxNow || epoch > now+maxArg || hold > maxNow+maxArg || overridden&^fields != 0 {
		return nil, fmt.Errorf("%w: header % x", ErrBadSnapshot, head)
	}
	size := valuesSize(fields)
	rest := make([]byte, 2*size+8) // the limits, and the number of rows
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrBadSnapshot, err)
	}
	base, err := decodeValues(rest, fields, fields)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSnapshot, err)
	}
	override, err := decodeValues(rest[size:], fields, overridden)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSnapshot, err)
	}
	t := NewTable(base)
	t.now, t.epoch, t.holdUntil, t.nextTicket = int64(now), int64(epoch), int64(hold), number(4)
	t.epochs.Store(t.epoch)
	t.override, t.overridden = override, overridden
	t.setLimits()
	if err := t.readRows(r, binary.BigEndian.Uint64(rest[2*size:]), head[0]); err != nil {
		return nil, err
	}
	h := t.header()
	if layout, _ := h.layout(); layout != head[0] {
		return nil, fmt.Errorf("%w: a table of layout %d in layout %d", ErrBadSnapshot, layout, head[0])
	}
	if t.sum() != sum {
		return nil, fmt.Errorf("%w: the rows give sum %016x, written was %016x", ErrBadSnapshot, t.sum(), sum)
	}
	t.publish(index)
	return t, nil
}

// readRows reads so many rows of that layout.
func (t *Table) readRows(r io.Reader, count uint64, layout byte) error {
	buf := make([]byte, rowSize)
	last := Row{}
	for i := range count {
		if _, err := io.ReadFull(r, buf); err != nil {
			return fmt.Errorf("%w: row %d of %d: %w", ErrBadSnapshot, i, count, err)
		}
		row := Row{Token: Token(buf[:16]), State: State(buf[16]), Ticket: binary.BigEndian.Uint64(buf[17:])}
		if layout >= laterLayout {
			row.State, row.Unconfirmed = row.State&^markUnconfirmed, row.State&markUnconfirmed != 0
		}
		if row.State == Unknown || row.State > Active || row.Ticket == 0 && (row.State != Active || row.Unconfirmed) ||
			row.Ticket != 0 && row.State == Active && !row.Unconfirmed && layout < reserveLayout ||
			row.Unconfirmed && row.State != Active && row.State != Absent ||
			row.Ticket >= t.nextTicket || i > 0 && compareRows(last, row) >= 0 || i > 0 && row.Ticket != 0 && row.Ticket == last.Ticket {
			return fmt.Errorf("%w: row %d of %d: %s with ticket %d after ticket %d", ErrBadSnapshot, i, count, row.State, row.Ticket, last.Ticket)
		}
		if _, twice := t.find(row.Token); twice {
			return fmt.Errorf("%w: row %d of %d: token twice", ErrBadSnapshot, i, count)
		}
		t.add(row.Token, row.State, row.Ticket, binary.BigEndian.Uint32(buf[25:]), row.Unconfirmed)
		last = row
	}
	return nil
}
