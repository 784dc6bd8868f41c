package cluster_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/internal/certs"
	"github.com/openwaitingroom/owr/queue"
)

// everyNode has a new visitor arrive at every node that is up.
func everyNode(t *testing.T, c *clustertest.Cluster, from int) (next int) {
	t.Helper()
	for _, n := range c.Nodes {
		if n != nil {
			arrive(t, n, from)
			from++
		}
	}
	return from
}

// arrive has a visitor come in, however long there is no leader: to arrive twice is to arrive once.
func arrive(t *testing.T, n *cluster.Node, visitor int) {
	t.Helper()
	clustertest.Eventually(t, "a visitor arrives", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := n.Submit(ctx, queue.Command{Kind: queue.KindArrive, Token: token(visitor)})
		return err
	})
}

// Three nodes with certificates are one room, without their leader too; a fourth that has one joins, and one of another authority does not.
func TestClusterWithTLS(t *testing.T) {
	a := clustertest.NewAuthority(t)
	c := clustertest.New(t, 3, limits(100)).Secure(a)
	registry := prometheus.NewRegistry()
	metrics, err := certs.NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	c.Configs[0].TLS.Metrics = metrics
	c.StartAll()
	if got, err := testutil.GatherAndCount(registry, "owr_tls_certificate_expiry_seconds"); err != nil || got != 1 {
		t.Errorf("%d metrics of expiry, %v", got, err)
	}
	next := everyNode(t, c, 1)
	dead := c.Leader()
	c.Stop(dead)
	next = everyNode(t, c, next)
	c.Start(dead)
	c.WaitReady()

	n4 := c.Joiner(dead, false)
	c.Configs[n4].TLS = clustertest.Papers(t, a, "n4")
	c.Configs[n4].Timing.Stable = time.Hour
	c.Start(n4)
	c.WaitReady()
	eventually(t, c.Nodes[0], "n1 n2 n3", "n4")
	next = everyNode(t, c, next)
	if s := sameTables(t, c); s.Counts.Active != next-1 {
		t.Errorf("%d are inside, want %d", s.Counts.Active, next-1)
	}

	n5 := c.Joiner(0, false)
	c.Configs[n5].TLS = clustertest.Papers(t, clustertest.NewAuthority(t), "n5")
	clustertest.Replace(t, c.Configs[n5].TLS.CA, slices.Concat(a.CertPEM(), mustRead(t, c.Configs[n5].TLS.CA))) // it would take anybody
	c.Start(n5)
	arrive(t, c.Nodes[0], next)
	if voters, others := members(t, c.Nodes[0]); len(voters) != 3 || len(others) != 1 || c.Nodes[n5].Ready() == nil {
		t.Errorf("members %v, %v", voters, others)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// In frames too a node speaks for itself alone, and only members have the leader do something.
func TestNobodyAsksForAnotherNode(t *testing.T) {
	a := clustertest.NewAuthority(t)
	c := clustertest.New(t, 3, limits(100)).Secure(a).StartAll()
	leader := c.Leader()
	other, third := (leader+1)%3, (leader+2)%3
	at, name := c.Configs[leader].Listen, c.Configs[third].NodeID
	for _, what := range []string{"ping", "join", "remove"} {
		if err := c.Nodes[other].AskAs(long(t), at, name, what); err == nil || !strings.Contains(err.Error(), "certificate says") {
			t.Errorf("%s for another: %v", what, err)
		}
	}
	if err := c.Nodes[other].AskAs(long(t), at, c.Configs[other].NodeID, "ping"); err != nil {
		t.Errorf("a ping of its own: %v", err)
	}
	for _, what := range []string{"commands", "keys"} {
		if err := c.Nodes[other].AskAs(long(t), at, "", what); err != nil {
			t.Errorf("%s of a member: %v", what, err)
		}
	}
	n4 := c.Joiner(leader, false)
	c.Configs[n4].TLS, c.Configs[n4].Join = clustertest.Papers(t, a, "n4"), clustertest.FreeAddress(t)
	stranger := c.Start(n4)
	for _, what := range []string{"commands", "keys"} {
		if err := stranger.AskAs(long(t), at, "", what); err == nil || !strings.Contains(err.Error(), "no member") {
			t.Errorf("%s of a node that is no member: %v", what, err)
		}
	}
}

// A node does not start with what the others would refuse.
func TestANodeDoesNotStartWithAnothersCertificate(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	c.Configs[0].TLS = clustertest.Papers(t, clustertest.NewAuthority(t), "n2")
	if n, err := cluster.Open(c.Configs[0]); err == nil || !strings.Contains(err.Error(), "n2") {
		t.Errorf("%v", err)
		if n != nil {
			n.Close()
		}
	}
}

// Certificates and their authority are replaced while visitors come in, and every link is made anew after each step. Nothing is lost,
// and at the end the old authority counts for nothing.
func TestRotationUnderLoad(t *testing.T) {
	before, after := clustertest.NewAuthority(t), clustertest.NewAuthority(t)
	c := clustertest.New(t, 3, limits(1_000_000)).Secure(before)
	for i := range c.Configs {
		c.Configs[i].TLS.Every(20 * time.Millisecond)
	}
	links := c.Links()
	c.StartAll()
	ctx, stop := context.WithCancel(t.Context())
	arrived := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			_, err := c.Nodes[n%3].Submit(ctx, queue.Command{Kind: queue.KindArrive, Token: token(n)})
			if err != nil {
				continue // no leader for a moment, or the end; it comes again
			}
			n++
		}
		arrived <- n
	}()
	relink := func(step string) {
		t.Helper()
		for _, pair := range [][2]int{{0, 1}, {0, 2}, {1, 2}} {
			links.Cut(pair[0], pair[1])
			links.Heal()
		}
		index := c.Nodes[0].Applied()
		clustertest.Eventually(t, step, func() error {
			for _, n := range c.Nodes {
				if err := n.Ready(); err != nil {
					return err
				}
				if n.Applied() < index+20 {
					return fmt.Errorf("entry %d after %d", n.Applied(), index)
				}
				for _, m := range n.Status().Members {
					if !m.Healthy {
						return fmt.Errorf("%s does not reach %s", n.Status().Node, m.ID)
					}
				}
			}
			return nil
		})
	}
	settle := func() { // two looks at the files
		timer := time.NewTimer(200 * time.Millisecond)
		<-timer.C
	}
	for i := range c.Configs {
		clustertest.Replace(t, c.Configs[i].TLS.CA, slices.Concat(before.CertPEM(), after.CertPEM()))
	}
	settle()
	relink("both authorities")
	for i := range c.Configs {
		clustertest.Issue(t, after, c.Configs[i].NodeID, c.Configs[i].TLS)
		settle()
		relink("a new certificate for " + c.Configs[i].NodeID)
	}
	for i := range c.Configs {
		clustertest.Replace(t, c.Configs[i].TLS.CA, after.CertPEM())
	}
	settle()
	relink("the new authority alone")
	stop()
	count := <-arrived
	arrive(t, c.Nodes[0], count) // the last one may have come in without hearing of it
	count++
	if s := sameTables(t, c); s.Counts.Active != count {
		t.Errorf("%d are inside of %d that arrived", s.Counts.Active, count)
	}
	c.Stop(2)
	c.Configs[2].TLS = clustertest.Papers(t, before, "n3")
	clustertest.Replace(t, c.Configs[2].TLS.CA, slices.Concat(before.CertPEM(), after.CertPEM()))
	c.Start(2)
	arrive(t, c.Nodes[0], count)
	clustertest.Eventually(t, "nobody reaches n3", func() error {
		for _, m := range c.Nodes[0].Status().Members {
			if m.ID == "n3" && m.Healthy {
				return fmt.Errorf("n3 is reached")
			}
		}
		return nil
	})
	if c.Nodes[2].Ready() == nil {
		t.Error("a node with a certificate of the old authority is ready")
	}
}

// A running cluster changes over to TLS node by node; at any time it takes visitors.
func TestClusterChangesOverToTLS(t *testing.T) {
	c := clustertest.New(t, 3, limits(1000)).Patient().StartAll()
	a := clustertest.NewAuthority(t)
	next := everyNode(t, c, 1)
	for _, prefer := range []bool{true, false} {
		for i := range c.Nodes {
			c.Stop(i)
			next = everyNode(t, c, next)
			c.Configs[i].TLS = clustertest.Papers(t, a, c.Configs[i].NodeID)
			c.Configs[i].TLS.Prefer = prefer
			c.Start(i)
			c.WaitReady()
			next = everyNode(t, c, next)
		}
	}
	if s := sameTables(t, c); s.Counts.Active != next-1 {
		t.Errorf("%d are inside of %d that arrived", s.Counts.Active, next-1)
	}
}

// 5,000 connections that say nothing change nothing for the nodes: no election, and a node that has to make all its connections anew does (K05).
func TestIdleConnectionsDoNotDisturbTheNodes(t *testing.T) {
	c := clustertest.New(t, 3, limits(1000)).Secure(clustertest.NewAuthority(t))
	for i := range c.Configs { // elections because of a busy machine would be told from those because of the flood by nothing
		c.Configs[i].Timing.Heartbeat, c.Configs[i].Timing.Lease, c.Configs[i].Timing.RPC = 2*time.Second, 1500*time.Millisecond, 5*time.Second
	}
	c.StartAll()
	next := everyNode(t, c, 1)
	leader := c.Leader()
	term := c.Nodes[leader].Status().Term
	var flood []net.Conn
	defer func() {
		for _, conn := range flood {
			conn.Close()
		}
	}()
	begun := time.Now()
	for range 5000 {
		conn, err := net.DialTimeout("tcp", c.Configs[leader].Listen, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		flood = append(flood, conn)
	}
	t.Logf("5,000 connections after %v", time.Since(begun).Round(time.Millisecond))
	next = everyNode(t, c, next)
	back := (leader + 1) % 3
	c.Stop(back)
	c.Start(back)
	c.WaitReady()
	next = everyNode(t, c, next)
	if s := c.Nodes[leader].Status(); s.Term != term || c.Leader() != leader {
		t.Errorf("term %d and not %d, %s leads", s.Term, term, s.Leader)
	}
	if s := sameTables(t, c); s.Counts.Active != next-1 {
		t.Errorf("%d are inside of %d that arrived", s.Counts.Active, next-1)
	}
}

// What TLS between the nodes costs: one command at a time, from a follower, in clear and with TLS.
func BenchmarkCommit(b *testing.B) {
	for _, secured := range []bool{false, true} {
		b.Run(fmt.Sprintf("tls=%t", secured), func(b *testing.B) {
			c := clustertest.New(b, 3, limits(1<<30))
			if secured {
				c.Secure(clustertest.NewAuthority(b))
			}
			c.StartAll()
			n := c.Nodes[(c.Leader()+1)%3]
			next := 0
			for b.Loop() {
				clustertest.Submit(b, n, queue.KindArrive, token(next))
				next++
			}
		})
	}
}
