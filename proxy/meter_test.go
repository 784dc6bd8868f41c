package proxy

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
	"unsafe"
)

// steered returns a meter whose clock the test moves.
func steered(rate float64, burst int) (*meter, *time.Duration) {
	m, now := newMeter(rate, burst), new(time.Duration)
	m.now = func() int64 { return int64(*now) }
	return m, now
}

func numbered(n int) (key [16]byte) {
	binary.BigEndian.PutUint64(key[:], uint64(n))
	return key
}

func TestMeterRefills(t *testing.T) {
	m, now := steered(1, 2)
	a, b := numbered(1), numbered(2)
	if got := []bool{m.allow(a), m.allow(a), m.allow(a), m.allow(b)}; !got[0] || !got[1] || got[2] || !got[3] {
		t.Errorf("a burst of two, and another key: got %v", got)
	}
	*now += time.Second
	if got := []bool{m.allow(a), m.allow(a)}; !got[0] || got[1] {
		t.Errorf("after a second: got %v", got)
	}
	*now += time.Hour
	if got := []bool{m.allow(a), m.allow(a), m.allow(a)}; !got[0] || !got[1] || got[2] {
		t.Errorf("after an hour: got %v", got)
	}
	if newMeter(0, 0) != nil {
		t.Error("a meter without a rate is not off")
	}
}

// A million keys take the memory that one takes, and do not make the meter forget who has used up what it had.
func TestMeterIsBounded(t *testing.T) {
	if size := unsafe.Sizeof(meter{}); size > 1<<20 {
		t.Errorf("a meter takes %d bytes", size)
	}
	m, now := steered(1, 60)
	greedy := numbered(-1)
	for m.allow(greedy) {
	}
	refused := 0
	for i := range 1_000_000 {
		*now += time.Microsecond
		if !m.allow(numbered(i)) {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d of a million keys that came once were refused", refused)
	}
	first := m.allow(greedy) // which it has gained meanwhile
	if second := m.allow(greedy); first && second {
		t.Error("a flood of other keys has emptied the meter")
	}
}

func TestMeterAllocatesNothing(t *testing.T) {
	m := newMeter(1000, 10)
	n := 0
	if got := testing.AllocsPerRun(1000, func() { n++; m.allow(numbered(n)) }); got != 0 {
		t.Errorf("got %v allocations", got)
	}
}

// New places are counted by IPv4 address and by IPv6 /64.
func TestNewcomersByPrefix(t *testing.T) {
	l := newEdgeLimits(&Config{NewPerIPPerMinute: 1})
	for _, c := range []struct {
		address string
		want    bool
	}{
		{"192.0.2.1", true},
		{"192.0.2.1", false},
		{"192.0.2.2", true},
		{"2001:db8::1", true},
		{"2001:db8::ffff:1", false},
		{"2001:db8:0:1::1", true},
	} {
		if got := l.newcomer(netip.MustParseAddr(c.address)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.address, got, c.want)
		}
	}
}

func BenchmarkMeter(b *testing.B) {
	m := newMeter(10, 40)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			m.allow(numbered(n % 1_000_000))
		}
	})
}
