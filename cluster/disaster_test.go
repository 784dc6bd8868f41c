package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// crowded is a cluster of three with so many visitors for two slots, who all know their tickets.
func crowded(t *testing.T, visitors int) (c *clustertest.Cluster, tickets []uint64) {
	t.Helper()
	c = clustertest.New(t, 3, limits(2)).StartAll()
	for i := range visitors {
		tickets = append(tickets, clustertest.Submit(t, c.Nodes[i%3], queue.KindArrive, token(i)).Ticket)
	}
	sameTables(t, c)
	return c, tickets
}

// kept checks that every visitor has what it had.
func kept(t *testing.T, n *cluster.Node, tickets []uint64) {
	t.Helper()
	for i, ticket := range tickets {
		if v := n.Lookup(token(i)); v.Ticket != ticket || (v.State == queue.Active) != (ticket == 0) || v.State == queue.Unknown {
			t.Errorf("visitor %d is %+v, had ticket %d (I3, I4)", i, v, ticket)
		}
	}
}

func archive(t *testing.T, n *cluster.Node) *cluster.Archive {
	t.Helper()
	b, err := n.Backup()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Body.Close()
	data, err := io.ReadAll(b.Body)
	if err != nil || int64(len(data)) != b.Size {
		t.Fatalf("%d bytes of %d: %v", len(data), b.Size, err)
	}
	a, err := cluster.ReadArchive(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestBackupOfAnyNodeRestoresTheCluster(t *testing.T) {
	c, tickets := crowded(t, 8)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, err := c.Nodes[0].SetLimits(ctx, queue.LimitsChange{Set: queue.FieldQueueMax, Values: queue.Limits{QueueMax: 500}}); err != nil {
		t.Fatal(err)
	}
	sameTables(t, c)
	var archives []*cluster.Archive
	for _, n := range c.Nodes {
		a := archive(t, n)
		if a.Counts != n.Counts() || a.Cluster != n.Cluster() || a.Index < n.Stats().Index {
			t.Errorf("the backup of %s is %+v", n.Status().Node, a)
		}
		archives = append(archives, a)
	}
	// The old cluster goes on: what it does now is lost, and must not come back in another shape.
	var last queue.Decision
	for i := range 20 {
		last = clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(1000+i))
	}
	old, keys, term := c.Nodes[0].Cluster(), c.Nodes[0].Keys(), c.Nodes[0].Status().Term
	for i := range c.Nodes {
		c.Stop(i)
	}

	d := clustertest.New(t, 3, limits(2))
	var ids []string
	for i := range d.Configs {
		id, err := archives[1].Restore(d.Configs[i])
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	d.StartAll()
	sameTables(t, d)
	if ids[0] != ids[1] || ids[1] != ids[2] || ids[0] == old {
		t.Errorf("cluster ids %v, the old one is %s; want one new one", ids, old)
	}
	for _, n := range d.Nodes {
		kept(t, n, tickets)
		if n.Cluster() != ids[0] || !slices.Equal(n.Keys(), keys) || n.Limits().QueueMax != 500 {
			t.Errorf("%s: cluster %s, %d keys, %+v", n.Status().Node, n.Cluster(), len(n.Keys()), n.Limits())
		}
		if n.Status().Term < term+1000 {
			t.Errorf("%s is in term %d, the old cluster was in %d and may still go on", n.Status().Node, n.Status().Term, term)
		}
		if n.Applied() <= last.Index {
			t.Errorf("%s is at entry %d, the last cookie says %d: its visitor would wait for it (I6)", n.Status().Node, n.Applied(), last.Index)
		}
	}
	if next := clustertest.Submit(t, d.Nodes[0], queue.KindArrive, token(2000)); next.Ticket <= last.Ticket || next.Position != 7 {
		t.Errorf("the next visitor has %+v; ticket %d was handed out after the backup", next, last.Ticket)
	}
	// It is a cluster like any other: it survives a leader, a snapshot and a restart.
	leader := d.Leader()
	if err := d.Nodes[leader].TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	d.Stop(leader)
	d.WaitReady()
	d.Start(leader)
	d.WaitReady()
	sameTables(t, d)
	kept(t, d.Nodes[leader], tickets)
}

// What a node finds on its disk may be long out of date, until it has heard of the leader.
func TestNoBackupOfAnOutdatedTable(t *testing.T) {
	c, _ := crowded(t, 3)
	for i := range c.Nodes {
		c.Stop(i)
	}
	if b, err := c.Start(0).Backup(); err == nil || !strings.Contains(err.Error(), "not up to date") {
		t.Errorf("a node alone makes %+v, %v", b, err)
	}
}

// survivor stops a cluster of which only the last node's directory is left.
func survivor(t *testing.T) (cfg cluster.Config, tickets []uint64) {
	t.Helper()
	c, tickets := crowded(t, 8)
	for i := range c.Nodes {
		c.Stop(i)
	}
	for _, lost := range c.Configs[:2] {
		if err := os.RemoveAll(lost.DataDir); err != nil {
			t.Fatal(err)
		}
	}
	cfg = c.Configs[2]
	cfg.Peers = nil
	return cfg, tickets
}

func rescue(t *testing.T, cfg cluster.Config) *cluster.Survivor {
	t.Helper()
	s, err := cluster.OpenSurvivor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s.Counts.Queued != 6 || s.Counts.Active != 2 || len(s.Members) != 3 {
		t.Errorf("the directory holds %+v of %v", s.Counts, s.Members)
	}
	if err := s.Recover(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOneOfThreeGoesOnAlone(t *testing.T) {
	cfg, tickets := survivor(t)
	s := rescue(t, cfg)
	if len(s.Peers) != 1 || s.Peers[0].ID != "n3" || s.Peers[0].Address != cfg.Listen {
		t.Errorf("it goes on as %v", s.Peers)
	}
	c := clustertest.New(t, 1, limits(2))
	cfg.Peers = s.Peers
	c.Configs[0] = cfg
	c.StartAll()
	kept(t, c.Nodes[0], tickets)
	if d := clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(100)); d.Position != 7 {
		t.Errorf("a newcomer is %+v, want it behind the six that wait", d)
	}
}

// The two that were lost for good are not lost: with their old data they are a majority of the old cluster, and know nothing of what the third
// has told visitors since.
func TestTheLostTurnUpAfterARecovery(t *testing.T) {
	c, tickets := crowded(t, 8)
	for i := range c.Nodes {
		c.Stop(i)
	}
	cfg := c.Configs[2]
	cfg.Peers = nil
	s := rescue(t, cfg)
	alone := clustertest.New(t, 1, limits(2))
	cfg.Peers = s.Peers
	alone.Configs[0] = cfg
	alone.StartAll()
	told := clustertest.Submit(t, alone.Nodes[0], queue.KindArrive, token(100))
	c.Start(0)
	c.Start(1)
	clustertest.Eventually(t, "the two others are a cluster", func() error { return errors.Join(c.Nodes[0].Ready(), c.Nodes[1].Ready()) })
	for i := range 5 { // what the two agree on would take the place of the third's own
		clustertest.Submit(t, c.Nodes[i%2], queue.KindArrive, token(200+i))
	}
	if !alone.Nodes[0].IsLeader() || alone.Nodes[0].Cluster() == c.Nodes[0].Cluster() {
		t.Errorf("the recovered node leads: %v; its cluster is %v, theirs %v", alone.Nodes[0].IsLeader(), alone.Nodes[0].Cluster(), c.Nodes[0].Cluster())
	}
	if v := alone.Nodes[0].Lookup(token(100)); v.Ticket != told.Ticket || alone.Nodes[0].Lookup(token(200)).State != queue.Unknown {
		t.Errorf("the newcomer is %+v, was told %+v (I3)", v, told)
	}
	kept(t, alone.Nodes[0], tickets)
}

func TestOneOfThreeBecomesThreeAgain(t *testing.T) {
	cfg, tickets := survivor(t)
	c := clustertest.New(t, 3, limits(2))
	c.Configs[2].DataDir = cfg.DataDir
	rescue(t, c.Configs[2])
	for _, other := range c.Configs[:2] {
		if err := os.CopyFS(other.DataDir, os.DirFS(cfg.DataDir)); err != nil {
			t.Fatal(err)
		}
	}
	c.StartAll()
	sameTables(t, c)
	for _, n := range c.Nodes {
		kept(t, n, tickets)
	}
	c.Stop(c.Leader())
	c.WaitReady()
	sameTables(t, c)
}

func TestOpenSurvivorChangesNothing(t *testing.T) {
	cfg, _ := survivor(t)
	s, err := cluster.OpenSurvivor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if list, _ := filepath.Glob(filepath.Join(cfg.DataDir, "snapshots", "*")); len(list) != 0 {
		t.Errorf("it has made %v", list)
	}
	for name, wrong := range map[string]cluster.Config{
		"n9":       {NodeID: "n9", DataDir: cfg.DataDir},
		"nowhere":  {NodeID: "n3", DataDir: filepath.Join(t.TempDir(), "nowhere")},
		"peers do": {NodeID: "n3", DataDir: cfg.DataDir, Peers: []cluster.Peer{{ID: "n1", Address: "127.0.0.1:1"}}},
	} {
		if s, err := cluster.OpenSurvivor(wrong); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				s.Close()
			}
		}
	}
	rescue(t, cfg) // it is all there
}

// Raft's own recovery passes over an entry that can not be read, and throws the log away.
func TestRecoveryLosesNoEntryThatItCanNotRead(t *testing.T) {
	c := clustertest.New(t, 1, limits(1))
	failed := make(chan error, 1)
	c.Configs[0].OnFailure = func(err error) { failed <- err }
	c.StartAll()
	c.Nodes[0].ProposeRaw([]byte{99, 1})
	select {
	case <-failed:
	case <-time.After(10 * time.Second):
		t.Fatal("the node goes on")
	}
	c.Stop(0)
	if s, err := cluster.OpenSurvivor(c.Configs[0]); err == nil || !strings.Contains(err.Error(), "begins with 99") {
		t.Errorf("opened with %v", err)
		if err == nil {
			s.Close()
		}
	}
}
