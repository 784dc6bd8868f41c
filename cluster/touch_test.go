package cluster

import "testing"

// What was seen of a visitor between two flushes is told once: the newest time, and the most that it shows.
func TestSignsOfOneVisitorBecomeOne(t *testing.T) {
	now := int64(1000)
	touches := newTouches(func() int64 { return now })
	a := visitor(1)
	at := func(ms int64, strength sign) touch { return touch{a, sign(ms)<<signBits | strength} }
	for _, c := range []struct {
		name string
		do   func()
		want touch
	}{
		{"a stay alone", func() { touches.note(a, signStay) }, at(1000, signStay)},
		{"a stay after a touch", func() { touches.note(a, signTouch); now += 10; touches.note(a, signStay) }, at(1010, signTouch)},
		{"a touch after a stay", func() { touches.note(a, signStay); now += 10; touches.note(a, signTouch) }, at(1020, signTouch)},
		{"a poll after a poll", func() { touches.note(a, signAsk); now += 10; touches.note(a, signAsk) }, at(1030, signAsk)},
		{"a page after a poll", func() { touches.note(a, signAsk); now += 10; touches.note(a, signTouch) }, at(1040, signTouch)},
		{"a stay that comes back to a touch", func() { touches.note(a, signTouch); touches.giveBack([]touch{at(900, signStay)}) }, at(1040, signTouch)},
		{"a touch that comes back to a stay", func() { touches.note(a, signStay); touches.giveBack([]touch{at(900, signTouch)}) }, at(1040, signTouch)},
		{"a stay that comes back", func() { touches.giveBack([]touch{at(900, signStay)}) }, at(900, signStay)},
	} {
		c.do()
		if got := touches.take(); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
