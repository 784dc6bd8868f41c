package clustertest

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/openwaitingroom/owr/cluster"
)

// Joiner adds a node that asks node at to take it in, without starting it, and returns its place.
func (c *Cluster) Joiner(at int, edge bool) int {
	c.t.Helper()
	config := c.Configs[at]
	config.Join, config.Edge, config.Peers = c.Configs[at].Listen, edge, nil
	i := len(c.Configs)
	config.NodeID = fmt.Sprintf("n%d", i+1)
	config.Listen, config.Advertise = FreeAddress(c.t), ""
	config.DataDir = filepath.Join(filepath.Dir(config.DataDir), config.NodeID)
	config.Logger = logger(config.NodeID)
	config.OnFailure = func(err error) { c.t.Errorf("%s failed: %v", config.NodeID, err) }
	c.Configs, c.Nodes = append(c.Configs, config), append(c.Nodes, nil)
	if c.links != nil {
		c.links.install(i)
	}
	return i
}

// Growing makes a cluster of one node that others can join: it has a cluster port.
func Growing(t testing.TB, c *Cluster) *Cluster {
	t.Helper()
	config := &c.Configs[0]
	config.Peers = []cluster.Peer{{ID: config.NodeID, Address: config.Listen}}
	return c
}
