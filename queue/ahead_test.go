package queue

import (
	"bytes"
	"testing"
)

func TestFreezeAheadLeavesOutTickets(t *testing.T) {
	limits := DefaultLimits()
	limits.MaxActive = 1
	table := NewTable(limits)
	arrive := func(table *Table, index uint64, n byte) Decision {
		token := MakeToken([16]byte{n})
		return table.Apply(Batch{Index: index, Now: 1000, Commands: []Command{{Kind: KindArrive, Token: token}}}, nil)[0]
	}
	for n := range byte(3) {
		arrive(table, uint64(n)+1, n+1)
	}
	before := table.Stats()
	var file bytes.Buffer
	if _, err := table.FreezeAhead(5000, 100_000).WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	if after := table.Stats(); after != before || arrive(table, 4, 4).Ticket != 3 {
		t.Error("the table that was frozen is another one now")
	}
	ahead, err := ReadTable(&file)
	if err != nil {
		t.Fatal(err)
	}
	if err := ahead.CheckInvariants(); err != nil {
		t.Error(err)
	}
	if s := ahead.Stats(); s.Index != 5000 || s.Counts != before.Counts {
		t.Errorf("ahead it is %+v", s)
	}
	if d := arrive(ahead, 5001, 5); d.Ticket != 100_003 || d.Position != 3 {
		t.Errorf("the next one ahead has %+v, want ticket 100003 at place 3", d)
	}
}
