package mirror

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/openwaitingroom/owr/queue"
)

// repaired is the time in which Redis has to be right again after any fault, with room to spare:
// the contract says 5 s.
const repaired = 3 * time.Second

// metric reads one value of the mirror's registry: of one label, or of all of them together.
func (m *running) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, sample := range f.GetMetric() {
			if label == "" || len(sample.GetLabel()) > 0 && sample.GetLabel()[0].GetValue() == label {
				sum += sample.GetGauge().GetValue() + sample.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func (m *running) healthy(t *testing.T, want bool, within time.Duration) {
	t.Helper()
	eventually(t, within, func() bool { return m.Status().Healthy == want }, func() string { return fmt.Sprintf("%+v", m.Status()) })
}

// change lets the room go on: one leaves, the head is released and one arrives.
func change(r *room) {
	r.entry(func() {
		if actives := r.in(queue.Active); len(actives) > 1 {
			r.leave(actives[0])
		}
		r.promote(0)
		r.queue(r.newToken())
	})
}

func TestSomebodyElsesHand(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		someVisitors(r)
		m := run(t, r, addr, 3, nil)
		shows(t, client, "wr:", r, repaired)
		ctx := context.Background()
		faults := []struct {
			name string
			do   func() error
			idle bool // nothing changes afterwards: the next beat has to see it
		}{
			{"FLUSHALL", func() error { return client.FlushAll(ctx).Err() }, true},
			{"DEL active", func() error { return client.Del(ctx, "wr:active").Err() }, false},
			{"DEL queue", func() error { return client.Del(ctx, "wr:queue").Err() }, false},
			{"DEL released", func() error { return client.Del(ctx, "wr:released").Err() }, true},
			{"DEL the marker", func() error { return client.Del(ctx, "wr:mirror").Err() }, true},
			{"active of another type", func() error { return client.Set(ctx, "wr:active", "x", 0).Err() }, false},
			{"queue of another type", func() error { return client.Set(ctx, "wr:queue", "x", 0).Err() }, true},
			{"released of another type", func() error { return client.Set(ctx, "wr:released", "x", 0).Err() }, false},
			{"the marker of another type", func() error { return client.Set(ctx, "wr:mirror", "x", 0).Err() }, false},
			{"one too many in line", func() error { return client.RPush(ctx, "wr:queue", "x").Err() }, false},
			{"one too few in line", func() error { return client.RPop(ctx, "wr:queue").Err() }, true},
			{"one too many active", func() error { return client.ZAdd(ctx, "wr:active", redis.Z{Member: "x"}).Err() }, false},
			{"another index", func() error { return client.HSet(ctx, "wr:mirror", "index", 1).Err() }, false},
			{"an older term", func() error { return client.HSet(ctx, "wr:mirror", "term", 2).Err() }, false},
			{"scripts forgotten", func() error { return client.ScriptFlush(ctx).Err() }, false},
		}
		for _, f := range faults {
			passes := m.metric(t, "owr_mirror_passes_total", "changed")
			if err := f.do(); err != nil {
				t.Fatalf("%s: %v", f.name, err)
			}
			if !f.idle {
				change(r)
			}
			if f.name != "scripts forgotten" {
				took := eventually(t, repaired, func() bool { return m.metric(t, "owr_mirror_passes_total", "changed") > passes }, m.log.String)
				t.Logf("%s: full pass after %v", f.name, took)
			}
			shows(t, client, "wr:", r, time.Second)
			change(r)
			shows(t, client, "wr:", r, time.Second)
		}
		if m.log.count("mirror is not what was written") == 0 {
			t.Error("the log says nothing of it")
		}
		if n := m.metric(t, "owr_mirror_passes_total", "redis"); n > 0 {
			t.Errorf("%v full passes for errors: what was tried is not a fault of Redis", n)
		}
	})
}

// A hand that leaves the number of members as it was is seen by no look at the keys: the next full pass puts it right.
func TestAHandThatLeavesTheCounts(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		someVisitors(r)
		m := run(t, r, addr, 3, func(c *Config) { c.Redraw = 2 * time.Second })
		shows(t, client, "wr:", r, repaired)
		ctx := context.Background()
		for range 2 {
			if err := errors.Join(client.LSet(ctx, "wr:queue", 0, "x").Err(), client.ZPopMin(ctx, "wr:active").Err(), client.ZAdd(ctx, "wr:active", redis.Z{Member: "x"}).Err()); err != nil {
				t.Fatal(err)
			}
			shows(t, client, "wr:", r, repaired)
		}
		if n := m.metric(t, "owr_mirror_passes_total", "changed"); n > 0 {
			t.Errorf("%v full passes for what no look shows", n)
		}
		if s := m.Status(); !s.Healthy || s.LastError != "" {
			t.Errorf("got %+v", s)
		}
	})
}

func TestRedisKilledAndRestarted(t *testing.T) {
	t.Parallel()
	r, server := newRoom(), startRedis(t)
	someVisitors(r)
	m := run(t, r, server.addr, 3, nil)
	shows(t, dial(t, server.addr), "wr:", r, repaired)
	if s := m.Status(); !s.Enabled || !s.Leading || !s.Healthy || s.LastError != "" {
		t.Errorf("status %+v, want healthy", s)
	}
	eventually(t, repaired, func() bool { return m.Status().Behind == 0 }, func() string { return fmt.Sprintf("%+v", m.Status()) })

	server.kill()
	follows := r.followed()
	change(r)
	m.healthy(t, false, repaired)
	for range 20 { // changes go on
		change(r)
	}
	eventually(t, 5*time.Second, func() bool { return m.metric(t, "owr_mirror_errors_total", "redis") >= 5 }, func() string { return "no retries" })
	if s := m.Status(); s.Behind <= 0 || s.LastError == "" || !s.Enabled {
		t.Errorf("status %+v, want behind, and the error", s)
	}
	if m.metric(t, "owr_mirror_healthy", "") != 0 || m.metric(t, "owr_mirror_behind_seconds", "") <= 0 {
		t.Error("the metrics say that all is well")
	}
	if n := r.followed() - follows; n > 0 {
		t.Errorf("the table was copied %d times for a Redis that is away", n)
	}
	server.start()
	t.Logf("restarted empty: right after %v", shows(t, dial(t, server.addr), "wr:", r, repaired))
	m.healthy(t, true, time.Second)
	eventually(t, repaired, func() bool { return m.log.count("mirror back") == 1 }, m.log.String)
	if n := m.log.count("mirror lost"); n != 1 {
		t.Errorf("the log says %d times that the mirror is lost, want once:\n%s", n, m.log)
	}
}

func TestRedisHangs(t *testing.T) {
	t.Parallel()
	r, server := newRoom(), startRedis(t)
	someVisitors(r)
	m := run(t, r, server.addr, 3, nil)
	client := dial(t, server.addr)
	shows(t, client, "wr:", r, repaired)
	server.signal(syscall.SIGSTOP)
	change(r)
	m.healthy(t, false, repaired)
	begun := time.Now()
	for range 1000 {
		change(r)
	}
	if took := time.Since(begun); took > 500*time.Millisecond {
		t.Errorf("1000 changes took %v: something waits for Redis", took)
	}
	server.signal(syscall.SIGCONT)
	t.Logf("goes on: right after %v", shows(t, client, "wr:", r, repaired))

	server.signal(syscall.SIGSTOP)
	change(r)
	begun = time.Now()
	m.stop() // fails the test when it takes long
	t.Logf("term ended after %v", time.Since(begun))
	// What Redis still has to read of that term comes before or after the successor, as it likes.
	successor := run(t, r, server.addr, 4, nil)
	server.signal(syscall.SIGCONT)
	successor.healthy(t, true, repaired)
	change(r)
	shows(t, client, "wr:", r, time.Second)
	if got := client.HGet(t.Context(), "wr:mirror", "node").Val(); got != "n4" {
		t.Errorf("the picture is that of %q, want n4", got)
	}
}

func TestRedisNeverAnswers(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var held []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			held = append(held, c)
		}
		for _, c := range held {
			c.Close()
		}
	})
	defer wg.Wait()
	defer l.Close()
	r := newRoom()
	someVisitors(r)
	m := run(t, r, l.Addr().String(), 3, nil)
	eventually(t, 5*time.Second, func() bool { return m.metric(t, "owr_mirror_errors_total", "redis") >= 2 }, func() string { return "no retries" })
	if r.followed() != 0 {
		t.Error("the table was copied for a Redis that does not answer")
	}
	if n := m.log.count("mirror lost"); n != 1 {
		t.Errorf("the log says %d times that the mirror is lost, want once:\n%s", n, m.log)
	}
	m.stop()
}

func TestRedisIsNotThereAtFirst(t *testing.T) {
	t.Parallel()
	r, server := newRoom(), startRedis(t)
	server.kill()
	someVisitors(r)
	m := run(t, r, server.addr, 3, nil)
	eventually(t, repaired, func() bool { return m.log.count("mirror lost") == 1 }, m.log.String)
	server.start()
	shows(t, dial(t, server.addr), "wr:", r, repaired)
}

func TestLaterTermTakesOver(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		someVisitors(r)
		old := run(t, r, addr, 3, nil)
		shows(t, client, "wr:", r, repaired)
		successor := run(t, r, addr, 4, nil) // the old leader does not know yet
		successor.healthy(t, true, repaired)
		old.healthy(t, false, repaired)
		if old.metric(t, "owr_mirror_fenced_total", "") == 0 {
			t.Error("nothing was fenced")
		}
		for range 50 {
			change(r)
			if got := client.HGet(t.Context(), "wr:mirror", "term").Val(); got != "4" {
				t.Fatalf("term %q is back", got)
			}
		}
		shows(t, client, "wr:", r, time.Second)
		if n := old.log.count("a later leader of this cluster"); n != 1 {
			t.Errorf("the deposed leader's log says it %d times, want once", n)
		}
		if s := old.Status(); !strings.Contains(s.LastError, "term 4 by node") {
			t.Errorf("status %+v, want to hear who it is", s)
		}
		if n := successor.metric(t, "owr_mirror_passes_total", ""); n != 1 {
			t.Errorf("%v full passes of the successor, want 1", n)
		}
	})
}

func TestOneWriterManyTerms(t *testing.T) {
	t.Parallel()
	r, server := newRoom(), startRedis(t)
	client := dial(t, server.addr)
	someVisitors(r)
	w, err := New(Config{Source: r, Node: "n1", Cluster: func() string { return "c1" }, Addr: server.addr})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for term := uint64(1); term <= 5; term++ {
		ctx, cancel := context.WithCancelCause(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx, term) }()
		eventually(t, repaired, func() bool { return w.Status().Healthy }, func() string { return fmt.Sprintf("%+v", w.Status()) })
		change(r)
		shows(t, client, "wr:", r, time.Second)
		if got := client.HGet(t.Context(), "wr:mirror", "term").Val(); got != fmt.Sprint(term) {
			t.Errorf("term %q, want %d", got, term)
		}
		over := fmt.Errorf("term %d is over", term)
		cancel(over)
		if err := <-done; !errors.Is(err, over) {
			t.Errorf("Run returned %v, want the cause", err)
		}
		if s := w.Status(); s.Leading || s.Healthy || s.Behind != 0 {
			t.Errorf("status after the term: %+v", s)
		}
	}
}

func TestAnotherClustersPicture(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		theirs, client := newRoom(), dial(t, addr)
		someVisitors(theirs)
		first := run(t, theirs, addr, 9, func(c *Config) { c.Cluster = func() string { return "c2" } })
		shows(t, client, "wr:", theirs, repaired)
		r := newRoom()
		r.tokens = 1000
		someVisitors(r)
		m := run(t, r, addr, 3, nil)
		eventually(t, repaired, func() bool { return m.metric(t, "owr_mirror_errors_total", "foreign") >= 3 }, func() string { return "not noticed" })
		for range 20 {
			change(theirs)
		}
		shows(t, client, "wr:", theirs, time.Second)
		if s := m.Status(); s.Healthy || !strings.Contains(s.LastError, "c2") {
			t.Errorf("status %+v, want the other cluster's name in it", s)
		}
		if n := m.log.count("level=ERROR"); n != 1 || m.log.count("another cluster writes") != 1 {
			t.Errorf("%d errors in the log, want one that says so:\n%s", n, m.log)
		}
		if n := first.metric(t, "owr_mirror_passes_total", ""); n != 1 {
			t.Errorf("the other cluster had to write its picture %v times", n)
		}
	})
}

func TestAnotherClustersOldPicture(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		theirs, client := newRoom(), dial(t, addr)
		someVisitors(theirs)
		if err := leader(t, theirs, addr, "c2", 9).drawNow(t, theirs); err != nil {
			t.Fatal(err)
		}
		client.HSet(t.Context(), "wr:mirror", "updated_at", time.Now().Add(-31*time.Second).UnixMilli())
		r := newRoom()
		r.tokens = 1000
		someVisitors(r)
		m := run(t, r, addr, 3, nil)
		shows(t, client, "wr:", r, 5*time.Second)
		if n := m.log.count("level=ERROR") + m.log.count("level=WARN"); n > 0 {
			t.Errorf("an old picture is nothing to complain of:\n%s", m.log)
		}
	})
}

func TestMoreChangesThanTheBacklogHolds(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		someVisitors(r)
		m := run(t, r, addr, 3, func(c *Config) { c.Backlog = 100 })
		shows(t, client, "wr:", r, repaired)
		r.entry(func() {
			for range 5_000 {
				r.queue(r.newToken())
			}
		})
		shows(t, client, "wr:", r, repaired)
		if m.metric(t, "owr_mirror_passes_total", "backlog") == 0 {
			t.Error("no full pass for a lost feed")
		}
		if n := m.log.count("level=WARN"); n > 0 {
			t.Errorf("that is no fault, and the log says so:\n%s", m.log)
		}
	})
}

// At no moment a reader may see more holders than slots, whatever happens to Redis meanwhile.
func TestReadersNeverSeeTooMany(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		const slots = 40
		r, client := newRoom(), dial(t, addr)
		m := run(t, r, addr, 3, nil)
		m.healthy(t, true, repaired)
		var most atomic.Int64
		reading, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		reader := dial(t, addr)
		wg.Go(func() {
			for reading.Err() == nil {
				n, err := reader.Eval(reading, `return redis.call('ZCARD', KEYS[1]) + redis.call('SCARD', KEYS[2])`, []string{"wr:active", "wr:released"}).Int64()
				if err == nil && n > most.Load() {
					most.Store(n)
				}
			}
		})
		dice := rand.New(rand.NewPCG(1, 2))
		for i := range 1_500 {
			r.entry(func() {
				for range 5 {
					r.queue(r.newToken())
				}
				for _, token := range r.in(queue.Released) {
					switch dice.IntN(3) {
					case 0:
						r.claim(token)
					case 1:
						r.sendBack(token)
					}
				}
				for _, token := range r.in(queue.Active) {
					if dice.IntN(3) == 0 {
						r.leave(token)
					}
				}
				for len(r.rest) < slots && len(r.line) > 0 {
					r.promote(0)
				}
				for len(r.line) > 300 {
					r.abandon(dice.IntN(len(r.line)))
				}
			})
			if i%10 == 0 { // let it write, or it would all be one group
				index := fmt.Sprint(r.index)
				eventually(t, repaired, func() bool { return client.HGet(t.Context(), "wr:mirror", "index").Val() == index },
					func() string { return "always behind" })
			}
			if i%400 == 200 {
				client.Del(context.Background(), []string{"wr:active", "wr:released", "wr:queue", "wr:mirror"}[dice.IntN(4)])
			}
		}
		shows(t, client, "wr:", r, repaired)
		stop()
		wg.Wait()
		if n := most.Load(); n > slots || n == 0 {
			t.Errorf("a reader saw %d holders, of %d slots", n, slots)
		}
		t.Logf("%v full passes, %v changes", m.metric(t, "owr_mirror_passes_total", "changed"), m.metric(t, "owr_mirror_changes_total", ""))
	})
}

func TestMetricNames(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	if _, err := New(Config{Source: newRoom(), Cluster: func() string { return "" }, Addr: "127.0.0.1:1", Registerer: registry}); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
	}
	for _, want := range []string{
		"owr_mirror_behind_seconds", "owr_mirror_healthy", "owr_mirror_fenced_total", "owr_mirror_changes_total",
		"owr_mirror_script_seconds", "owr_mirror_passes_total", "owr_mirror_errors_total",
	} {
		if !names[want] {
			t.Errorf("no metric %s", want)
		}
	}
}
