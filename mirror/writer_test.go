package mirror

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/openwaitingroom/owr/queue"
)

// both runs the test on a real Redis and on the embedded one of the demo.
func both(t *testing.T, test func(t *testing.T, addr string)) {
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		test(t, startRedis(t).addr)
	})
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		test(t, miniredis.RunT(t).Addr())
	})
}

func dial(t *testing.T, addr string) *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { client.Close() })
	return client
}

func TestRedisShowsTheTable(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r := newRoom()
		client := dial(t, addr)
		a, b := r.newToken(), r.newToken()
		var line []queue.Token
		r.entry(func() {
			r.admit(a)
			r.admit(b)
			for range 5 {
				line = append(line, r.newToken())
				r.queue(line[len(line)-1])
			}
		})
		run(t, r, addr, 3, nil)
		shows(t, client, "wr:", r, 2*time.Second)
		step := func(name string, do func()) {
			t.Helper()
			r.entry(do)
			t.Logf("%s: shown after %v", name, shows(t, client, "wr:", r, time.Second))
		}
		step("one leaves, the head is released", func() { r.leave(a); r.promote(0) })
		step("it claims", func() { r.claim(line[0]) })
		step("one in the middle gives up", func() { r.abandon(1) })
		step("the head is absent", func() { r.turn(0) })
		step("the next one is released", func() { r.promote(1) })
		step("and does not come", func() { r.sendBack(line[3]) })
		step("arrivals", func() {
			for range 3_000 {
				r.queue(r.newToken())
			}
		})
		step("everybody goes", func() {
			for len(r.line) > 0 {
				r.abandon(len(r.line) / 2)
			}
			for _, token := range r.in(queue.Active) {
				r.leave(token)
			}
		})
		step("and one comes", func() { r.admit(a) })
	})
}

func TestEmptyTable(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		for _, k := range []string{"wr:active", "wr:queue", "wr:released"} {
			client.Set(t.Context(), k, "left by somebody", 0)
		}
		m := run(t, r, addr, 3, nil)
		shows(t, client, "wr:", r, repaired)
		if keys := client.Keys(t.Context(), "*").Val(); len(keys) != 1 {
			t.Errorf("keys %v, want the marker alone", keys)
		}
		if s := m.Status(); !s.Healthy {
			t.Errorf("status %+v, want healthy", s)
		}
	})
}

func TestScores(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		r.ahead = int64(time.Hour / time.Millisecond) // cluster time is nobody's wall time
		actives, _ := someVisitors(r)
		m := run(t, r, addr, 3, nil)
		shows(t, client, "wr:", r, repaired)
		ages := func() []float64 {
			var out []float64
			for _, z := range client.ZRangeWithScores(t.Context(), "wr:active", 0, -1).Val() {
				if z.Score != float64(int64(z.Score)) {
					t.Errorf("score %v is no whole second", z.Score)
				}
				out = append(out, float64(time.Now().UnixMilli())/1000-z.Score)
			}
			return out
		}
		// For three seconds everybody is seen all the time. A score may be cut to whole seconds and
		// trail by what touches gather, so it is never older than this.
		before := m.metric(t, "owr_mirror_changes_total", "")
		end := time.Now().Add(3 * time.Second)
		eventually(t, 4*time.Second, func() bool {
			r.entry(func() {
				for _, token := range actives {
					r.touch(token)
				}
			})
			for _, age := range ages() {
				if age < -0.1 || age > 2.3 {
					t.Errorf("a visitor that is there has a score of %.1f s ago", age)
				}
			}
			return time.Now().After(end) || t.Failed()
		}, func() string { return "" })
		if n := m.metric(t, "owr_mirror_changes_total", "") - before; n > 0 {
			t.Errorf("%v changes: touches are none", n)
		}
		if s := m.Status(); s.Behind > time.Second {
			t.Errorf("status %+v: touches are nothing to be behind with", s)
		}
	})
}

// The marker is kept fresh while nothing changes, and its index follows entries that change nothing.
func TestIdle(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		someVisitors(r)
		m := run(t, r, addr, 3, nil)
		shows(t, client, "wr:", r, repaired)
		r.entry(func() {})
		r.entry(func() { r.turn(0) })
		index := strconv.FormatUint(r.index, 10)
		eventually(t, 2*time.Second, func() bool { return client.HGet(t.Context(), "wr:mirror", "index").Val() == index },
			func() string { return "the index does not follow" })
		seen := map[string]bool{}
		eventually(t, 6*time.Second, func() bool {
			at := client.HGet(t.Context(), "wr:mirror", "updated_at").Val()
			ms, _ := strconv.ParseInt(at, 10, 64)
			if age := time.Since(time.UnixMilli(ms)); age > 2*time.Second {
				t.Errorf("the marker is %v old", age)
			}
			seen[at] = true
			return len(seen) >= 4 || t.Failed()
		}, func() string { return "the marker is not refreshed" })
		if s := m.Status(); !s.Healthy || s.Behind != 0 {
			t.Errorf("status %+v, want healthy and not behind", s)
		}
		if n := m.metric(t, "owr_mirror_passes_total", ""); n != 1 {
			t.Errorf("%v full passes, want the first alone", n)
		}
	})
}

func TestHundredThousandVisitors(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	r, client := newRoom(), dial(t, server.addr)
	r.entry(func() {
		for range 20_000 {
			r.admit(r.newToken())
		}
		for range 81_001 {
			r.queue(r.newToken())
		}
		for range 1_000 {
			r.promote(0)
		}
	})
	m := run(t, r, server.addr, 3, nil)
	t.Logf("drawn and read back after %v", shows(t, client, "wr:", r, 10*time.Second))

	// Some go from everywhere in the line: one by one.
	passes := m.metric(t, "owr_mirror_passes_total", "rewrite")
	r.entry(func() {
		for i := range 20 {
			r.abandon(i * len(r.line) / 20)
		}
	})
	shows(t, client, "wr:", r, 10*time.Second) // reading 100,000 rows back takes most of it
	if m.metric(t, "owr_mirror_passes_total", "rewrite") != passes {
		t.Error("20 removals are no reason to write the line again")
	}
	// Very many do: the line is written again, and readers see it whole all the time.
	r.entry(func() {
		for i := range 5_000 {
			r.abandon((i * 7919) % len(r.line))
		}
	})
	t.Logf("5,000 removals: shown after %v", shows(t, client, "wr:", r, 10*time.Second))
	if m.metric(t, "owr_mirror_passes_total", "rewrite") == passes {
		t.Error("5,000 removals from the middle were done one by one")
	}
	if s := m.Status(); !s.Healthy {
		t.Errorf("status %+v: writing the line again is no fault", s)
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := newBudget(1000, now)
	if !b.spend(budgetFloor, 1000, now) || b.spend(1, 1000, now) {
		t.Error("a short line has not exactly the least budget")
	}
	if b.spend(budgetFloor/2+1, 1000, now.Add(budgetRefill/2)) || !b.spend(budgetFloor/2-1, 1000, now.Add(budgetRefill/2)) {
		t.Error("half the time does not give half the budget")
	}
	b = newBudget(1_000_000, now)
	if !b.spend(budgetLines*1_000_000, 1_000_000, now) || b.spend(1, 1_000_000, now) {
		t.Error("a long line does not have the budget of its length")
	}
	if !b.spend(budgetLines*1_000_000, 1_000_000, now.Add(time.Hour)) || b.spend(1, 1_000_000, now.Add(time.Hour)) {
		t.Error("the budget grows beyond its size")
	}
}

func TestWaits(t *testing.T) {
	t.Parallel()
	cases := []struct {
		trouble  trouble
		failures int
		want     time.Duration
	}{
		{troubleChanged, 0, 0},
		{troubleChanged, 1, 200 * time.Millisecond},
		{troubleChanged, 50, time.Second},
		{troubleBacklog, 0, 0},
		{troubleRewrite, 0, 0},
		{troubleRedis, 0, 100 * time.Millisecond},
		{troubleRedis, 3, 800 * time.Millisecond},
		{troubleRedis, 1000, time.Second},
		{troubleForeign, 0, time.Second},
		{troubleFenced, 0, time.Second},
		{troubleFenced, 7, time.Second},
	}
	for _, c := range cases {
		if got := waitAfter(c.trouble, c.failures); got != c.want {
			t.Errorf("after %q and %d failures %v, want %v", c.trouble, c.failures, got, c.want)
		}
	}
}

func TestEncode(t *testing.T) {
	t.Parallel()
	r := newRoom()
	a, b := r.newToken(), r.newToken()
	got := encode(nil, []op{
		{verb: verbUnrelease, token: a},
		{verb: verbUnqueue, token: a, end: -1},
		{verb: verbUnqueue, token: b, end: 1},
		{verb: verbInsert, token: a, next: b},
		{verb: verbActivate, token: a, seen: 1_999},
		{verb: verbTouch, token: b, seen: -1},
	}, 5_000)
	want := []any{
		"unrelease", 1, text(a), "unqueue", 4, int8(-1), text(a), int8(1), text(b),
		"insert", 2, text(b), text(a), "activate", 2, "6", text(a), "touch", 2, "4", text(b),
	}
	if !slices.Equal(got, want) {
		t.Errorf("encoded\n%v, want\n%v", got, want)
	}
	var many []op
	for range 2_500 {
		many = append(many, op{verb: verbQueue, token: a})
	}
	var lengths []any
	for args := encode(nil, many, 0); len(args) > 0; args = args[2+args[1].(int):] {
		lengths = append(lengths, args[1])
	}
	if want := []any{1000, 1000, 500}; !slices.Equal(lengths, want) {
		t.Errorf("sections of %v, want %v", lengths, want)
	}
}

// A crowd that is seen all at once does not fit into one script, and holds nobody else up.
func TestManyTouches(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		wall := r.clock
		r.clock = func() int64 { return wall() - 100_000 }
		var actives []queue.Token
		r.entry(func() {
			for range 3 * groupOps {
				actives = append(actives, r.newToken())
				r.admit(actives[len(actives)-1])
			}
		})
		r.mu.Lock()
		r.clock = wall
		r.mu.Unlock()
		m := run(t, r, addr, 3, nil)
		shows(t, client, "wr:", r, repaired)
		r.entry(func() {
			for _, token := range actives {
				r.touch(token)
			}
		})
		r.entry(func() { r.queue(r.newToken()) })
		eventually(t, touchEvery/2, func() bool { return client.LLen(t.Context(), "wr:queue").Val() == 1 },
			func() string { return "an arrival waits for the touches" })
		t.Logf("all touches shown after %v", shows(t, client, "wr:", r, 2*time.Second))
		if n := m.metric(t, "owr_mirror_passes_total", ""); n != 1 {
			t.Errorf("%v full passes, want the first alone", n)
		}
	})
}

func TestNoClusterID(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	r, client := newRoom(), dial(t, server.addr)
	someVisitors(r)
	var known atomic.Bool
	m := run(t, r, server.addr, 3, func(c *Config) {
		c.Cluster = func() string {
			if known.Load() {
				return "c1"
			}
			return ""
		}
	})
	eventually(t, repaired, func() bool { return m.metric(t, "owr_mirror_errors_total", "cluster") > 1 }, func() string { return "not asked again" })
	if n := client.DBSize(t.Context()).Val(); n > 0 {
		t.Error("something was written in nobody's name")
	}
	known.Store(true)
	shows(t, client, "wr:", r, repaired)
}

// Redis is not ahead of the other nodes: a change is written once Settle has let it.
func TestChangesWaitForTheOtherNodes(t *testing.T) {
	t.Parallel()
	r := newRoom()
	server := miniredis.RunT(t)
	client := dial(t, server.Addr())
	held, free := make(chan uint64, 100), make(chan struct{}, 100)
	run(t, r, server.Addr(), 3, func(c *Config) {
		c.Settle = func(ctx context.Context, index uint64) {
			held <- index
			select {
			case <-free:
			case <-ctx.Done():
			}
		}
	})
	shows(t, client, "wr:", r, 2*time.Second)
	a := r.newToken()
	r.entry(func() { r.admit(a) })
	index := <-held
	if n := client.ZCard(t.Context(), "wr:active").Val(); n != 0 {
		t.Errorf("%d visitors are shown before the other nodes know of entry %d", n, index)
	}
	free <- struct{}{}
	shows(t, client, "wr:", r, time.Second)
}
