package cluster_test

import (
	"strings"
	"testing"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// Two nodes whose data directories were swapped would each vote by what the other one had promised.
func TestANodeDoesNotStartInAnothersDirectory(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	c.Stop(0)
	c.Stop(1)
	c.Configs[0].DataDir, c.Configs[1].DataDir = c.Configs[1].DataDir, c.Configs[0].DataDir
	if n, err := cluster.Open(c.Configs[0]); err == nil || !strings.Contains(err.Error(), "the data directory of the node n2, and this node is n1") {
		t.Errorf("opened with %v", err)
		if err == nil {
			n.Close()
		}
	}
	c.Configs[0].DataDir, c.Configs[1].DataDir = c.Configs[1].DataDir, c.Configs[0].DataDir
	c.Start(0)
	c.Start(1)
	c.WaitReady()
}

// A start that is refused leaves no name in the directory.
func TestARefusedStartClaimsNothing(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	c.Stop(0)
	if err := cluster.Disown(c.Configs[0].DataDir); err != nil {
		t.Fatal(err)
	}
	wrong := c.Configs[0]
	wrong.NodeID, wrong.Peers = "host7", nil
	if n, err := cluster.Open(wrong); err == nil || !strings.Contains(err.Error(), "a cluster of 3 nodes") {
		t.Errorf("opened with %v", err)
		if err == nil {
			n.Close()
		}
	}
	c.Start(0)
	c.WaitReady()
}

// The name of a node alone is often that of its container, and another one after each upgrade.
func TestANodeAloneMayBeRenamed(t *testing.T) {
	c := clustertest.New(t, 1, limits(1)).StartAll()
	told := clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(0))
	for _, name := range []string{"another", "n1", "third"} {
		c.Stop(0)
		if name == "third" { // a directory of before its node's name was in it
			if err := cluster.Disown(c.Configs[0].DataDir); err != nil {
				t.Fatal(err)
			}
		}
		c.Configs[0].NodeID = name
		c.Start(0)
		c.WaitReady()
	}
	if v := c.Nodes[0].Lookup(token(0)); v.State != told.State {
		t.Errorf("the visitor is %+v, was told %+v", v, told)
	}
	if name := c.Nodes[0].Status().Node; name != "n1" {
		t.Errorf("it is %s", name)
	}
}
