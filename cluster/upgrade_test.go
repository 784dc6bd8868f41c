package cluster_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
)

func TestLevelRisesWhenAllVotersKnowIt(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	c.Configs[2].FeatureLevel = 1
	c.StartAll()
	level := func(want int) {
		t.Helper()
		for _, n := range c.Nodes {
			clustertest.Eventually(t, "the level", func() error {
				if got := n.Status().FeatureLevel; got != want {
					return fmt.Errorf("%d, want %d", got, want)
				}
				return nil
			})
		}
	}
	clustertest.Eventually(t, "another node leads, and knows who is behind", func() error {
		if c.Leader() == 2 {
			return errors.Join(errors.New("it leads itself"), c.Nodes[2].HandOver(t.Context()))
		}
		lowest, behind := c.Nodes[c.Leader()].LowestLevel(t.Context())
		if lowest != 1 || behind != "n3" {
			return fmt.Errorf("%d of %q", lowest, behind)
		}
		return nil
	})
	level(1)
	restart := func(level int) {
		c.Stop(2)
		c.Configs[2].FeatureLevel = level
		c.Start(2)
		c.WaitReady()
	}
	restart(0)
	level(cluster.FeatureLevel)
	restart(1)
	for i := range c.Nodes {
		if err := c.Nodes[i].TakeSnapshot(); err != nil {
			t.Fatal(err)
		}
		c.Stop(i)
	}
	c.StartAll()
	level(cluster.FeatureLevel) // it never falls
}

// A node on a directory that a newer version has written ends with the version to run, and does not call it damaged.
func TestDirectoryOfANewerVersionIsRefused(t *testing.T) {
	c := clustertest.New(t, 1, limits(1))
	c.Configs[0].Version = "v9.9.9"
	c.StartAll()
	c.Nodes[0].PretendLevel(cluster.FeatureLevel + 1)
	if err := c.Nodes[0].TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	c.Stop(0)
	n, err := cluster.Open(c.Configs[0])
	if err == nil {
		n.Close()
		t.Fatal("the node started")
	}
	if !strings.Contains(err.Error(), "owr v9.9.9") || !strings.Contains(err.Error(), "run that version") || strings.Contains(err.Error(), "damaged") {
		t.Errorf("it ended with %v", err)
	}
}
