package cluster

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// openRaft opens the disk and the port and starts Raft on them.
func (n *Node) openRaft() error {
	logger := newRaftLog(n.log)
	var err error
	if n.store, err = openStore(n.cfg.DataDir, logger, n.cfg.Timing.Disk, n.fail); err != nil {
		return err
	}
	if n.cfg.disk != nil {
		n.store.bolt = n.cfg.disk(n.store.bolt)
	}
	dropped, err := n.store.dropDivergedLog()
	if err != nil {
		return fmt.Errorf("compare %s with the newest snapshot: %w", n.store.path, err)
	}
	if dropped {
		n.log.Warn("the log had left the cluster's and was dropped; the snapshot stays, the leader sends the rest", "file", n.store.path)
	}
	known, err := raft.HasExistingState(n.store, n.store, n.store.snapshots)
	if err != nil {
		return fmt.Errorf("read %s: %w", n.store.path, err)
	}
	if err := n.identify(known); err != nil {
		return err
	}
	if err := n.openMemory(known); err != nil {
		return fmt.Errorf("open %s: %w", n.store.path, err)
	}
	n.recallCluster()
	if n.roster, err = newRoster(n.fsm, n.store.snapshots); err != nil {
		return err
	}
	if err := n.openTransport(); err != nil {
		return err
	}
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.self.ID)
	c.Logger = logger
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = n.cfg.Timing.Heartbeat, n.cfg.Timing.Heartbeat, n.cfg.Timing.Lease
	c.NotifyCh = n.notify // keeps the order of leaderships and loses none, where LeaderCh may skip one
	c.MaxAppendEntries = 256
	c.SnapshotInterval, c.SnapshotThreshold, c.TrailingLogs = n.cfg.Compaction.Interval, n.cfg.Compaction.Threshold, n.cfg.Compaction.Trailing

	cached, err := raft.NewLogCache(logCacheSize, n.store)
	if err != nil {
		return fmt.Errorf("log cache: %w", err)
	}
	if !known && n.cfg.Join == "" {
		// Every node writes the same first entry, so it does not matter which of them are up, in which
		// order they start, or that they all do this at once.
		if err := raft.BootstrapCluster(c, n.store, n.store, n.store.snapshots, n.transport, n.configuration()); err != nil {
			return fmt.Errorf("write the first entry to %s: %w", n.store.path, err)
		}
	}
	n.raft, err = raft.NewRaft(c, n.roster, cached, n.store, n.store.snapshots, n.transport)
	if err != nil {
		return fmt.Errorf("start from %s: %w: a snapshot or the log is damaged; with the other nodes alive, remove this node's whole data directory "+
			"and start it again, it will be sent everything; as a single node, restore the directory from a backup", n.cfg.DataDir, err)
	}
	n.observer = raft.NewObserver(n.observed, true, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	n.raft.RegisterObserver(n.observer)
	n.warnOfOtherPeers(known)
	if members := n.members(); n.cfg.alone() && len(members) > 1 {
		_ = n.raft.Shutdown().Error()
		return fmt.Errorf("%s belongs to a cluster of %d nodes, and this node was told of none: set WR_PEERS or WR_JOIN again, as it was when the node last ran", n.cfg.DataDir, len(members))
	}
	if err := n.claim(known); err != nil {
		_ = n.raft.Shutdown().Error() // the disk's error is the one to tell
		return err
	}
	return nil
}

func (n *Node) openTransport() error {
	if n.cfg.alone() {
		_, n.transport = raft.NewInmemTransport(raft.ServerAddress(n.self.Address))
		return nil
	}
	listen := n.cfg.Listen
	if listen == "" {
		listen = n.self.Address
	}
	var err error
	if n.port, err = listenPort(listen, n.self.Address, n.card, n.log, n.dead, n.serveForward); err != nil {
		return err
	}
	book := addressBook{}
	for _, p := range n.cfg.Peers {
		book[raft.ServerID(p.ID)] = raft.ServerAddress(p.Address)
	}
	t := transport{memory: n.memory, patience: pipelineLimit * n.cfg.Timing.RPC}
	conns := n.port.raft
	if n.card.passport != nil {
		n.intake = newIntake(n.port, n.cfg.Timing.RPC, n.log)
		t.intake, conns = n.intake, n.intake.unsure
	}
	t.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: newStreams(n.port, conns), ServerAddressProvider: book, MaxPool: 4, Timeout: n.cfg.Timing.RPC,
		Logger: newRaftLog(n.log), MsgpackUseNewTimeFormat: true,
	})
	if t.intake != nil {
		t.intake.take(t.NetworkTransport, "")
	}
	if !n.memory.whole.Load() {
		t.messages = make(chan raft.RPC)
		n.wg.Go(func() { t.filter(n.ctx) })
	}
	n.transport = t
	return nil
}

// configuration is the first one of a cluster: the same on every node that was given the same peers.
func (n *Node) configuration() raft.Configuration {
	peers := n.cfg.Peers
	if len(peers) == 0 {
		peers = []Peer{n.self}
	}
	peers = slices.SortedFunc(slices.Values(peers), func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
	var c raft.Configuration
	for _, p := range peers {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(p.ID), Address: raft.ServerAddress(p.Address)})
	}
	return c
}

// warnOfOtherPeers tells an operator whose WR_PEERS names nodes that are no members (any more): the data directory counts, since it
// holds what the cluster has agreed on. Members that are not in WR_PEERS came by joining.
func (n *Node) warnOfOtherPeers(known bool) {
	members := n.members()
	if !known || len(n.cfg.Peers) == 0 {
		return
	}
	var gone []string
	for _, p := range n.cfg.Peers {
		if !slices.ContainsFunc(members, func(s raft.Server) bool { return string(s.ID) == p.ID }) {
			gone = append(gone, p.ID)
		}
	}
	if len(gone) > 0 {
		n.log.Warn("WR_PEERS names nodes that are no members; the data directory counts", "no_members", gone, "dir", n.cfg.DataDir)
	}
}

// nodeAt is the member that is reached at an address, "" when none is known there: one that is just joining, or the member that this
// node asks to take it in.
func (n *Node) nodeAt(address string) string {
	for _, p := range n.cfg.Peers {
		if p.Address == address {
			return p.ID
		}
	}
	select {
	case <-n.opened:
	default:
		return ""
	}
	for _, s := range n.members() {
		if n.addressOf(string(s.ID), string(s.Address)) == address {
			return string(s.ID)
		}
	}
	return ""
}

// addressOf is where a member is reached: as WR_PEERS has it, else as the member said.
func (n *Node) addressOf(id, address string) string {
	for _, p := range n.cfg.Peers {
		if p.ID == id {
			return p.Address
		}
	}
	return address
}
