package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/queue"
)

// Status is one node's view of the cluster and of its own replica.
type Status struct {
	Node, Role, Leader string // Role: "leader", "follower" or "candidate"; Leader: "" when none is known
	Term               uint64
	FeatureLevel       int // of the cluster, by this replica
	Members            []Member
	Table              queue.Stats
}

// A Member is a node of the cluster as this one sees it.
type Member struct {
	ID, Address    string
	Voter, Healthy bool // Healthy: it has answered lately

	// What only Members fills in.
	Leader      bool
	Edge        bool          // never to vote
	LastContact time.Duration // since its last answer; 0 for the node whose view it is, below 0 when it has not answered yet
	Behind      uint64        // entries that it lacked at its last answer
}

// Status may be called at any time; it asks no other node.
func (n *Node) Status() Status {
	s := Status{Node: n.self.ID, Role: strings.ToLower(n.raft.State().String()), Term: n.raft.CurrentTerm(), Table: n.Stats()}
	s.FeatureLevel = n.fsm.identity.Load().featureLevel()
	n.leaderMu.Lock()
	s.Leader = n.leaderID
	n.leaderMu.Unlock()
	if future := n.raft.GetConfiguration(); future.Error() == nil {
		for _, server := range future.Configuration().Servers {
			id := string(server.ID)
			s.Members = append(s.Members, Member{
				ID: id, Address: n.addressOf(id, string(server.Address)), Voter: server.Suffrage == raft.Voter,
				Healthy: id == n.self.ID || n.pings.healthy(id),
			})
		}
	}
	slices.SortFunc(s.Members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return s
}

// staleContact is for how long a follower may go without a word from the leader and still call itself ready.
const staleContact = 2 * time.Second

// farBehind is how many entries a follower may lack, when it last heard from the leader, and call itself ready.
const farBehind = 1000

// Ready returns nil once this node's table is fresh and a leader is in reach, and the reason otherwise.
func (n *Node) Ready() error {
	switch {
	case !n.memory.whole.Load():
		return errors.New("the data directory was empty, and this node does not hold yet what the others hold")
	case n.leaderless() > 0:
		return errors.New("no leader")
	case !n.fresh.Load():
		return errors.New("the table is not up to date yet")
	case n.raft.State() == raft.Leader:
		if n.leading.Load() == 0 {
			return errors.New("the new leader is not ready yet")
		}
	case time.Since(n.raft.LastContact()) > staleContact:
		return fmt.Errorf("no word from the leader for %v", time.Since(n.raft.LastContact()).Round(100*time.Millisecond))
	case n.lacks() > farBehind:
		return fmt.Errorf("the table is %d entries behind the leader's", n.lacks())
	}
	if len(n.Keys()) == 0 {
		return errors.New("the cluster has no key yet")
	}
	return nil
}

// lacks is how many entries this node lacked when the leader last answered it; 0 when that is too long ago to say anything.
func (n *Node) lacks() uint64 {
	n.leaderMu.Lock()
	id := n.leaderID
	n.leaderMu.Unlock()
	if !n.pings.healthy(id) {
		return 0
	}
	return n.pings.of(id).ahead
}

type metrics struct {
	batchCommands prometheus.Observer
	commits       prometheus.Observer
}

func newMetrics(r prometheus.Registerer, n *Node) *metrics {
	commands := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "owr_batch_commands", Help: "Commands in one batch of this node.", Buckets: prometheus.ExponentialBuckets(1, 4, 8),
	})
	commits := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "owr_commit_seconds", Help: "From the proposal of an entry on the leader until it was applied there.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
	})
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	r.MustRegister(
		commands, commits, n.card.refused,
		gauge("owr_active", "Visitors inside.", func() float64 { return float64(n.Counts().Active) }),
		gauge("owr_released", "Visitors promoted and not yet in.", func() float64 { return float64(n.Counts().Released) }),
		gauge("owr_queued", "Visitors in line, absent ones included.", func() float64 { return float64(n.Counts().Queued) }),
		gauge("owr_absent", "Visitors in line that have not been seen for queue_absent.", func() float64 { return float64(n.Counts().Absent) }),
		gauge("owr_max_active", "Slots.", func() float64 { return float64(n.Limits().MaxActive) }),
		gauge("owr_applied_index", "Index of the last entry that this replica applied.", func() float64 { return float64(n.Applied()) }),
		gauge("owr_tables_differ", "Members whose table is not this node's, when it was last compared.", func() float64 { return float64(n.fsm.sums.differing()) }),
		gauge("owr_leader", "1 on the node that leads, else 0.", func() float64 {
			if n.leading.Load() != 0 {
				return 1
			}
			return 0
		}),
		gauge("owr_term", "Raft's term.", func() float64 { return float64(n.raft.CurrentTerm()) }),
		gauge("owr_leader_contact_seconds", "Since this node last heard from the leader; 0 on the leader.", func() float64 {
			if n.leading.Load() != 0 || n.raft.LastContact().IsZero() {
				return 0
			}
			return time.Since(n.raft.LastContact()).Seconds()
		}),
		gauge("owr_log_bytes", "Size of the file of the log.", func() float64 { return float64(n.store.size()) }),
		gauge("owr_snapshot_age_seconds", "Since the newest snapshot was made; -1 when there is none.", func() float64 { return n.store.snapshotAge(time.Now()) }),
		gauge("owr_leaderless_seconds", "For how long no leader has been known.", func() float64 { return n.leaderless().Seconds() }),
	)
	return &metrics{batchCommands: commands, commits: commits}
}
