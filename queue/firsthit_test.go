package queue

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"
)

// hits is a table full of first hits of one moment, for whose slots as many wait as it says. They entered in the reverse order of
// their tokens, so an order by token is none by ticket.
func hits(t testing.TB, slots, wait int) *Table {
	t.Helper()
	table := NewTable(Limits{
		MaxActive: slots, ActiveTTL: time.Minute, ClaimTTL: time.Minute, QueueAbsent: time.Minute, QueueTTL: time.Hour, FirstHitTTL: time.Second,
	})
	var c []Command
	for n := range slots {
		c = append(c, Command{Kind: KindEnter, Token: person(100 - n)})
	}
	for n := range wait {
		c = append(c, Command{Kind: KindArrive, Token: person(150 + n)})
	}
	table.Apply(Batch{Index: 1, Now: 5_000, Commands: c}, nil)
	if s := table.Stats().Counts; s.Unconfirmed != slots || s.Queued != wait {
		t.Fatalf("not as it should be: %+v", s)
	}
	return table
}

func TestFirstHitsInASnapshot(t *testing.T) {
	table := hits(t, 4, 2)
	table.Apply(Batch{Index: 2, Now: 8_000, Commands: []Command{{Kind: KindTick}, {Kind: KindTouch, Token: person(97)}}}, nil)
	if s := table.Stats().Counts; s.Unconfirmed != 1 || s.TakenBack != 2 || s.Active != 2 || s.Released != 2 {
		t.Fatalf("counts %+v", s)
	}
	data := snapshot(t, table)
	again := restore(t, data)
	if again.Stats() != table.Stats() || !bytes.Equal(snapshot(t, again), data) {
		t.Errorf("stats %+v, want %+v", again.Stats(), table.Stats())
	}
	if err := again.CheckInvariants(); err != nil {
		t.Error(err)
	}
	for n := range data {
		for bit := range 8 {
			bad := bytes.Clone(data)
			bad[n] ^= 1 << bit
			if n >= 1 && n < 17 || !boundedTickets(bad) {
				continue
			}
			if _, err := ReadTable(bytes.NewReader(bad)); !errors.Is(err, ErrBadSnapshot) {
				t.Fatalf("byte %d, bit %d flipped: %v", n, bit, err)
			}
		}
	}
}

// Of first hits of one moment the one with the lowest ticket goes first, in a table that was read from a snapshot too (I7).
func TestWhoseSlotIsTakenBackDoesNotDependOnHistory(t *testing.T) {
	table := hits(t, 30, 10)
	again := restore(t, snapshot(t, table))
	tick := Batch{Index: 2, Now: 5_000 + 1_000 + 1_200, Commands: []Command{{Kind: KindTick}}}
	table.Apply(tick, nil)
	again.Apply(tick, nil)
	if table.Sum() != again.Sum() {
		t.Error("the restored table came to another one")
	}
	for n := range 30 {
		want := Active
		if n < 10 {
			want = Absent
		}
		if got := table.Lookup(person(100 - n)).State; got != want {
			t.Errorf("the one that entered as number %d is %s, want %s", n, got, want)
		}
	}
}

// A version that does not know the later fields reads the log and the snapshots of a cluster that has never set one.
func TestWithoutLaterFieldsTheFormsAreTheFirstOnes(t *testing.T) {
	c := LimitsChange{Now: 1000, Base: true, Set: AllFields &^ LaterFields, Values: DefaultLimits()}
	if data := AppendLimits(nil, c); data[0] != EntryLimits || len(data) != 62 {
		t.Errorf("limits begin with %d and have %d bytes, want %d and 62", data[0], len(data), EntryLimits)
	}
	c.Set |= FieldFirstHitTTL
	if data := AppendLimits(nil, c); data[0] != EntryLaterLimits || len(data) != 70 {
		t.Errorf("limits with the later field begin with %d and have %d bytes, want %d and 70", data[0], len(data), EntryLaterLimits)
	}
	if data := snapshot(t, busy(t)); data[0] != firstLayout {
		t.Errorf("a table without anything of it is written in layout %d", data[0])
	}
	if data := snapshot(t, hits(t, 2, 1)); data[0] != laterLayout {
		t.Errorf("a table with first hits is written in layout %d", data[0])
	}
	// A KindEnter of an older log gives what it gave when it was written.
	table := NewTable(DefaultLimits())
	table.Apply(Batch{Index: 1, Now: 5_000, Commands: []Command{{Kind: KindEnter, Token: person(1)}}}, nil)
	if rows := slices.Collect(table.Freeze().Rows()); len(rows) != 1 || rows[0].Unconfirmed || rows[0].Ticket != 0 {
		t.Errorf("rows %+v", rows)
	}
}

// A flood of clients that keep no cookies takes each slot once, and those who wait have them within first_hit_ttl, the grace and a tick.
func TestSlotsOfGhostsGoToThoseWhoWait(t *testing.T) {
	const slots, ghosts, wait = 100, 1000, 80
	table := NewTable(Limits{
		MaxActive: slots, ActiveTTL: time.Minute, ClaimTTL: time.Minute, QueueAbsent: time.Minute, QueueTTL: time.Hour, FirstHitTTL: time.Second,
	})
	who := func(n int) Token { return MakeToken([16]byte{byte(n), byte(n >> 8), 2: 1}) }
	index := uint64(0)
	apply := func(now int64, c ...Command) []Decision {
		index++
		return table.Apply(Batch{Index: index, Now: now, Commands: c}, nil)
	}
	in := 0
	for n := range ghosts {
		if d := apply(5_000+int64(n), Command{Kind: KindEnter, Token: who(n)}); d[0].State == Active {
			in++
		}
	}
	for n := range wait {
		apply(6_000, Command{Kind: KindArrive, Token: who(ghosts + n)})
	}
	if due := table.Stats().NextDeadline; in != slots || due != 7_200 {
		t.Errorf("%d let in, and the next deadline is at %d; want %d and 7200", in, due, slots)
	}
	for now := int64(6_050); now <= 7_300; now += 50 {
		apply(now, Command{Kind: KindTick})
	}
	if c := table.Stats().Counts; c.Released != wait || c.Active != slots-wait || c.TakenBack != wait || c.Queued != wait {
		t.Errorf("counts %+v: want %d released, and so many slots taken back", c, wait)
	}
	// One that comes back is at the head, whoever has joined.
	apply(7_400, Command{Kind: KindArrive, Token: who(5000)})
	if d := apply(7_500, Command{Kind: KindTouch, Token: who(3)})[0]; d.State != Queued || d.Position != 4 {
		t.Errorf("%+v, want the place behind three absent ones", d)
	}
	apply(7_600, Command{Kind: KindLeave, Token: who(ghosts)})
	if s := table.Lookup(who(3)).State; s != Released {
		t.Errorf("a slot was free, and it is %s", s)
	}
}
