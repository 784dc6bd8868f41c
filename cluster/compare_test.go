package cluster_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// A node with another entry than the others at one index has another table for good, and Raft does not see it: index and term are equal.
func TestANodeWhoseTableDiffersEnds(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	odd := (c.Leader() + 1) % 3
	for i := range 5 {
		clustertest.Submit(t, c.Nodes[odd], queue.KindArrive, token(i))
	}
	sameTables(t, c)
	c.Stop(odd)
	if err := cluster.Forge(c.Configs[odd].DataDir, queue.Command{Kind: queue.KindArrive, Token: token(99)}); err != nil {
		t.Fatal(err)
	}
	ended := failure(c, odd)
	c.Start(odd)
	select {
	case err := <-ended:
		if !strings.Contains(err.Error(), "not what most voters have") || !strings.Contains(err.Error(), c.Configs[odd].DataDir) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on (I7)")
	}
	for i, n := range c.Nodes {
		if i != odd && n.Ready() != nil {
			t.Errorf("node %d: %v", i+1, n.Ready())
		}
	}
	clustertest.Submit(t, c.Nodes[(odd+1)%3], queue.KindArrive, token(100))
}

// Where it is one against one nobody can say who is right.
func TestOneTableAgainstAnotherGoesOn(t *testing.T) {
	c := clustertest.New(t, 2, limits(1)).StartAll()
	for i := range 5 {
		clustertest.Submit(t, c.Nodes[i%2], queue.KindArrive, token(i))
	}
	sameTables(t, c)
	odd := 1 - c.Leader()
	c.Stop(odd)
	if err := cluster.Forge(c.Configs[odd].DataDir, queue.Command{Kind: queue.KindArrive, Token: token(99)}); err != nil {
		t.Fatal(err)
	}
	c.Start(odd)
	clustertest.Eventually(t, "both see it", func() error {
		for _, n := range c.Nodes {
			if n.Differing() != 1 {
				return errors.New("not yet")
			}
		}
		return nil
	})
	clustertest.Submit(t, c.Nodes[odd], queue.KindArrive, token(100))
}
