package cluster_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// nobodyLeads watches the nodes that are up for so long, and fails when one of them wins an election.
func nobodyLeads(t *testing.T, c *clustertest.Cluster, watch time.Duration) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(watch); time.Now().Before(end); <-tick.C {
		for i, n := range c.Nodes {
			if n != nil && n.IsLeader() {
				t.Fatalf("node %d was elected by one that has forgotten what it promised (I3)", i+1)
			}
		}
	}
}

// A voter whose data directory was wiped, and one that was away, are a majority, and neither has what was told to visitors. They
// must not elect one of them. With the third one back all of it is there, and the wiped one votes again.
func TestWipedVoterDoesNotVote(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	leader := c.Leader()
	stale, wiped := (leader+1)%3, (leader+2)%3
	clustertest.Submit(t, c.Nodes[leader], queue.KindArrive, token(0))
	sameTables(t, c)
	c.Stop(stale)
	told := map[int]uint64{}
	for i := 1; i <= 20; i++ {
		told[i] = clustertest.Submit(t, c.Nodes[leader], queue.KindArrive, token(i)).Ticket
	}
	c.Stop(wiped)
	c.Stop(leader)
	if err := os.RemoveAll(c.Configs[wiped].DataDir); err != nil {
		t.Fatal(err)
	}
	c.Start(stale)
	c.Start(wiped)
	nobodyLeads(t, c, 2*time.Second)
	c.Stop(wiped) // its directory is not empty any more, and it has forgotten all the same
	c.Start(wiped)
	nobodyLeads(t, c, 2*time.Second)
	if c.Nodes[wiped].Ready() == nil {
		t.Error("the wiped node is ready")
	}

	c.Start(leader)
	c.WaitReady()
	sameTables(t, c)
	for i, ticket := range told {
		if v := c.Nodes[wiped].Lookup(token(i)); v.Ticket != ticket {
			t.Errorf("visitor %d is %+v, was told ticket %d (I3)", i, v, ticket)
		}
	}
	// It has a vote again: without it the last two could not elect.
	c.Stop(c.Leader())
	c.WaitReady()
	if d := clustertest.Submit(t, c.Nodes[c.Leader()], queue.KindArrive, token(100)); d.Ticket != 21 {
		t.Errorf("a newcomer is %+v, want ticket 21", d)
	}
}

// A node that lost its directory while the others work comes back by itself, by entries or by a snapshot.
func TestWipedNodeRejoins(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("log cut %v", cut), func(t *testing.T) {
			c := clustertest.New(t, 3, limits(1))
			for i := range c.Configs {
				if cut {
					c.Configs[i].Compaction.Threshold, c.Configs[i].Compaction.Trailing = 1, 1
				}
			}
			c.StartAll()
			leader := c.Leader()
			wiped := (leader + 1) % 3
			for i := range 10 {
				clustertest.Submit(t, c.Nodes[leader], queue.KindArrive, token(i))
			}
			if cut {
				if err := c.Nodes[leader].TakeSnapshot(); err != nil {
					t.Fatal(err)
				}
			}
			c.Stop(wiped)
			if err := os.RemoveAll(c.Configs[wiped].DataDir); err != nil {
				t.Fatal(err)
			}
			c.Start(wiped)
			c.WaitReady()
			if !c.Nodes[wiped].Whole() {
				t.Error("it is ready and does not vote")
			}
			sameTables(t, c)
		})
	}
}

// Of two nodes neither can lead without the other, so a wiped one has to vote; the other one holds all there is.
func TestWipedNodeOfTwo(t *testing.T) {
	c := clustertest.New(t, 2, limits(1)).StartAll()
	for i := range 5 {
		clustertest.Submit(t, c.Nodes[i%2], queue.KindArrive, token(i))
	}
	wiped := c.Leader()
	c.Stop(wiped)
	if err := os.RemoveAll(c.Configs[wiped].DataDir); err != nil {
		t.Fatal(err)
	}
	c.Start(wiped)
	c.WaitReady()
	sameTables(t, c)
	if v := c.Nodes[wiped].Lookup(token(4)); v.Ticket != 4 {
		t.Errorf("the last visitor is %+v, want ticket 4 (I3)", v)
	}
}

// A new cluster forms by itself whatever the order, with two of three, and takes the third in when it comes.
func TestNewClusterFormsInAnyOrder(t *testing.T) {
	for _, order := range [][3]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		c := clustertest.New(t, 3, limits(1))
		c.Start(order[0])
		nobodyLeads(t, c, 500*time.Millisecond)
		c.Start(order[1])
		c.WaitReady()
		clustertest.Submit(t, c.Nodes[order[0]], queue.KindArrive, token(1))
		c.Start(order[2])
		c.WaitReady()
		for i, n := range c.Nodes {
			if !n.Whole() {
				t.Errorf("order %v: node %d is ready and does not vote", order, i+1)
			}
		}
		sameTables(t, c)
		c.Stop(c.Leader()) // the third one counts
		c.WaitReady()
		for i := range c.Nodes {
			c.Stop(i)
		}
	}
}

// The same of a voter that came by joining: it knows no voters, and asks to be taken in again. It is not, as long as it counts as a voter.
func TestWipedVoterThatJoinedDoesNotVote(t *testing.T) {
	c := clustertest.Growing(t, clustertest.New(t, 1, limits(1)))
	timing(c, func(tm *cluster.Timing) { tm.Stable = 100 * time.Millisecond })
	c.StartAll()
	first := c.Leader()
	stale, wiped := c.Joiner(first, false), c.Joiner(first, false)
	c.Start(stale)
	c.Start(wiped)
	eventually(t, c.Nodes[first], "n1 n2 n3", "")
	sameTables(t, c)
	c.Stop(stale)
	leader := c.Leader()
	clustertest.Submit(t, c.Nodes[leader], queue.KindArrive, token(0))
	told := clustertest.Submit(t, c.Nodes[leader], queue.KindArrive, token(1)).Ticket
	c.Stop(wiped)
	c.Stop(first)
	if err := os.RemoveAll(c.Configs[wiped].DataDir); err != nil {
		t.Fatal(err)
	}
	c.Start(stale)
	joins := c.Configs[wiped]
	c.Configs[wiped].Join, c.Configs[wiped].Peers = "", []cluster.Peer{
		{ID: "n1", Address: c.Configs[first].Listen}, {ID: "n2", Address: c.Configs[stale].Listen}, {ID: "n3", Address: joins.Listen},
	}
	c.Start(wiped) // and once as one of three, which writes their names down
	nobodyLeads(t, c, time.Second)
	c.Stop(wiped)
	c.Configs[wiped] = joins
	c.Configs[wiped].Join = c.Configs[stale].Listen
	c.Start(wiped)
	nobodyLeads(t, c, time.Second)
	c.Stop(wiped)
	if err := os.RemoveAll(c.Configs[wiped].DataDir); err != nil {
		t.Fatal(err)
	}
	c.Start(wiped)
	nobodyLeads(t, c, 2*time.Second)
	c.Stop(wiped) // its directory is not empty any more, and it has forgotten all the same
	c.Start(wiped)
	nobodyLeads(t, c, 2*time.Second)

	c.Start(first)
	if err := c.Nodes[first].Remove(long(t), "n3"); err != nil {
		t.Fatal(err)
	}
	eventually(t, c.Nodes[first], "n1 n2 n3", "") // it has asked again, and has a vote again
	c.WaitReady()
	sameTables(t, c)
	if v := c.Nodes[wiped].Lookup(token(1)); v.Ticket != told {
		t.Errorf("a visitor is %+v, was told ticket %d (I3)", v, told)
	}
	c.Stop(c.Leader())
	c.WaitReady()
}
