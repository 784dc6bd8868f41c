package queue

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// sizes of the tables that benchmarks run on; 10M rows take a gigabyte and minutes to fill, so they come with OWR_BENCH_LARGE=1.
var sizes = func() []int {
	sizes := []int{1_000, 100_000, 1_000_000}
	if os.Getenv("OWR_BENCH_LARGE") != "" {
		sizes = append(sizes, 10_000_000)
	}
	return sizes
}()

func benchToken(n int) Token {
	var t [16]byte
	binary.LittleEndian.PutUint64(t[:], mix(uint64(n)+1))
	binary.LittleEndian.PutUint64(t[8:], mix(uint64(n)+1<<40))
	return MakeToken(t)
}

// filled is a table with so many visitors, all active or all waiting.
func filled(b *testing.B, rows int, state State) *Table {
	b.Helper()
	limits := DefaultLimits()
	limits.MaxActive = 0
	if state == Active {
		limits.MaxActive = MaxCount
	}
	t := NewTable(limits)
	var batch []Command
	for n := 0; n < rows; {
		batch = batch[:0]
		for ; n < rows && len(batch) < 1000; n++ {
			batch = append(batch, Command{Kind: KindArrive, Token: benchToken(n)})
		}
		t.Apply(Batch{Index: uint64(n), Now: 1_000_000 + int64(n)/1000, Commands: batch}, nil)
	}
	return t
}

func BenchmarkLookup(b *testing.B) {
	for _, state := range []State{Active, Queued} {
		for _, rows := range sizes {
			t := filled(b, rows, state)
			b.Run(fmt.Sprintf("%s/%d", state, rows), func(b *testing.B) {
				b.ReportAllocs()
				var seed atomic.Int64
				b.RunParallel(func(pb *testing.PB) {
					for n := int(seed.Add(1)) * 7919; pb.Next(); n++ {
						if v := t.Lookup(benchToken(n % rows)); v.State != state {
							b.Errorf("view %+v", v)
							return
						}
					}
				})
			})
		}
	}
}

// BenchmarkLookupWhileApplying looks up on all cores while one writer applies 50,000 touches and arrivals a second.
func BenchmarkLookupWhileApplying(b *testing.B) {
	const rows = 1_000_000
	t := filled(b, rows, Active)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			batch := make([]Command, 500)
			for i := range batch {
				batch[i] = Command{Kind: KindTouch, Token: benchToken((n*500 + i) % rows)}
			}
			t.Apply(Batch{Now: 2_000_000 + int64(n)*10, Commands: batch}, nil)
		}
	}()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			t.Lookup(benchToken(n % rows))
		}
	})
	close(stop)
	<-done
}

// BenchmarkApply is one command of a batch of a thousand.
func BenchmarkApply(b *testing.B) {
	for _, rows := range sizes {
		for _, c := range []struct {
			name  string
			kind  Kind
			state State
		}{{"touch active", KindTouch, Active}, {"touch waiting", KindTouch, Queued}, {"arrive and leave", KindArrive, Active}} {
			kind, t := c.kind, filled(b, rows, c.state)
			b.Run(fmt.Sprintf("%s/%d", c.name, rows), func(b *testing.B) {
				b.ReportAllocs()
				batch, out := make([]Command, 0, 1000), make([]Decision, 0, 1000)
				now := int64(3_000_000)
				for n := 0; n < b.N; n += 1000 {
					batch = batch[:0]
					for i := range 1000 {
						switch {
						case kind == KindTouch:
							batch = append(batch, Command{Kind: KindTouch, Token: benchToken((n + i) % rows)})
						case i%2 == 0:
							batch = append(batch, Command{Kind: KindArrive, Token: benchToken(rows + i)})
						default:
							batch = append(batch, Command{Kind: KindLeave, Token: benchToken(rows + i - 1)})
						}
					}
					now++
					out = t.Apply(Batch{Now: now, Commands: batch}, out[:0])
				}
			})
		}
	}
}

// BenchmarkPosition asks for places in a line from which every second one has left.
func BenchmarkPosition(b *testing.B) {
	for _, rows := range sizes {
		t := filled(b, rows, Queued)
		var batch []Command
		for n := 0; n < rows; n += 2 {
			batch = append(batch, Command{Kind: KindLeave, Token: benchToken(n)})
		}
		t.Apply(Batch{Now: 2_000_000, Commands: batch}, nil)
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if _, ok := t.line.position(uint64(n*7919%rows)&^1 + 2); !ok {
					b.Fatal("no place")
				}
			}
		})
	}
}

func BenchmarkFreeze(b *testing.B) {
	for _, rows := range sizes {
		t := filled(b, rows, Queued)
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			for b.Loop() {
				t.Freeze()
			}
		})
	}
}

func BenchmarkSnapshotWrite(b *testing.B) {
	for _, rows := range sizes {
		t := filled(b, rows, Queued)
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			for b.Loop() {
				if _, err := t.Freeze().WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	batch := Batch{Now: 1, Commands: make([]Command, 1000)}
	for i := range batch.Commands {
		batch.Commands[i] = Command{Kind: KindArrive, Token: benchToken(i)}
	}
	data, commands := AppendBatch(nil, batch), make([]Command, 0, 1000)
	b.Run("append/1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			data = AppendBatch(data[:0], batch)
		}
	})
	b.Run("decode/1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeBatch(data, commands); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkParseToken(b *testing.B) {
	text := benchToken(1).AppendText(nil)
	b.ReportAllocs()
	for b.Loop() {
		ParseToken(text)
	}
}

// BenchmarkBytesPerVisitor reports what a waiting visitor costs in memory, everything counted.
func BenchmarkBytesPerVisitor(b *testing.B) {
	for _, rows := range sizes[1:] {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				t := filled(b, rows, Queued)
				b.ReportMetric(float64(heap()-before)/float64(rows), "bytes/visitor")
				runtime.KeepAlive(t)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkCollect is one garbage collection with a table in memory: how long all goroutines stand still in it, and what it takes
// of the processors. Rows hold no pointers, so neither grows with them.
func BenchmarkCollect(b *testing.B) {
	for _, rows := range sizes {
		t := filled(b, rows, Queued)
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for b.Loop() {
				runtime.GC()
			}
			runtime.ReadMemStats(&after)
			longest := uint64(0)
			for n := before.NumGC; n < after.NumGC; n++ {
				longest = max(longest, after.PauseNs[n%256])
			}
			b.ReportMetric(float64(longest)/1e6, "ms-longest-pause")
			b.ReportMetric(float64(after.PauseTotalNs-before.PauseTotalNs)/1e6/float64(after.NumGC-before.NumGC), "ms-pause")
		})
		runtime.KeepAlive(t)
	}
}
