package faults

import (
	"os"
	"strings"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// theSpare is the node that joins; it serves visitors only while it is a member.
func theSpare(w *world) []*harness.Node { return w.spares }

func theSpareAndTheLeader(w *world) []*harness.Node { return []*harness.Node{w.spares[0], w.leader()} }

// owr runs a command of owr with a node's settings until it succeeds.
func (w *world) owr(n *harness.Node, args ...string) {
	w.t.Helper()
	var said string
	if !harness.Poll(20*time.Second, func() bool {
		var code int
		code, said = n.Run(args...)
		return code == 0
	}) {
		w.t.Fatalf("owr %s by %s: %s", strings.Join(args, " "), n.ID, said)
	}
}

// joins starts the spare with nothing on its disk and an address that it has not had before, and waits until it serves. It asks by itself to be
// taken in; asking for it once more by the admin API does no harm.
func (w *world) joins(n *harness.Node, role string) {
	w.t.Helper()
	must(w.t, os.RemoveAll(dataDir(n)))
	n.Cluster = harness.Address(harness.Port(w.t))
	n.Settings["WR_CLUSTER_LISTEN"], n.Settings["WR_JOIN"], n.Settings["WR_ROLE"] = n.Cluster, w.follower().Cluster, role
	n.Start()
	var err error
	if !harness.Poll(20*time.Second, func() bool { err = w.follower().Join(n, role == "edge"); return err == nil }) {
		w.t.Fatalf("%s can not join: %v", n.ID, err)
	}
	n.WaitReady()
}

// ends waits for a removed node to end by itself.
func (w *world) ends(n *harness.Node) {
	w.t.Helper()
	const removed = 3
	if code := n.WaitEnd(); code != removed {
		w.t.Errorf("%s was removed and ended with exit code %d, want %d", n.ID, code, removed)
	}
}

// edgeComesAndGoes has an edge node join, refuses it a vote, removes it, and takes it in again at another address, where it stays.
func edgeComesAndGoes(w *world, victims []*harness.Node) {
	edge, three := victims[0], w.nodes
	w.joins(edge, "edge")
	w.members(append(three[:3:3], edge)...)
	rest(w.ctx, time.Second)
	if err := w.follower().ChangeMembers("promote", edge.ID); err == nil || !strings.Contains(err.Error(), "never votes") {
		w.t.Errorf("an edge node is promoted: %v", err)
	}
	w.members(three...)
	w.owr(w.follower(), "cluster", "remove", edge.ID)
	w.ends(edge)
	w.joins(edge, "edge")
	w.members(append(three[:3:3], edge)...)
}

// voterComesAndLeaderGoes has a voter join, removes it, takes it in again at another address, and removes the leader. Each change is
// made while visitors ask, the last one on the node that leads.
func voterComesAndLeaderGoes(w *world, victims []*harness.Node) {
	voter, leaves, three := victims[0], victims[1], w.nodes
	w.joins(voter, "voter")
	w.members(append(three[:3:3], voter)...)
	w.owr(w.follower(), "cluster", "promote", voter.ID)
	rest(w.ctx, time.Second)
	w.members(three...)
	w.owr(w.follower(), "cluster", "remove", voter.ID)
	w.ends(voter)
	w.joins(voter, "voter")
	w.owr(w.leader(), "cluster", "promote", voter.ID)
	w.handTo(leaves)
	left := []*harness.Node{voter}
	for _, n := range three {
		if n != leaves {
			left = append(left, n)
		}
	}
	w.members(left...)
	w.owr(voter, "cluster", "remove", leaves.ID)
	w.ends(leaves)
}
