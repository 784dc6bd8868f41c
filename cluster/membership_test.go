package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// members are the ids of the members as the leader sees them, the voters and the others.
func members(t *testing.T, n *cluster.Node) (voters, others []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, m := range n.Members(ctx).Members {
		if m.Voter {
			voters = append(voters, m.ID)
		} else {
			others = append(others, m.ID)
		}
	}
	return voters, others
}

// eventually waits until the members are these.
func eventually(t *testing.T, n *cluster.Node, voters, others string) {
	t.Helper()
	clustertest.Eventually(t, "the members", func() error {
		v, o := members(t, n)
		if strings.Join(v, " ") != voters || strings.Join(o, " ") != others {
			return fmt.Errorf("voters %v, others %v; want %s and %s", v, o, voters, others)
		}
		return nil
	})
}

// long is enough for any change.
func long(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// refused checks that a change was refused with these words.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if _, ok := errors.AsType[*cluster.RefusedError](err); !ok {
		t.Errorf("got %v, want a refusal with %q", err, words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("no %q in the refusal: %v", w, err)
		}
	}
}

// timing sets a duration on every node.
func timing(c *clustertest.Cluster, set func(*cluster.Timing)) {
	for i := range c.Configs {
		set(&c.Configs[i].Timing)
	}
}

// failure has the end of these nodes told on a channel instead of failing the test.
func failure(c *clustertest.Cluster, nodes ...int) chan error {
	ended := make(chan error, 9)
	for _, i := range nodes {
		c.Configs[i].OnFailure = func(err error) { ended <- err }
	}
	return ended
}

func removed(t *testing.T, ended chan error) {
	t.Helper()
	select {
	case err := <-ended:
		if !errors.Is(err, cluster.ErrRemoved) || !strings.Contains(err.Error(), "WR_JOIN") {
			t.Errorf("the node ended with %v, want %v and how to bring it back", err, cluster.ErrRemoved)
		}
	case <-time.After(20 * time.Second):
		t.Error("the removed node goes on")
	}
}

// A node that joins is sent everything, votes once it has kept up, and finds its way back without anybody's help.
func TestANodeJoinsAndVotes(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	timing(c, func(t *cluster.Timing) { t.Stable = 200 * time.Millisecond })
	c.StartAll()
	for i := range 5 {
		clustertest.Submit(t, c.Nodes[i%3], queue.KindArrive, token(i))
	}
	n4 := c.Joiner((c.Leader()+1)%3, false)
	n := c.Start(n4)
	c.WaitReady()
	sameTables(t, c)
	if v := n.Lookup(token(4)); v.Position != 4 {
		t.Errorf("the new node says %+v, want position 4", v)
	}
	eventually(t, c.Nodes[0], "n1 n2 n3 n4", "")

	// Of four voters two are no majority, so the vote of the new one counts when one is gone.
	c.Stop((c.Leader() + 1) % 3)
	if d := clustertest.Submit(t, n, queue.KindArrive, token(5)); d.Position != 5 {
		t.Errorf("the next visitor is %+v", d)
	}
	c.Stop(n4)
	c.Configs[n4].Join = "127.0.0.1:1"
	n = c.Start(n4)
	c.WaitReady()
	sameTables(t, c)
	if v := n.Lookup(token(5)); v.Position != 5 {
		t.Errorf("after a restart the new node says %+v, want position 5", v)
	}
}

func TestAJoinedNodeVotesWhenItIsToldTo(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll() // Stable is 10 s
	c.Start(c.Joiner(0, false))
	c.WaitReady()
	eventually(t, c.Nodes[1], "n1 n2 n3", "n4")
	for range 2 { // the second time there is nothing to do
		if err := c.Nodes[(c.Leader()+1)%3].Promote(long(t), "n4"); err != nil {
			t.Fatal(err)
		}
	}
	if voters, others := members(t, c.Nodes[0]); len(voters) != 4 || len(others) != 0 {
		t.Errorf("voters %v, others %v", voters, others)
	}
	if err := c.Nodes[0].Transfer(long(t), "n4"); err != nil {
		t.Fatal(err)
	}
	clustertest.Eventually(t, "the new node leads", func() error {
		if s := c.Nodes[1].Status(); s.Leader != "n4" {
			return fmt.Errorf("%q leads", s.Leader)
		}
		return nil
	})
}

func TestARemovalThatLosesTheMajorityIsRefused(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	ended := failure(c, 0, 1, 2)
	c.StartAll()
	leader := c.Leader()
	dead, alive := (leader+1)%3, (leader+2)%3
	id := func(i int) string { return c.Configs[i].NodeID }
	c.Stop(dead)
	for _, i := range []int{leader, alive} {
		refused(t, c.Nodes[alive].Remove(long(t), id(i)), id(i), "1 of them in reach", "majority of 2")
	}
	if voters, _ := members(t, c.Nodes[alive]); len(voters) != 3 {
		t.Errorf("after refusals the voters are %v", voters)
	}
	if err := c.Nodes[alive].Remove(long(t), "n9"); err == nil || !strings.Contains(err.Error(), "n1, n2, n3") {
		t.Errorf("a stranger was removed: %v", err)
	}
	if err := c.Nodes[alive].Remove(long(t), id(dead)); err != nil {
		t.Fatal(err)
	}
	if voters, _ := members(t, c.Nodes[leader]); len(voters) != 2 || slices.Contains(voters, id(dead)) {
		t.Errorf("the voters are %v", voters)
	}
	clustertest.Submit(t, c.Nodes[alive], queue.KindArrive, token(1))

	// It was not there when it was removed, and hears of it when it is back.
	c.Start(dead)
	removed(t, ended)
	c.Stop(dead)
}

func TestTheLeaderIsRemoved(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	ended := failure(c, 0, 1, 2)
	c.StartAll()
	old := c.Leader()
	begun := time.Now()
	if err := c.Nodes[old].Remove(long(t), c.Configs[old].NodeID); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	removed(t, ended)
	c.Stop(old)
	now := c.Leader()
	clustertest.Submit(t, c.Nodes[now], queue.KindArrive, token(1))
	if voters, _ := members(t, c.Nodes[now]); len(voters) != 2 {
		t.Errorf("the voters are %v", voters)
	}
	if took > 5*time.Second {
		t.Errorf("it took %v: leadership was not handed over first", took)
	}

	c.Start(old) // whoever starts it again is told the same
	removed(t, ended)
	c.Stop(old)
}

// Two nodes are left of one, so nothing is lost when the last but one goes; the last one can not be removed.
func TestOneNodeGrowsAndShrinks(t *testing.T) {
	c := clustertest.New(t, 1, limits(1)).StartAll()
	for i := range 5 {
		clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(i))
	}
	refused(t, c.Nodes[0].Join(long(t), "n2", "127.0.0.1:1", false), "WR_PEERS=n1=")
	c.Stop(0)
	c.Configs[0].Listen = clustertest.FreeAddress(t) // where it now is; its disk says something else
	clustertest.Growing(t, c)
	c.Configs[0].Timing.Stable = 100 * time.Millisecond
	c.StartAll()
	n2 := c.Joiner(0, false)
	ended := failure(c, n2)
	c.Start(n2)
	c.WaitReady()
	eventually(t, c.Nodes[0], "n1 n2", "")
	sameTables(t, c)
	if v := c.Nodes[n2].Lookup(token(4)); v.Position != 4 {
		t.Errorf("the new node says %+v, want position 4", v)
	}
	if err := c.Nodes[0].Remove(long(t), "n2"); err != nil {
		t.Fatal(err)
	}
	removed(t, ended)
	c.Stop(n2)
	c.Start(n2) // that it was once told to join does not bring it back
	removed(t, ended)
	eventually(t, c.Nodes[0], "n1", "")
	refused(t, c.Nodes[0].Remove(long(t), "n1"), "only voter")
	clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(9))
}

// What is told to the leader of the node that joins is looked at first.
func TestNewcomersAreChecked(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	other := clustertest.New(t, 1, limits(1))
	other.Configs[0].NodeID = "m1"
	clustertest.Growing(t, other).StartAll()
	half := clustertest.New(t, 2, limits(1)) // has written its first entry and has no leader, so no name yet
	half.Configs[0].NodeID = "h1"
	half.Configs[0].Peers = []cluster.Peer{{ID: "h1", Address: half.Configs[0].Listen}, {ID: "h2", Address: half.Configs[1].Listen}}
	half.Start(0)
	n := c.Nodes[(c.Leader()+1)%3]
	waiting := c.Joiner(0, false)
	c.Configs[waiting].Join = clustertest.FreeAddress(t) // it runs and waits for nobody
	c.Start(waiting)
	at, n1 := c.Configs[waiting].Listen, c.Configs[0].Listen
	refused(t, n.Join(long(t), "n1", at, false), "n1 is a member already", n1)
	refused(t, n.Join(long(t), "n4", n1, false), "is the address of n1")
	refused(t, n.Join(long(t), "n4", "nowhere", false), "HOST:PORT")
	refused(t, n.Join(long(t), "n4", clustertest.FreeAddress(t), false), "n4 can not be reached", "WR_CLUSTER_ADVERTISE")
	refused(t, n.Join(long(t), "n5", at, false), "is n4 and not n5")
	refused(t, n.Join(long(t), "n4", at, true), "n4 asks to become a voter", "WR_ROLE=edge")
	refused(t, n.Join(long(t), "m1", other.Configs[0].Listen, false), "another cluster", c.Nodes[0].Cluster(), other.Nodes[0].Cluster())
	refused(t, n.Join(long(t), "h1", half.Configs[0].Listen, false), "h1 at", "belongs to a cluster already")
	refused(t, n.Promote(long(t), "n4"), "n4")
	if voters, others := members(t, n); len(voters) != 3 || len(others) != 0 {
		t.Errorf("after refusals: voters %v, others %v", voters, others)
	}
	for range 2 {
		if err := n.Join(long(t), "n4", at, false); err != nil {
			t.Fatal(err)
		}
	}
	c.WaitReady()
	eventually(t, n, "n1 n2 n3", "n4")
}

// An edge node does all that any node does, except vote.
func TestAnEdgeServesAndNeverVotes(t *testing.T) {
	l := limits(1)
	l.ActiveTTL = 600 * time.Millisecond
	c := clustertest.New(t, 3, l)
	timing(c, func(t *cluster.Timing) { t.Stable = 100 * time.Millisecond })
	c.StartAll()
	edge := c.Joiner(0, true)
	n := c.Start(edge)
	c.WaitReady()
	if d := clustertest.Submit(t, n, queue.KindArrive, token(1)); d.State != queue.Active {
		t.Errorf("the first is %+v", d)
	}
	if d := clustertest.Submit(t, n, queue.KindArrive, token(2)); d.Position != 1 {
		t.Errorf("the second is %+v", d)
	}
	sameTables(t, c)
	if v := n.Lookup(token(2)); v.Position != 1 {
		t.Errorf("the edge says %+v", v)
	}
	// It hands in what it has seen: a visitor that only the edge sees keeps its slot.
	begun := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for time.Since(begun) < 2*time.Second {
		<-tick.C
		n.Touch(token(1))
		if v := c.Nodes[1].Lookup(token(1)); v.State != queue.Active {
			t.Fatalf("after %v the visitor is %s, and was seen all the time (I4)", time.Since(begun), v.State)
		}
	}
	// One that came after it votes by now; the edge does not, whoever asks.
	late := c.Joiner(edge, false)
	ended := failure(c, late)
	c.Start(late)
	eventually(t, c.Nodes[0], "n1 n2 n3 n5", "n4")
	refused(t, n.Promote(long(t), "n4"), "n4 is an edge node", "WR_ROLE")
	refused(t, n.Transfer(long(t), "n4"), "n4 has no vote")
	if err := n.Remove(long(t), "n5"); err != nil { // by way of the edge
		t.Error(err)
	}
	removed(t, ended)
}

func TestADeadNonVoterIsForgotten(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	timing(c, func(t *cluster.Timing) { t.Forget = 1500 * time.Millisecond })
	c.StartAll()
	edge := c.Joiner(0, true)
	c.Start(edge)
	c.WaitReady()
	eventually(t, c.Nodes[0], "n1 n2 n3", "n4")
	c.Stop(edge)
	eventually(t, c.Nodes[0], "n1 n2 n3", "")

	// Its name is free again, for a node with an empty disk at another place.
	again := c.Joiner(0, true)
	c.Configs[again].NodeID = "n4"
	c.Start(again)
	c.WaitReady()
	eventually(t, c.Nodes[0], "n1 n2 n3", "n4")
	clustertest.Submit(t, c.Nodes[again], queue.KindArrive, token(1))
	sameTables(t, c)
}

// Acknowledgements of edges are no commits: a leader that reaches four edges and no voter acknowledges nothing.
func TestEdgesDoNotCountInAPartition(t *testing.T) {
	c := clustertest.New(t, 3, limits(2))
	links := c.Links()
	timing(c, func(t *cluster.Timing) { t.Stable = 100 * time.Millisecond })
	c.StartAll()
	for i := range 4 {
		c.Start(c.Joiner(i%3, true))
	}
	c.WaitReady()
	eventually(t, c.Nodes[0], "n1 n2 n3", "n4 n5 n6 n7")
	for i := range 7 {
		clustertest.Submit(t, c.Nodes[i], queue.KindArrive, token(i))
	}
	before := sameTables(t, c)

	old := c.Leader()
	a, b := (old+1)%3, (old+2)%3
	links.Cut(old, a)
	links.Cut(old, b)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	d, err := c.Nodes[old].Submit(ctx, queue.Command{Kind: queue.KindArrive, Token: token(100)})
	cancel()
	if err == nil {
		t.Errorf("a leader without its voters acknowledged an arrival: %+v", d)
	}
	// The others go on, and so do the edges.
	for i, n := range []int{a, b, 3, 4, 5, 6} {
		if d := clustertest.Submit(t, c.Nodes[n], queue.KindArrive, token(200+i)); d.Position != before.Counts.Queued+i+1 {
			t.Errorf("a newcomer at n%d is %+v, want position %d", n+1, d, before.Counts.Queued+i+1)
		}
	}
	if v := c.Nodes[a].Lookup(token(100)); v.State != queue.Unknown {
		t.Errorf("what was not acknowledged is %+v", v)
	}
	links.Heal()
	c.WaitReady()
	sameTables(t, c)
	if v := c.Nodes[old].Lookup(token(205)); v.Position != before.Counts.Queued+6 {
		t.Errorf("after the partition the old leader says %+v", v)
	}

	// One voter and four edges are no cluster: nothing is decided, and everybody keeps what is known.
	leader := c.Leader()
	c.Stop((leader + 1) % 3)
	c.Stop((leader + 2) % 3)
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	if d, err := c.Nodes[3].Submit(ctx, queue.Command{Kind: queue.KindArrive, Token: token(300)}); err == nil {
		t.Errorf("one voter of three decided: %+v", d)
	}
	cancel()
	for i := 3; i < 7; i++ {
		if s := c.Nodes[i].Status(); s.Role != "follower" {
			t.Errorf("%s is a %s", s.Node, s.Role)
		}
		if v := c.Nodes[i].Lookup(token(205)); v.Position != before.Counts.Queued+6 {
			t.Errorf("n%d says %+v of a known visitor", i+1, v)
		}
	}
	c.Start((leader + 1) % 3)
	c.WaitReady()
	if d := clustertest.Submit(t, c.Nodes[6], queue.KindArrive, token(301)); d.State != queue.Queued {
		t.Errorf("with two voters a newcomer is %+v", d)
	}
	if voters, others := members(t, c.Nodes[leader]); len(voters) != 3 || len(others) != 4 {
		t.Errorf("in the end voters %v, others %v", voters, others)
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) holds(words ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(l.text.String(), w) })
}

// Two clusters that were formed apart and are then pointed at one another stay two: a node of the one that takes the place of a
// node of the other is spoken to by nobody.
func TestTwoClustersDoNotMerge(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	var log, foreignLog lines
	for i := range c.Configs {
		c.Configs[i].Logger = slog.New(slog.NewTextHandler(&log, nil))
	}
	c.StartAll()
	place := (c.Leader() + 1) % 3
	foreign := clustertest.New(t, 1, limits(1))
	foreign.Configs[0].NodeID = c.Configs[place].NodeID
	foreign.Configs[0].Logger = slog.New(slog.NewTextHandler(&foreignLog, nil))
	clustertest.Growing(t, foreign).StartAll()
	for i := range 40 { // its log is longer, and soon its term is higher
		clustertest.Submit(t, foreign.Nodes[0], queue.KindArrive, token(1000+i))
	}
	for i := range 5 {
		clustertest.Submit(t, c.Nodes[i%3], queue.KindArrive, token(i))
	}
	ours, theirs := c.Nodes[0].Cluster(), foreign.Nodes[0].Cluster()
	foreign.Stop(0)
	c.Stop(place)
	foreign.Configs[0].Listen, foreign.Configs[0].Peers = c.Configs[place].Listen, c.Configs[place].Peers
	n := foreign.Start(0)
	if n.Belongs() != theirs {
		t.Errorf("before anything commits the node belongs to %q, its disk to %s", n.Belongs(), theirs)
	}
	clustertest.Eventually(t, "both sides say so", func() error {
		if !log.holds("another cluster", ours, theirs, "WR_DATA_DIR") || !foreignLog.holds("another cluster", ours, theirs) {
			return errors.New("not yet")
		}
		return nil
	})
	foreign.WaitReady()
	c.WaitReady()
	for i := range 5 {
		clustertest.Submit(t, c.Nodes[c.Leader()], queue.KindArrive, token(10+i))
	}
	s := sameTables(t, c)
	if s.Counts.Queued != 9 || n.Counts().Queued != 39 {
		t.Errorf("%d and %d wait, want 9 and 39", s.Counts.Queued, n.Counts().Queued)
	}
	if c.Nodes[c.Leader()].Cluster() != ours || n.Cluster() != theirs {
		t.Error("a cluster has another id")
	}
}
