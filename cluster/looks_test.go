package cluster

import (
	"testing"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// A stop of the leader and a tick that took long are taken out of everybody's account, once; a resumption that took long is not.
func TestLooks(t *testing.T) {
	wall := time.UnixMilli(1_000_000)
	clock := newClusterClock(func() time.Time { return wall })
	clock.observe(wall.UnixMilli())
	l := newLooks(clock)
	pass := func(d time.Duration) { // a leader that is well looks all the time
		for ; d > 0; d -= 50 * time.Millisecond {
			wall = wall.Add(50 * time.Millisecond)
			l.look()
		}
	}
	expect := func(what string, due int64, kind queue.Kind, arg uint32) {
		t.Helper()
		now, c, ok := l.next(due)
		if ok != (kind != 0) || c.Kind != kind || c.Arg != arg || now != wall.UnixMilli() {
			t.Errorf("%s: %v of %d at %d, %v; want %v of %d", what, c.Kind, c.Arg, now, ok, kind, arg)
		}
	}
	due := wall.UnixMilli() + 10
	expect("before the deadline", due, 0, 0)
	pass(time.Second)
	expect("after it", due, queue.KindTick, 0)
	expect("nothing is due", 0, 0, 0)

	// A disk that takes most of a second for each commit: ticks go on, one for each resumption.
	for range 3 {
		pass(800 * time.Millisecond)
		l.took(queue.Command{Kind: queue.KindTick}, 800*time.Millisecond, nil)
		expect("the tick took long", due, queue.KindResume, 800)
		pass(800 * time.Millisecond)
		l.took(queue.Command{Kind: queue.KindResume}, 800*time.Millisecond, nil)
		expect("the resumption took long", due, queue.KindTick, 0)
	}
	l.took(queue.Command{Kind: queue.KindTick}, 100*time.Millisecond, nil)
	expect("a tick as usual", due, queue.KindTick, 0)

	wall = wall.Add(9 * time.Second)
	l.look()
	l.took(queue.Command{Kind: queue.KindTick}, 9100*time.Millisecond, nil)
	expect("a stop while a tick was under way", due, queue.KindResume, 9100)
	wall = wall.Add(2 * time.Second)
	l.look()
	pass(time.Second)
	wall = wall.Add(3 * time.Second)
	l.look()
	expect("two stops", due, queue.KindResume, 5000)
	l.took(queue.Command{Kind: queue.KindResume, Arg: 5000}, 2*time.Second, errNotLeader)
	expect("a resumption that was refused", due, queue.KindResume, 5000)
	expect("once", due, queue.KindTick, 0)
}
