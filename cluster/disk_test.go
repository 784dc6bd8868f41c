package cluster_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// failures collects what node i could not go on from, instead of failing the test.
func failures(c *clustertest.Cluster, i int) <-chan error {
	out := make(chan error, 1)
	c.Configs[i].OnFailure = func(err error) { out <- err }
	return out
}

// A leader whose disk hangs commits nothing and would lead on: its heartbeats need no disk. It ends, and the others go on while
// it still hangs.
func TestLeaderWhoseDiskHangs(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	var failed []<-chan error
	var stalls []*cluster.Stall
	for i := range c.Configs {
		c.Configs[i].Timing.Disk = 2 * time.Second
		failed = append(failed, failures(c, i))
		stalls = append(stalls, c.Configs[i].Stall())
	}
	c.StartAll()
	leader := c.Leader()
	clustertest.Submit(t, c.Nodes[leader], queue.KindArrive, token(1))
	stalls[leader].Begin()
	t.Cleanup(stalls[leader].End) // before the cluster's: closing waits for the disk

	others := []*cluster.Node{c.Nodes[(leader+1)%3], c.Nodes[(leader+2)%3]}
	if d := clustertest.Submit(t, others[0], queue.KindArrive, token(2)); d.State != queue.Queued || d.Ticket != 1 {
		t.Errorf("the next visitor is %+v, want ticket 1 of the new leader", d)
	}
	for _, n := range others {
		clustertest.Eventually(t, "ready without it", func() error { return n.Ready() })
	}
	select {
	case err := <-failed[leader]:
		if !strings.Contains(err.Error(), "raft.db") || !strings.Contains(err.Error(), "the disk hangs") {
			t.Errorf("the error names neither the file nor the fault: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the node did not say that it can not go on")
	}
}

// A node whose disk is nearly full does not lead as long as another one has room, and leads when nobody has.
func TestLeaderNeedsRoomOnItsDisk(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	var free [3]atomic.Uint64
	for i := range c.Configs {
		free[i].Store(1 << 40)
		c.Configs[i].Free(free[i].Load)
	}
	c.StartAll()
	leader := c.Leader()
	next, last := (leader+1)%3, (leader+2)%3
	give := func(from, to int) {
		t.Helper()
		clustertest.Eventually(t, "a transfer", func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if c.Nodes[to].IsLeader() {
				return nil
			}
			return c.Nodes[from].HandTo(ctx, c.Configs[to].NodeID)
		})
	}
	leads := func(i int) {
		t.Helper()
		clustertest.Eventually(t, "the right one leads", func() error {
			if now := c.Leader(); now != i {
				return fmt.Errorf("node %d leads, want %d", now, i)
			}
			return nil
		})
	}
	free[leader].Store(1 << 20)
	free[next].Store(1 << 20)
	give(leader, next)
	leads(last)
	free[last].Store(1 << 20)
	give(last, next)
	leads(next)
	clustertest.Submit(t, c.Nodes[leader], queue.KindArrive, token(1))
}

// A leader that took itself out of the cluster ends: its table would be out of date from then on.
func TestRemovedLeaderEnds(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	var failed []<-chan error
	for i := range c.Configs {
		failed = append(failed, failures(c, i))
	}
	c.StartAll()
	leader := c.Leader()
	if err := c.Nodes[leader].RemoveSelf(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed[leader]:
		if !strings.Contains(err.Error(), "removed") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the node goes on")
	}
}
