package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/queue"
)

// A Peer is one voter of the cluster. The address is host:port; a host name stays a host name and is
// resolved at every dial.
type Peer struct {
	ID, Address string
}

// A Job is work of the leader for one term. It returns when ctx ends, and not before: a job that
// returns earlier ends the term for all of them.
type Job func(ctx context.Context, term uint64) error

// Config is all that a node has to be told.
type Config struct {
	NodeID    string // this node's name; one of Peers when there are any
	Listen    string // host:port of the cluster port; unused by a node without peers
	Advertise string // how the others reach it; empty: Listen
	Peers     []Peer // the same on every node; empty: one node, which leads itself
	Join      string // without Peers: host:port of any member, asked to take this node in while its disk knows no cluster
	Edge      bool   // a node that joins: never to vote
	DataDir   string // Raft's log and snapshots; created 0700
	Secret    string // shared between the nodes; empty: only TLS, if anything, tells who connects
	TLS       *TLS   // nil: none; unused by a node without peers

	Version      string // of this binary, for those who find its files
	FeatureLevel int    // the highest level that this node announces; 0: all that it knows

	Limits queue.Limits // the base layer, in force while this node leads
	Jobs   []Job        // run by the leader, once a term has begun

	Logger     *slog.Logger          // required
	Registerer prometheus.Registerer // required
	Timing     Timing
	Compaction Compaction

	// OnFailure is called once when the node can not go on: its disk refuses a write or hangs, its log can not
	// be read. The node is cut off from the others by then. The process should end, and not wait for long for
	// Close, which may wait for the disk; the error says which file and what to do. Required.
	OnFailure func(error)

	disk func(disk) disk                  // puts something between Raft and its disk; tests
	free func(dir string) (uint64, error) // free bytes of the directory's file system; tests
	// Dial connects to another node; nil: over TCP. Tests cut links with it.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Timing holds the durations of a node; the zero value of a field is its default. Shorter ones are
// for tests: on a busy machine they hold elections without need.
type Timing struct {
	Heartbeat time.Duration // without a word from the leader for so long, at most twice, a node stands for election; 400 ms
	Lease     time.Duration // a leader that has not reached a majority for so long steps down; 350 ms
	RPC       time.Duration // for one exchange between two nodes; 2 s
	Flush     time.Duration // between two flushes of touches; 500 ms, and not more: see queue's graces
	Tick      time.Duration // how often the leader looks whether a deadline has passed; 50 ms
	Disk      time.Duration // a write that takes longer ends the node; 5 s
	Transfer  time.Duration // a hand-over of leadership that takes longer is given up, and if it still blocks the leader it ends the node; 5 s, or more with long heartbeats
	Stable    time.Duration // a node that joined votes once it has kept up for so long; 10 s
	Forget    time.Duration // a member without a vote that has not answered one leader for so long is removed; 24 h
}

// Compaction says when the log is cut down to a snapshot; the zero value of a field is its default.
type Compaction struct {
	Interval  time.Duration // between two looks; 30 s
	Threshold uint64        // entries since the last snapshot that call for another one; 8192
	Trailing  uint64        // entries kept behind a snapshot, for followers that were away; 10240
}

func (c Compaction) withDefaults() Compaction {
	return Compaction{cmp.Or(c.Interval, 30*time.Second), cmp.Or(c.Threshold, 8192), cmp.Or(c.Trailing, 10240)}
}

// withDefaults fills in what is zero. A node alone has nobody to wait for, so it leads at once.
func (t Timing) withDefaults(alone bool) Timing {
	heartbeat, lease := 400*time.Millisecond, 350*time.Millisecond
	if alone {
		heartbeat, lease = 50*time.Millisecond, 50*time.Millisecond
	}
	heartbeat = cmp.Or(t.Heartbeat, heartbeat)
	return Timing{
		Heartbeat: heartbeat, Lease: cmp.Or(t.Lease, lease), RPC: cmp.Or(t.RPC, 2*time.Second),
		Flush: cmp.Or(t.Flush, 500*time.Millisecond), Tick: cmp.Or(t.Tick, 50*time.Millisecond),
		Disk: cmp.Or(t.Disk, 5*time.Second), Transfer: cmp.Or(t.Transfer, max(5*time.Second, 4*heartbeat)), // an election timeout is two heartbeats at most
		Stable: cmp.Or(t.Stable, 10*time.Second), Forget: cmp.Or(t.Forget, 24*time.Hour),
	}
}

// The answers to a submission that could not be carried out. After any of them its fate is unknown
// unless the text says otherwise; sending it again is safe.
var (
	ErrNoLeader = errors.New("no leader can be reached")
	ErrBusy     = errors.New("too many commands are waiting") // not sent
	ErrClosed   = errors.New("the node is closed")
)

// Validate reports the first thing in c that can not work.
func (c Config) Validate() error {
	switch {
	case c.NodeID == "":
		return errors.New("the node has no id")
	case c.DataDir == "":
		return errors.New("the node has no data directory")
	case c.Logger == nil || c.Registerer == nil || c.OnFailure == nil:
		return errors.New("logger, registerer and failure handler are required")
	}
	if err := c.Limits.Validate(queue.AllFields); err != nil {
		return err
	}
	switch {
	case c.Join != "" && len(c.Peers) > 0:
		return errors.New("a node that joins is given no peers: it learns of them")
	case c.Edge && len(c.Peers) > 0:
		return errors.New("peers vote; a node that never votes has to join")
	case c.Join != "":
		if _, _, err := net.SplitHostPort(c.Join); err != nil {
			return fmt.Errorf("the member to join: %w", err)
		}
	}
	ids, addresses := map[string]bool{}, map[string]bool{}
	for _, p := range c.Peers {
		if _, _, err := net.SplitHostPort(p.Address); err != nil {
			return fmt.Errorf("peer %s: %w", p.ID, err)
		}
		if ids[p.ID] || addresses[p.Address] {
			return fmt.Errorf("peer %s=%s is there twice", p.ID, p.Address)
		}
		ids[p.ID], addresses[p.Address] = true, true
	}
	if len(c.Peers) > 0 && !ids[c.NodeID] {
		return fmt.Errorf("the peers do not name this node, %s", c.NodeID)
	}
	return nil
}

// alone reports whether this node opens no cluster port. Such a node can not be joined; one whose Peers name itself can.
func (c Config) alone() bool { return len(c.Peers) == 0 && c.Join == "" }

// self is this node as the others see it.
func (c Config) self() Peer {
	for _, p := range c.Peers {
		if p.ID == c.NodeID {
			return p
		}
	}
	if c.Advertise != "" {
		return Peer{c.NodeID, c.Advertise}
	}
	return Peer{c.NodeID, c.Listen}
}
