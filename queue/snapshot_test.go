package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

type fataler interface {
	Helper()
	Fatal(...any)
}

func snapshot(t fataler, table *Table) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := table.Freeze().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func restore(t fataler, data []byte) *Table {
	t.Helper()
	r := bytes.NewReader(data)
	table, err := ReadTable(r)
	if err != nil {
		t.Fatal(err)
	}
	if r.Len() != 0 {
		t.Fatal("bytes left over", r.Len())
	}
	return table
}

// busy is a table with visitors in every state and holes in its line.
func busy(t testing.TB) *Table {
	t.Helper()
	table := NewTable(Limits{MaxActive: 2, ActiveTTL: 1e9, ClaimTTL: 1e9, QueueAbsent: 1e9, QueueTTL: 60e9})
	var c []Command
	for n := range 40 {
		c = append(c, Command{Kind: KindArrive, Token: person(n)})
	}
	table.Apply(Batch{Index: 1, Now: 5_000, Commands: c}, nil)
	c = []Command{{Kind: KindLeave, Token: person(0)}, {Kind: KindLeave, Token: person(7)}}
	for n := 10; n < 20; n++ {
		c = append(c, Command{Kind: KindTouch, Token: person(n), Arg: 20})
	}
	table.Apply(Batch{Index: 2, Now: 6_000, Commands: c}, nil)
	table.Apply(Batch{Index: 3, Now: 6_800, Commands: []Command{{Kind: KindTick}}}, nil)
	if s := table.Stats().Counts; s.Active == 0 || s.Released == 0 || s.Absent == 0 || s.Queued == s.Absent {
		t.Fatalf("not busy: %+v", s)
	}
	return table
}

func TestSnapshotIsCanonical(t *testing.T) {
	table := busy(t)
	data := snapshot(t, table)
	again := restore(t, data)
	if !bytes.Equal(snapshot(t, again), data) {
		t.Error("a restored table writes other bytes")
	}
	if again.Stats() != table.Stats() {
		t.Errorf("stats %+v, want %+v", again.Stats(), table.Stats())
	}
	if err := again.CheckInvariants(); err != nil {
		t.Error(err)
	}
}

func TestFrozenTableStays(t *testing.T) {
	table := busy(t)
	frozen, want := table.Freeze(), slices.Collect(table.Freeze().Rows())
	for n := range 40 {
		table.Apply(Batch{Index: 4, Now: 7_000, Commands: []Command{{Kind: KindLeave, Token: person(n)}}}, nil)
	}
	if got := slices.Collect(frozen.Rows()); !slices.Equal(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	data := snapshot(t, busy(t))
	for n := range data {
		if _, err := ReadTable(bytes.NewReader(data[:n])); !errors.Is(err, ErrBadSnapshot) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
		if n >= 1 && n < 17 {
			continue // index and now: the entry that comes next says them again
		}
		for bit := range 8 {
			bad := bytes.Clone(data)
			bad[n] ^= 1 << bit
			if boundedTickets(bad) {
				if _, err := ReadTable(bytes.NewReader(bad)); err == nil {
					t.Fatalf("byte %d, bit %d flipped: no error", n, bit)
				}
			}
		}
	}
}

// boundedTickets keeps damaged tickets from asking for a line of 2^64 places. In service the file's
// checksum stands in front of ReadTable.
func boundedTickets(data []byte) bool {
	return len(data) < 41 || binary.BigEndian.Uint64(data[33:]) < 1<<20
}

func FuzzReadTable(f *testing.F) {
	f.Add(snapshot(f, busy(f)))
	f.Add(snapshot(f, NewTable(DefaultLimits())))
	f.Add(snapshot(f, hits(f, 3, 2)))
	reserving := busy(f)
	for n := range 40 {
		reserving.Apply(Batch{Index: 4, Now: 6_900, Commands: []Command{{Kind: KindReserve, Token: person(n)}}}, nil)
	}
	f.Add(snapshot(f, reserving))
	f.Fuzz(func(t *testing.T, data []byte) {
		if !boundedTickets(data) {
			return
		}
		r := bytes.NewReader(data)
		table, err := ReadTable(r)
		if err != nil {
			return
		}
		if got := snapshot(t, table); !bytes.Equal(got, data[:len(data)-r.Len()]) {
			t.Fatalf("read %x, wrote %x", data, got)
		}
		table.Apply(Batch{Now: table.Stats().Now, Commands: []Command{{Kind: KindTick}, {Kind: KindArrive, Token: person(1)}}}, nil)
		if err := table.CheckInvariants(); err != nil {
			t.Fatal(err)
		}
	})
}

// Slots that polls have taken keep their tickets through a snapshot, and no version that would not know what that means reads it.
func TestReservationsInASnapshot(t *testing.T) {
	table := busy(t)
	var released []Token
	for r := range table.Freeze().Rows() {
		if r.State == Released {
			released = append(released, r.Token)
		}
	}
	table.Apply(Batch{Index: 4, Now: 6_900, Commands: []Command{{Kind: KindReserve, Token: released[0]}}}, nil)
	view := table.Lookup(released[0])
	if view.State != Active || !view.Reserved || view.Ticket == 0 || view.TouchAfter != 0 {
		t.Fatalf("view %+v, want one inside that has a ticket", view)
	}
	data := snapshot(t, table)
	if data[0] != reserveLayout {
		t.Errorf("written in layout %d, want %d", data[0], reserveLayout)
	}
	again := restore(t, data)
	if again.Stats() != table.Stats() || again.Lookup(released[0]) != view || !bytes.Equal(snapshot(t, again), data) {
		t.Errorf("stats %+v, want %+v", again.Stats(), table.Stats())
	}
	if err := again.CheckInvariants(); err != nil {
		t.Error(err)
	}
	data[0] = laterLayout
	if _, err := ReadTable(bytes.NewReader(data)); !errors.Is(err, ErrBadSnapshot) {
		t.Errorf("in the layout before: error %v", err)
	}
	table.Apply(Batch{Index: 5, Now: 7_000, Commands: []Command{{Kind: KindTouch, Token: released[0], Arg: 5_000}}}, nil)
	if v := table.Lookup(released[0]); v.Reserved || v.Ticket != 0 || v.Seen != view.Seen || v.TouchAfter == 0 {
		t.Errorf("seen again it is %+v, want no ticket", v)
	}
	if data := snapshot(t, table); data[0] != firstLayout {
		t.Errorf("without reservations it is written in layout %d", data[0])
	}
}
