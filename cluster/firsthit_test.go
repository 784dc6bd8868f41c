package cluster_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// What an older voter could not read is refused, whichever node is asked, and comes into force by itself with the feature level.
func TestFirstHitsAndKeysWaitForTheLevel(t *testing.T) {
	l := limits(1)
	l.FirstHitTTL = 20 * time.Second
	c := clustertest.New(t, 3, l)
	c.Configs[2].FeatureLevel = 2
	c.StartAll()
	level := func(want int, ttl time.Duration) {
		t.Helper()
		for _, n := range c.Nodes {
			clustertest.Eventually(t, "the level and its limits", func() error {
				if s := n.Status(); s.FeatureLevel != want || n.Limits().FirstHitTTL != ttl || n.Limits().MaxActive != 1 {
					return fmt.Errorf("level %d, limits %+v", s.FeatureLevel, n.Limits())
				}
				return nil
			})
		}
	}
	level(2, 0)
	first := queue.LimitsChange{Set: queue.FieldFirstHitTTL, Values: queue.Limits{FirstHitTTL: 30 * time.Second}}
	for _, n := range c.Nodes {
		var refused *cluster.RefusedError
		if _, _, err := n.SetLimits(t.Context(), first); !errors.As(err, &refused) {
			t.Errorf("%s: the limit at level 2: %v", n.Status().Node, err)
		}
		if err := n.RotateKey(t.Context()); !errors.As(err, &refused) {
			t.Errorf("%s: a rotation at level 2: %v", n.Status().Node, err)
		}
	}
	c.Stop(2)
	c.Configs[2].FeatureLevel = 0
	c.Start(2)
	c.WaitReady()
	level(cluster.FeatureLevel, 20*time.Second)

	for i, n := range c.Nodes {
		if err := n.RotateKey(t.Context()); err != nil {
			t.Errorf("%s: a rotation: %v", n.Status().Node, err)
		}
		if got := n.ProofKeys(); len(got) != i+2 || got[0].ID != uint8(i+2) || got[0].Made.IsZero() {
			t.Errorf("%s: the keys are %+v", n.Status().Node, got)
		}
	}
	follower := c.Nodes[(c.Leader()+1)%3]
	if got, _, err := follower.SetLimits(t.Context(), first); err != nil || got.FirstHitTTL != 30*time.Second {
		t.Errorf("the limit: %+v, %v", got, err)
	}
	if err := follower.RemoveKey(t.Context(), 1); err != nil || follower.ProofKeys()[2].ID != 2 {
		t.Errorf("a removal: %v, %+v", err, follower.ProofKeys())
	}
	var refused *cluster.RefusedError
	if err := follower.RemoveKey(t.Context(), 1); !errors.As(err, &refused) || !refused.Unknown {
		t.Errorf("a second removal: %v", err)
	}
	level(cluster.FeatureLevel, 30*time.Second)
	sameTables(t, c)
}
