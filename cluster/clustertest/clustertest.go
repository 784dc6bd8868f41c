// Package clustertest starts clusters for tests: real nodes on real TCP ports of the loopback interface,
// in one process, with short timeouts. In-memory transports hide the worst faults, so there is none here.
package clustertest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/internal/freeport"
	"github.com/openwaitingroom/owr/queue"
)

// A Cluster is some nodes that know each other. Nodes[i] is nil while node i is down.
type Cluster struct {
	Nodes   []*cluster.Node
	Configs []cluster.Config

	t     testing.TB
	links *Links // nil: they can not be cut
}

// New makes a cluster of so many nodes without starting it. Change Configs before Start.
func New(t testing.TB, size int, limits queue.Limits) *Cluster {
	t.Helper()
	c := &Cluster{t: t, Nodes: make([]*cluster.Node, size)}
	dir := t.TempDir()
	var peers []cluster.Peer
	for i := range size {
		peers = append(peers, cluster.Peer{ID: fmt.Sprintf("n%d", i+1), Address: FreeAddress(t)})
	}
	for _, p := range peers {
		config := cluster.Config{
			NodeID: p.ID, Listen: p.Address, DataDir: filepath.Join(dir, p.ID), Limits: limits,
			Logger: logger(p.ID), Registerer: prometheus.NewRegistry(),
			Timing:    cluster.Timing{Heartbeat: 300 * time.Millisecond, Lease: 200 * time.Millisecond, RPC: time.Second, Flush: 100 * time.Millisecond},
			OnFailure: func(err error) { t.Errorf("%s failed: %v", p.ID, err) },
		}
		if size > 1 {
			config.Peers = peers
		}
		c.Configs = append(c.Configs, config)
	}
	t.Cleanup(func() {
		for i := range c.Nodes {
			c.Stop(i)
		}
	})
	return c
}

// logger shows a node's log when OWR_TEST_LOG is set.
func logger(node string) *slog.Logger {
	out := io.Discard
	if os.Getenv("OWR_TEST_LOG") != "" {
		out = os.Stderr
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", node)
}

// FreeAddress is one of the loopback interface that nobody listens on.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return freeport.Address(t)
}

// Start opens node i.
func (c *Cluster) Start(i int) *cluster.Node {
	c.t.Helper()
	config := c.Configs[i]
	config.Registerer = prometheus.NewRegistry()
	n, err := cluster.Open(config)
	if err != nil {
		c.t.Fatalf("open node %s: %v", config.NodeID, err)
	}
	c.Nodes[i] = n
	return n
}

// StartAll opens every node and waits until all are ready.
func (c *Cluster) StartAll() *Cluster {
	c.t.Helper()
	for i := range c.Nodes {
		c.Start(i)
	}
	c.WaitReady()
	return c
}

// WaitReady waits until every node that is up is ready.
func (c *Cluster) WaitReady() {
	c.t.Helper()
	for _, n := range c.Nodes {
		if n != nil {
			Eventually(c.t, "the node is ready", func() error { return n.Ready() })
		}
	}
}

// Stop closes node i as it is: no hand-over.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	if n := c.Nodes[i]; n != nil {
		c.Nodes[i] = nil
		if err := n.Close(); err != nil {
			c.t.Errorf("close node %d: %v", i+1, err)
		}
	}
}

// Leader is the place of the node that the nodes which are up agree on.
func (c *Cluster) Leader() int {
	c.t.Helper()
	leader := -1
	Eventually(c.t, "one leader", func() error {
		name := ""
		for _, n := range c.Nodes {
			if n == nil {
				continue
			}
			if err := n.Ready(); err != nil {
				return err
			}
			s := n.Status()
			if s.Leader == "" || name != "" && s.Leader != name {
				return fmt.Errorf("%s says %q, another %q", s.Node, s.Leader, name)
			}
			name = s.Leader
		}
		for i := range c.Configs {
			if c.Configs[i].NodeID == name && c.Nodes[i] != nil {
				leader = i
				return nil
			}
		}
		return fmt.Errorf("%q is down", name)
	})
	return leader
}

// Eventually polls until probe has no complaint, or fails the test with the last one.
func Eventually(t testing.TB, what string, probe func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := probe()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		pause(5 * time.Millisecond)
	}
}

// Submit submits one command with a generous deadline.
func Submit(t testing.TB, n *cluster.Node, kind queue.Kind, token queue.Token) queue.Decision {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	d, err := n.Submit(ctx, queue.Command{Kind: kind, Token: token})
	if err != nil {
		t.Fatalf("submit: %v", err)
	}
	return d
}

func pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
