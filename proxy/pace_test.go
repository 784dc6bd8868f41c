package proxy

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

func testPace(random func() float64) pace { return pace{2 * time.Second, 30 * time.Second, random} }

func TestPace(t *testing.T) {
	steady := testPace(func() float64 { return 0.5 }) // no jitter
	limits := queue.DefaultLimits()
	for _, c := range []struct {
		position int
		want     time.Duration
	}{{1, 2002 * time.Millisecond}, {500, 3 * time.Second}, {5000, 12 * time.Second}, {14_000, 30 * time.Second}, {1 << 30, 30 * time.Second}} {
		if got := steady.after(c.position, 1, limits); got != c.want {
			t.Errorf("position %d: %v, want %v", c.position, got, c.want)
		}
	}
	for _, c := range []struct {
		random float64
		want   time.Duration
	}{{0, 21 * time.Second}, {1, 39 * time.Second}} {
		limits.QueueAbsent, limits.ClaimTTL = time.Hour, time.Hour
		if got := testPace(func() float64 { return c.random }).after(1<<20, 1, limits); got.Round(time.Millisecond) != c.want {
			t.Errorf("jitter at %v: %v, want %v", c.random, got, c.want)
		}
	}
	limits.QueueAbsent = 12 * time.Second
	if got := steady.after(1<<20, 1, limits); got != 4*time.Second {
		t.Errorf("absent after 12 s: asked to come back in %v, want a third of it", got)
	}
	limits.QueueAbsent = 100 * time.Millisecond
	if got := steady.after(1, 1, limits); got != time.Second/2 {
		t.Errorf("absent after 0.1 s: asked to come back in %v, want half a second", got)
	}
}

// TestLoadOfALine plays a million visitors in line for two minutes of their time, 200 of them released a second, and counts what they
// ask: a known load however long the line is, and a slot that stands empty for seconds at most.
func TestLoadOfALine(t *testing.T) {
	const (
		line    = 1_000_000
		perSec  = 200
		seconds = 120
	)
	random := rand.New(rand.NewPCG(1, 2))
	p, limits := testPace(random.Float64), queue.DefaultLimits()
	slots := make([][]int32, seconds*10+1) // visitors by the tenth of a second in which they ask next
	plan := func(now float64, share float64, place int, who int32) {
		at := int((now + share*p.after(place, 1, limits).Seconds()) * 10)
		if at < len(slots) {
			slots[at] = append(slots[at], who)
		}
	}
	for who := range int32(line) {
		plan(0, random.Float64(), int(who)+1, who) // they have been here for a while
	}
	polls, worstSecond, second := 0, 0, 0
	var delays []float64
	for tenth, asking := range slots {
		now := float64(tenth) / 10
		released := int(now * perSec)
		for _, who := range asking {
			polls++
			second++
			if int(who) < released {
				delays = append(delays, now-float64(who)/perSec)
				continue
			}
			plan(now, 1, int(who)-released+1, who)
		}
		slots[tenth] = nil
		if tenth%10 == 9 {
			worstSecond, second = max(worstSecond, second), 0
		}
	}
	rate := float64(polls) / seconds
	total, worst := 0.0, 0.0
	for _, d := range delays {
		total, worst = total+d, max(worst, d)
	}
	mean := total / float64(len(delays))
	t.Logf("%d in line, %d released a second: %.0f polls/s, %d in the worst second; a released visitor comes after %.2f s, %.2f s at worst",
		line, perSec, rate, worstSecond, mean, worst)
	if most := 1.1 * line / 30; rate > most || float64(worstSecond) > 1.3*most {
		t.Errorf("%.0f polls a second, %d in the worst, want about %d", rate, worstSecond, line/30)
	}
	if len(delays) < seconds*perSec*9/10 || mean > 3 || worst > 10 {
		t.Errorf("%d came in, after %.2f s, %.2f s at worst", len(delays), mean, worst)
	}
}
