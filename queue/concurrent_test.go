package queue

import (
	"sync"
	"testing"
)

// Readers never see a visitor it could not be: they look while one writer applies, and a visitor in line
// always has a position that fits a line of that length.
func TestLookupWhileApplying(t *testing.T) {
	table := NewTable(Limits{MaxActive: 50, ActiveTTL: 60e9, ClaimTTL: 60e9, QueueAbsent: 60e9, QueueTTL: 60e9})
	const visitors = 3000
	who := func(n int) Token { return MakeToken([16]byte{byte(n), byte(n >> 8), 2: 1}) }
	done := make(chan struct{})
	var wg sync.WaitGroup
	for r := range 2 {
		wg.Go(func() {
			for n := r; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				v := table.Lookup(who(n % visitors))
				if v.State.Waits() != (v.Position > 0) || v.Position > visitors {
					t.Errorf("view %+v", v)
					return
				}
				if held := table.Stats().Counts.Held(); held > 50 {
					t.Errorf("%d slots held, there are 50 (I1)", held)
					return
				}
			}
		})
	}
	var batch []Command
	for round := range 40 {
		batch = batch[:0]
		for n := range visitors {
			kind := KindArrive
			if (n+round)%7 == 0 {
				kind = KindLeave
			}
			batch = append(batch, Command{Kind: kind, Token: who(n)})
		}
		table.Apply(Batch{Index: uint64(round), Now: int64(1000 + round), Commands: batch}, nil)
	}
	close(done)
	wg.Wait()
	if err := table.CheckInvariants(); err != nil {
		t.Error(err)
	}
}

// A line far longer than a chunk, with most of it gone: positions stay exact, and the empty front goes.
func TestLongLine(t *testing.T) {
	table := NewTable(Limits{MaxActive: 0, ActiveTTL: 60e9, ClaimTTL: 60e9, QueueAbsent: 60e9, QueueTTL: 60e9})
	const visitors = 9 * chunkTickets
	who := func(n int) Token { return MakeToken([16]byte{byte(n), byte(n >> 8), byte(n >> 16)}) }
	var batch []Command
	for n := range visitors {
		batch = append(batch, Command{Kind: KindArrive, Token: who(n)})
	}
	table.Apply(Batch{Now: 1000, Commands: batch}, nil)
	batch = batch[:0]
	for n := range visitors {
		if n%5 != 0 || n < 6*chunkTickets {
			batch = append(batch, Command{Kind: KindLeave, Token: who(n)})
		}
	}
	table.Apply(Batch{Now: 1000, Commands: batch}, nil)
	if err := table.CheckInvariants(); err != nil {
		t.Fatal(err)
	}
	if n := len(table.line.chunks); n > 5 {
		t.Errorf("%d chunks are kept for a line that spans 3", n)
	}
	last := visitors - 1 - (visitors-1)%5
	if v, want := table.Lookup(who(last)), table.Stats().Counts.Queued; v.Position != want {
		t.Errorf("the last is at %d of %d", v.Position, want)
	}
}

// A place does not waver while those ahead are seen, go away and come back: none of that changes who is ahead.
func TestPlacesStandStill(t *testing.T) {
	limits := DefaultLimits()
	limits.MaxActive, limits.QueueAbsent = 0, 1e9
	table := NewTable(limits)
	const waiting = 200
	tokens := make([]Token, waiting)
	now := int64(1_000_000)
	for i := range tokens {
		tokens[i] = MakeToken([16]byte{byte(i), 1, byte(i)})
		table.Apply(Batch{Now: now, Commands: []Command{{Kind: KindArrive, Token: tokens[i]}}}, nil)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if got := table.Lookup(tokens[waiting-1]).Position; got != waiting {
				t.Errorf("the last one waits at %d, %d are in line", got, waiting)
				return
			}
		}
	})
	var batch []Command
	for round := range 2000 {
		now += 100
		batch = batch[:0]
		for _, token := range tokens[:waiting/2] {
			batch = append(batch, Command{Kind: KindTouch, Token: token})
		}
		if round%20 == 0 {
			now += 2000
			batch = append([]Command{{Kind: KindTick}}, batch...) // all are absent, and half of them come back
		}
		table.Apply(Batch{Now: now, Commands: batch}, nil)
	}
	close(stop)
	wg.Wait()
}
