package harness

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A Cluster is nodes n1, n2, … that know each other.
type Cluster struct {
	Nodes []*Node

	t testing.TB
}

// NewCluster prepares so many nodes in front of one origin.
func NewCluster(t testing.TB, size int, originURL string, settings Settings) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	var peers []string
	for i := range size {
		n := NewNode(t, fmt.Sprintf("n%d", i+1), originURL, settings)
		c.Nodes = append(c.Nodes, n)
		peers = append(peers, n.ID+"="+n.Cluster)
	}
	for _, n := range c.Nodes {
		n.Settings["WR_PEERS"] = strings.Join(peers, ",")
	}
	return c
}

// Start starts all nodes and waits until all serve.
func (c *Cluster) Start() {
	c.t.Helper()
	for _, n := range c.Nodes {
		n.Start()
	}
	for _, n := range c.Nodes {
		n.WaitReady()
	}
}

// Alive are the nodes whose process runs.
func (c *Cluster) Alive() []*Node {
	var alive []*Node
	for _, n := range c.Nodes {
		if n.Alive() {
			alive = append(alive, n)
		}
	}
	return alive
}

// Leader waits for a node that leads and that every node alive names.
func (c *Cluster) Leader() *Node {
	c.t.Helper()
	var leader *Node
	WaitFor(c.t, "a leader that all name", 15*time.Second, func() bool {
		leader = nil
		names := map[string]bool{}
		for _, n := range c.Alive() {
			s, err := n.Status()
			if err != nil {
				return false
			}
			names[s.Leader] = true
			if s.Role == "leader" && s.Leader == n.ID {
				leader = n
			}
		}
		return leader != nil && len(names) == 1
	})
	return leader
}

// Followers are the nodes alive but the leader.
func (c *Cluster) Followers() []*Node {
	c.t.Helper()
	leader := c.Leader()
	var others []*Node
	for _, n := range c.Alive() {
		if n != leader {
			others = append(others, n)
		}
	}
	return others
}

// statuses are those of all nodes alive; nil when one does not answer.
func (c *Cluster) statuses() []Status {
	var all []Status
	for _, n := range c.Alive() {
		s, err := n.Status()
		if err != nil {
			return nil
		}
		all = append(all, s)
	}
	return all
}
