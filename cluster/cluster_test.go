package cluster_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func token(n int) queue.Token {
	var t [16]byte
	binary.BigEndian.PutUint64(t[:], uint64(n)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint32(t[12:], uint32(n))
	return queue.MakeToken(t)
}

func limits(maxActive int) queue.Limits {
	l := queue.DefaultLimits()
	l.MaxActive = maxActive
	return l
}

// sameTables waits until all nodes that are up hold the same entry and the same table.
func sameTables(t *testing.T, c *clustertest.Cluster) queue.Stats {
	t.Helper()
	var first queue.Stats
	clustertest.Eventually(t, "equal tables", func() error {
		seen := false
		for _, n := range c.Nodes {
			if n == nil {
				continue
			}
			s := n.Stats()
			if seen && s.Index != first.Index {
				return fmt.Errorf("indexes %d and %d", s.Index, first.Index)
			}
			if seen && s.Sum != first.Sum {
				t.Fatalf("at index %d the sums are %x and %x (I7)", s.Index, s.Sum, first.Sum)
			}
			first, seen = s, true
		}
		return nil
	})
	return first
}

func TestOneNodeIsACluster(t *testing.T) {
	c := clustertest.New(t, 1, limits(1)).StartAll()
	n := c.Nodes[0]
	if d := clustertest.Submit(t, n, queue.KindArrive, token(1)); d.State != queue.Active {
		t.Errorf("the first is %+v, want active", d)
	}
	if d := clustertest.Submit(t, n, queue.KindArrive, token(2)); d.State != queue.Queued || d.Position != 1 {
		t.Errorf("the second is %+v, want queued at 1", d)
	}
	c.Stop(0)
	n = c.Start(0)
	c.WaitReady()
	if v := n.Lookup(token(2)); v.State != queue.Queued || v.Ticket != 1 {
		t.Errorf("after a restart the second is %+v, want queued with ticket 1 (I3)", v)
	}
}

func TestAnyNodeTakesCommands(t *testing.T) {
	c := clustertest.New(t, 3, limits(10)).StartAll()
	var mu sync.Mutex
	states, places := map[queue.State]int{}, map[int]bool{}
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			d := clustertest.Submit(t, c.Nodes[i%3], queue.KindArrive, token(i))
			mu.Lock()
			defer mu.Unlock()
			states[d.State]++
			if d.State == queue.Queued {
				places[int(d.Ticket)] = true
			}
		})
	}
	wg.Wait()
	if states[queue.Active] != 10 || states[queue.Queued] != 290 || len(places) != 290 {
		t.Errorf("states %v with %d tickets, want 10 active, 290 queued with a ticket each (I1)", states, len(places))
	}
	if s := sameTables(t, c); s.Counts.Active != 10 || s.Counts.Queued != 290 {
		t.Errorf("counts %+v", s.Counts)
	}
}

// A decision is on every node at once: a commit notice does not wait for Raft's next heartbeat.
func TestFollowersHearOfACommitAtOnce(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	var worst time.Duration
	late := 0
	for i := range 40 {
		d := clustertest.Submit(t, c.Nodes[i%3], queue.KindArrive, token(i))
		decided := time.Now()
		for _, n := range c.Nodes {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			if err := n.WaitApplied(ctx, d.Index); err != nil {
				t.Fatal(err)
			}
			cancel()
		}
		took := time.Since(decided)
		worst = max(worst, took)
		if took > 40*time.Millisecond {
			late++
		}
	}
	// Without notices almost all of them wait for 50 ms and more; a busy machine delays some.
	if late > 20 {
		t.Errorf("%d of 40 commits took more than 40 ms to reach everybody, the worst %v", late, worst)
	}
}

// After Spread what the leader has committed is on its way into every table, whatever Raft's own timers say.
func TestSpread(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	leader := c.Nodes[c.Leader()]
	clustertest.Eventually(t, "the leader reaches everybody", func() error {
		for _, m := range leader.Status().Members {
			if !m.Healthy {
				return fmt.Errorf("not %s", m.ID)
			}
		}
		return nil
	})
	late := 0
	for i := range 40 {
		d := clustertest.Submit(t, leader, queue.KindArrive, token(i))
		leader.Spread(t.Context(), d.Index)
		for _, n := range c.Nodes {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			if n.WaitApplied(ctx, d.Index) != nil {
				late++
			}
			cancel()
		}
	}
	// Without it almost all of the followers' 80 are; a busy machine delays some.
	if late > 40 {
		t.Errorf("%d of 120 tables were behind after Spread", late)
	}
	c.Nodes[(c.Leader()+1)%3].Spread(t.Context(), 1<<60) // a follower has nothing to spread
}

func TestLeaderDies(t *testing.T) {
	c := clustertest.New(t, 3, limits(2)).StartAll()
	for i := range 8 {
		clustertest.Submit(t, c.Nodes[i%3], queue.KindArrive, token(i))
	}
	old := c.Leader()
	tickets := map[int]uint64{}
	for i := range 8 {
		tickets[i] = c.Nodes[old].Lookup(token(i)).Ticket
	}
	c.Stop(old)
	c.Leader()       // until another one leads both may be one commit behind
	sameTables(t, c) // and one of them for a moment after
	for _, n := range c.Nodes {
		if n == nil {
			continue
		}
		for i := range 8 {
			if v := n.Lookup(token(i)); v.Ticket != tickets[i] || (v.State == queue.Active) != (tickets[i] == 0) {
				t.Errorf("visitor %d is %+v, had ticket %d (I3, I4)", i, v, tickets[i])
			}
		}
		if d := clustertest.Submit(t, n, queue.KindArrive, token(100)); d.State != queue.Queued || d.Ticket != 7 {
			t.Errorf("a newcomer is %+v, want ticket 7", d)
		}
	}
	c.Start(old)
	c.WaitReady()
	sameTables(t, c)
}

// Whoever leads, the two others never wait for votes for equally long, so they split the vote once at most.
func TestElectionTimeoutsDoNotMeet(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	for range 2 {
		leader := c.Leader()
		clustertest.Eventually(t, "timeouts apart", func() error {
			var of []time.Duration
			for i, n := range c.Nodes {
				if i != leader && n != nil {
					of = append(of, n.ElectionTimeout())
				}
			}
			if len(of) == 2 && max(of[0], of[1]) < 2*min(of[0], of[1]) {
				return fmt.Errorf("%v and twice that, and %v", of[0], of[1])
			}
			return nil
		})
		c.Stop(leader)
		c.Leader()
		c.Start(leader)
		c.WaitReady()
	}
}

func TestHandOver(t *testing.T) {
	c := clustertest.New(t, 3, limits(2)).StartAll()
	old := c.Leader()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	clustertest.Submit(t, c.Nodes[old], queue.KindArrive, token(1))
	begun := time.Now()
	if err := c.Nodes[old].HandOver(ctx); err != nil {
		t.Fatal(err)
	}
	d := clustertest.Submit(t, c.Nodes[old], queue.KindArrive, token(2))
	if took := time.Since(begun); took > time.Second {
		t.Errorf("a hand-over and the next commit took %v", took)
	}
	if now := c.Leader(); now == old || d.State != queue.Active {
		t.Errorf("leader %d was %d; the newcomer is %+v", now, old, d)
	}
}

func TestAllStopAndComeBackInAnyOrder(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	for i := range 5 {
		clustertest.Submit(t, c.Nodes[i%3], queue.KindArrive, token(i))
	}
	before := sameTables(t, c)
	for i := range c.Nodes {
		c.Stop(i)
	}
	for _, i := range []int{2, 0, 1} {
		c.Start(i)
	}
	c.WaitReady()
	after := sameTables(t, c)
	if after.Counts != before.Counts || after.Limits != before.Limits {
		t.Errorf("counts %+v, limits %+v; were %+v, %+v", after.Counts, after.Limits, before.Counts, before.Limits)
	}
	for i := range 4 {
		if v := c.Nodes[i%3].Lookup(token(i + 1)); v.Position != i+1 {
			t.Errorf("visitor %d is %+v, want position %d", i+1, v, i+1)
		}
	}
}

func TestLimitsFromAnyNode(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	follower := c.Nodes[(c.Leader()+1)%3]
	got, index, err := follower.SetLimits(ctx, queue.LimitsChange{Set: queue.FieldMaxActive, Values: limits(5)})
	if err != nil || got.MaxActive != 5 || got.ActiveTTL != time.Minute {
		t.Fatalf("limits %+v, %v", got, err)
	}
	if l := follower.Limits(); l != got {
		t.Errorf("the node that was asked has %+v", l)
	}
	if index == 0 || index > follower.Applied() {
		t.Errorf("the entry has index %d, and the node that was asked is at %d", index, follower.Applied())
	}
	if _, _, err := follower.SetLimits(ctx, queue.LimitsChange{Set: queue.FieldMaxActive, Values: queue.Limits{MaxActive: -1}}); err == nil {
		t.Error("a negative limit was taken")
	}
	for i := range c.Nodes {
		c.Stop(i)
	}
	c.StartAll()
	if l := c.Nodes[0].Limits(); l.MaxActive != 5 {
		t.Errorf("after a restart max_active is %d, want 5: the override stays", l.MaxActive)
	}
	got, _, err = c.Nodes[1].SetLimits(ctx, queue.LimitsChange{Clear: queue.FieldMaxActive})
	if err != nil || got.MaxActive != 1 {
		t.Errorf("cleared: %+v, %v; want the base of 1", got, err)
	}
}

func TestTouchesKeepASlot(t *testing.T) {
	l := limits(1)
	l.ActiveTTL = 600 * time.Millisecond
	c := clustertest.New(t, 3, l).StartAll()
	clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(1))
	sameTables(t, c)
	begun := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Since(begun) < 3*time.Second {
		<-tick.C
		c.Nodes[1].Touch(token(1))
		if v := c.Nodes[2].Lookup(token(1)); v.State != queue.Active {
			t.Fatalf("after %v the visitor is %s, and was seen all the time (I4)", time.Since(begun), v.State)
		}
	}
	last := time.Now()
	clustertest.Eventually(t, "the slot ends", func() error {
		if v := c.Nodes[2].Lookup(token(1)); v.State != queue.Unknown {
			return fmt.Errorf("still %s", v.State)
		}
		return nil
	})
	if took := time.Since(last); took < l.ActiveTTL || took > l.ActiveTTL+3*time.Second {
		t.Errorf("the slot ended %v after the last touch, want %v and the grace", took, l.ActiveTTL)
	}
}

func TestNoLeader(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(1))
	clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(2))
	sameTables(t, c)
	c.Stop(1)
	c.Stop(2)
	n := c.Nodes[0]
	clustertest.Eventually(t, "not ready", func() error {
		if n.Ready() == nil {
			return errors.New("ready")
		}
		return nil
	})
	if v := n.Lookup(token(2)); v.Position != 1 {
		t.Errorf("a known visitor is %+v, want its place", v)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := n.Submit(ctx, queue.Command{Kind: queue.KindArrive, Token: token(3)}); !errors.Is(err, cluster.ErrNoLeader) {
		t.Errorf("submit without a majority: %v, want %v", err, cluster.ErrNoLeader)
	}
	begun := time.Now()
	if _, err := n.Submit(ctx, queue.Command{Kind: queue.KindArrive, Token: token(3)}); !errors.Is(err, cluster.ErrNoLeader) || time.Since(begun) > 100*time.Millisecond {
		t.Errorf("the next one: %v after %v, want %v at once", err, time.Since(begun), cluster.ErrNoLeader)
	}
}

// A disk that is full ends the node with the file's name; what was told to visitors is on the others' disks.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1500k"); err != nil {
		t.Skipf("a small file system is needed, and mounting one takes root: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	c := clustertest.New(t, 1, limits(1))
	c.Configs[0].DataDir = filepath.Join(dir, "data")
	failure := make(chan error, 1)
	c.Configs[0].OnFailure = func(err error) { failure <- err }
	c.StartAll()
	told := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		commands := queue.Command{Kind: queue.KindArrive, Token: token(told)}
		_, err := c.Nodes[0].Submit(ctx, commands)
		cancel()
		if err != nil {
			break
		}
		if told++; told > 20_000 {
			t.Fatal("the disk does not fill")
		}
	}
	select {
	case err := <-failure:
		if !strings.Contains(err.Error(), filepath.Join(dir, "data", "raft.db")) || !strings.Contains(err.Error(), "space") {
			t.Errorf("the error names neither the file nor what to do: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the node did not say that it can not go on")
	}
	c.Stop(0)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	n := c.Start(0)
	c.WaitReady()
	for i := 1; i < told; i++ {
		if v := n.Lookup(token(i)); v.Position != i {
			t.Fatalf("after the disk has space again visitor %d of %d is %+v (I3)", i, told, v)
		}
	}
}

func TestStrangersAreRefused(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	for i := range c.Configs {
		c.Configs[i].Secret = "right"
	}
	c.Configs[2].Secret = "wrong"
	c.Start(0)
	c.Start(1)
	c.WaitReady()
	n := c.Start(2)
	clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(1))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := n.WaitApplied(ctx, 1); err == nil || n.Ready() == nil {
		t.Error("a node with another secret is part of the cluster")
	}
}

// compacted is a node alone that has cut its log down to a snapshot, and stopped; and that snapshot's file.
func compacted(t *testing.T) (*clustertest.Cluster, string) {
	t.Helper()
	c := clustertest.New(t, 1, limits(1))
	c.Configs[0].Compaction = cluster.Compaction{Threshold: 1, Trailing: 1}
	c.StartAll()
	for i := range 20 {
		clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(i))
	}
	if err := c.Nodes[0].TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	c.Stop(0)
	files, err := filepath.Glob(filepath.Join(c.Configs[0].DataDir, "snapshots", "*", "state.bin"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	return c, files[0]
}

func TestRestartFromASnapshot(t *testing.T) {
	c, _ := compacted(t)
	c.StartAll()
	for i := 1; i < 20; i++ {
		if v := c.Nodes[0].Lookup(token(i)); v.Position != i {
			t.Fatalf("visitor %d is %+v", i, v)
		}
	}
}

// A follower that was away for longer than the log reaches back is sent the table whole.
func TestFollowerComesBackAfterTheLogWasCut(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	for i := range c.Configs {
		c.Configs[i].Compaction = cluster.Compaction{Threshold: 1, Trailing: 1}
	}
	c.StartAll()
	clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(0))
	away := (c.Leader() + 1) % 3
	c.Stop(away)
	leader := c.Nodes[c.Leader()]
	for i := range 20 {
		clustertest.Submit(t, leader, queue.KindArrive, token(i+1))
	}
	if err := leader.TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	n := c.Start(away)
	c.WaitReady()
	sameTables(t, c)
	if v := n.Lookup(token(20)); v.Position != 20 {
		t.Errorf("the last visitor is %+v, want position 20", v)
	}
}

func TestDamagedDiskIsNamed(t *testing.T) {
	stopped := func(t *testing.T) (*clustertest.Cluster, string) {
		c := clustertest.New(t, 1, limits(1)).StartAll()
		clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(1))
		c.Stop(0)
		return c, filepath.Join(c.Configs[0].DataDir, "raft.db")
	}
	refused := func(t *testing.T, c *clustertest.Cluster, path string) {
		t.Helper()
		n, err := cluster.Open(c.Configs[0])
		if err == nil {
			n.Close()
			t.Fatal("the node started")
		}
		if !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name %s: %v", path, err)
		}
	}
	t.Run("garbage", func(t *testing.T) {
		c, path := stopped(t)
		if err := os.WriteFile(path, []byte(strings.Repeat("garbage", 10_000)), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, c, path)
	})
	t.Run("cut", func(t *testing.T) {
		c, path := stopped(t)
		if err := os.Truncate(path, 5000); err != nil {
			t.Fatal(err)
		}
		refused(t, c, path)
	})
	t.Run("a snapshot with a wrong byte", func(t *testing.T) {
		c, path := compacted(t)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, c, filepath.Dir(path))
	})
	t.Run("no snapshot, and a log that begins behind it", func(t *testing.T) {
		c, path := compacted(t)
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		refused(t, c, filepath.Join(c.Configs[0].DataDir, "raft.db"))
	})
	t.Run("snapshots without a log", func(t *testing.T) {
		c, _ := compacted(t)
		path := filepath.Join(c.Configs[0].DataDir, "raft.db")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		refused(t, c, path)
	})
	t.Run("held by another process", func(t *testing.T) {
		c := clustertest.New(t, 1, limits(1)).StartAll()
		refused(t, c, filepath.Join(c.Configs[0].DataDir, "raft.db"))
	})
}
