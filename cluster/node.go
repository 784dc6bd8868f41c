// Package cluster is Raft, and all that exists because there are several nodes: one table on each of them,
// changed by the same entries in the same order.
//
// A Node hands its commands to the leader in batches (batch.go, forward.go), applies what has committed
// (fsm.go), and does the leader's work while it leads (leader.go). Reading is local: Lookup asks this
// node's own replica and waits for nobody.
package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// A Node is one member of the cluster, or the whole of it. All methods may be called concurrently.
type Node struct {
	cfg  Config
	self Peer
	log  *slog.Logger

	raft      *raft.Raft
	store     *store
	port      *port          // nil on a node alone
	intake    *intake        // of Raft's messages; nil without TLS
	transport raft.Transport // Raft's; closed by Raft's shutdown
	observer  *raft.Observer // of changes of leader
	observed  chan raft.Observation
	notify    chan bool // Raft's leadership changes; always read

	clock     *clusterClock
	fsm       *fsm
	noted     allegiance // what the disk says of it
	roster    *roster
	changing  chan struct{} // holds one token while a change of members is under way
	batcher   *batcher
	touches   *touches
	card      *card
	forwarder *client // the batcher's connection to the leader
	notices   *notices
	pings     *pings
	metrics   *metrics

	memory    *memory
	transfers transferWatch

	leading atomic.Uint64 // the term this node leads and is ready in; 0: it does not
	backups sync.Mutex    // held while a snapshot is made for a backup
	fresh   atomic.Bool   // the table has once been as new as the leader's since this process began
	failed  sync.Once
	dead    chan struct{} // closed when the node can not go on

	leaderMu      sync.Mutex
	leaderAddress string        // "": none known
	leaderID      string        // of leaderAddress
	leaderChanged chan struct{} // closed when the leader changes
	leaderLost    time.Time     // since when none is known; zero when one is
	lost          atomic.Int64  // leaderLost as time since the node began, 0 when one is known: for who must not wait for the mutex
	begun         time.Time

	opened chan struct{}   // closed once Raft is there to be asked
	ctx    context.Context // ends with the node
	cancel context.CancelFunc
	wg     sync.WaitGroup
	closed sync.Once
	err    error // of Close
}

// Open starts a node: it opens the disk, joins the cluster port, and forms the cluster with its peers when
// there is no state yet. It does not wait for a leader: see Ready. Its errors name the file or the address
// and what to do.
func Open(cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Timing, cfg.Compaction = cfg.Timing.withDefaults(cfg.alone()), cfg.Compaction.withDefaults()
	n := &Node{
		cfg: cfg, self: cfg.self(), log: cfg.Logger,
		clock: newClusterClock(time.Now), notify: make(chan bool, 16), observed: make(chan raft.Observation, 16),
		leaderChanged: make(chan struct{}), leaderLost: time.Now(), begun: time.Now(), memory: new(memory), dead: make(chan struct{}),
		changing: make(chan struct{}, 1), opened: make(chan struct{}),
	}
	n.lost.Store(1)
	if n.cfg.free == nil {
		n.cfg.free = freeSpace
	}
	n.transfers = transferWatch{limit: n.cfg.Timing.Transfer, fail: n.fail}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.fsm = newFSM(n.clock, n.fail)
	n.fsm.version = cfg.Version
	n.touches = newTouches(n.clock.now)
	n.card = n.newCard()
	if cfg.TLS != nil && !cfg.alone() {
		if err := n.openPassport(); err != nil {
			n.cancel()
			return nil, err
		}
	}
	n.forwarder = n.newClient()
	n.metrics = newMetrics(cfg.Registerer, n)
	n.batcher = newBatcher(queue.DefaultRoom, n.metrics.batchCommands, n.leaderless, n.send)
	n.batcher.knows = func(token queue.Token) bool { return n.Lookup(token).State != queue.Unknown }
	n.notices = &notices{node: n}
	n.pings = newPings(n)

	if err := n.openRaft(); err != nil {
		n.cancel()
		if n.intake != nil {
			n.intake.close()
		}
		if n.port != nil {
			n.port.close()
		}
		if n.store != nil {
			n.store.close()
		}
		return nil, err
	}
	close(n.opened)
	switch {
	case n.memory.whole.Load():
	case len(n.cfg.Peers) > 1:
		n.wg.Go(func() { n.recall(n.ctx) })
	default:
		n.wg.Go(func() { n.settleIn(n.ctx) })
	}
	n.wg.Go(func() { n.followLeader() })
	n.wg.Go(func() { n.runTerms() })
	n.wg.Go(func() { n.batcher.run(n.ctx) })
	n.wg.Go(func() { n.touches.run(n.ctx, cfg.Timing.Flush, n.batcher.submit) })
	n.wg.Go(func() { n.followMembers() })
	if n.outside() {
		n.wg.Go(func() { n.join() })
	}
	return n, nil
}

// openPassport reads the certificate and follows its files.
func (n *Node) openPassport() error {
	i, err := newPassport(n.cfg.TLS, n.self.ID, n.log)
	if err != nil {
		return fmt.Errorf("TLS between the nodes: %w", err)
	}
	n.card.passport = i
	if i.prefer {
		n.log.Warn("connections to the cluster port are taken without TLS too: set WR_CLUSTER_TLS_MODE to require once every node has its certificate")
	}
	n.wg.Go(func() { i.keys.Run(n.ctx) })
	return nil
}

func (n *Node) newClient() *client { return &client{card: n.card, timeout: n.cfg.Timing.RPC} }

// fail is called by whatever finds that the node can not go on. The others notice at once: nothing that this node
// might still send comes from a node that can keep its word.
func (n *Node) fail(err error) {
	n.failed.Do(func() {
		close(n.dead)
		n.log.Error("the node can not go on", "err", err)
		go n.cfg.OnFailure(err) // the caller may be Raft's own goroutine, which Close waits for
	})
}

// HandOver gives leadership to another voter, if this node leads and there is one, and hands in the touches
// it has noted. It is the first step of stopping on purpose; the node goes on serving. It returns when
// another node leads, or ctx ends.
func (n *Node) HandOver(ctx context.Context) error {
	if n.raft.State() == raft.Leader && len(n.voters()) > 1 {
		_, changed := n.leader()
		if err := n.transfer(ctx, ""); err != nil {
			return fmt.Errorf("hand leadership over: %w", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return n.touches.flush(ctx, n.batcher.submit)
}

// Close ends the node. Submissions that wait are told ErrClosed. It returns when every goroutine of the
// node has ended and the disk is closed.
func (n *Node) Close() error {
	n.closed.Do(func() {
		limit, cancel := context.WithTimeout(context.Background(), n.cfg.Timing.RPC/2)
		defer cancel()
		if n.leaderless() == 0 {
			if err := n.touches.flush(limit, n.batcher.submit); err != nil {
				n.log.Warn("the last touches were not handed in", "err", err)
			}
		}
		n.cancel()
		n.raft.DeregisterObserver(n.observer)
		shut := n.raft.Shutdown().Error()
		if t, ok := n.transport.(transport); ok {
			_ = t.Close()    // a Raft that has shut itself down leaves it open
			t.CloseStreams() // the connections in its pool
		}
		n.forwarder.close()
		if n.intake != nil {
			n.intake.close()
		}
		var port error
		if n.port != nil {
			port = n.port.close()
		}
		n.wg.Wait()
		n.noteCluster()
		n.err = errors.Join(shut, port, n.store.close())
	})
	return n.err
}

// --- the replica, as everybody else sees it -----------------------------------------------

// Lookup is what this node's replica knows of the visitor. Until the replica has once been as new as the
// leader's it knows nobody: what it found on disk may be long out of date.
func (n *Node) Lookup(token queue.Token) queue.View {
	if !n.fresh.Load() {
		return queue.View{}
	}
	return n.fsm.table.Load().Lookup(token)
}

// Touch notes that a visitor was let in to a page. It never blocks; the sign of life is committed with the next flush.
func (n *Node) Touch(token queue.Token) { n.touches.note(token, signTouch) }

// Asked is Touch for a request with which its visitor was not let in to a page: a slot that a poll has taken is still reserved after it.
func (n *Node) Asked(token queue.Token) {
	if n.fsm.identity.Load().featureLevel() < reserveLevel {
		n.touches.note(token, signTouch)
		return
	}
	n.touches.note(token, signAsk)
}

// Stay is Touch for a request that did not bring the cookie and is under way yet: it confirms nobody. A cluster that does not know
// the difference yet has nobody to confirm either.
func (n *Node) Stay(token queue.Token) {
	if n.fsm.identity.Load().featureLevel() < 3 {
		n.touches.note(token, signTouch)
		return
	}
	n.touches.note(token, signStay)
}

// Submit has one command carried out and returns the decision of the commit. It waits until then, or until
// ctx ends; errors are ErrNoLeader, ErrBusy, ErrClosed and ctx's.
func (n *Node) Submit(ctx context.Context, c queue.Command) (queue.Decision, error) {
	decisions, err := n.batcher.submit(ctx, n.spell(c))
	if err != nil {
		return queue.Decision{}, err
	}
	return decisions[0], nil
}

// spell is the command as every voter can read it.
func (n *Node) spell(c queue.Command) queue.Command {
	if c.Kind < queue.KindReserve || n.fsm.identity.Load().featureLevel() >= reserveLevel {
		return c
	}
	switch c.Kind {
	case queue.KindReserve:
		c.Kind = queue.KindClaim
	case queue.KindAsk:
		c.Kind, c.Arg = queue.KindArrive, 0
	}
	return c
}

// SubmitFunc is Submit for who cannot wait: without an error it calls then once, from a goroutine of the node's that must not be
// held up. After until it may not call it any more.
func (n *Node) SubmitFunc(until time.Time, c queue.Command, then func(queue.Decision, error)) error {
	return n.batcher.submitFunc(until, n.spell(c), then)
}

// HasRoom reports whether by this replica a newcomer would get a slot: a hint.
func (n *Node) HasRoom() bool { return n.fresh.Load() && n.fsm.table.Load().HasRoom() }

// Quorum reports whether a leader is known, or was until a moment ago: whether a command would be waited for. It costs one load.
func (n *Node) Quorum() bool {
	lost := n.lost.Load()
	return lost == 0 || time.Since(n.begun)-time.Duration(lost) <= leaderless
}

// Counts returns the sizes of the room by this replica.
func (n *Node) Counts() queue.Counts { return n.Stats().Counts }

// Limits returns the limits in force by this replica.
func (n *Node) Limits() queue.Limits { return n.fsm.table.Load().Limits() }

// Stats returns the figures of this replica's table after one whole entry.
func (n *Node) Stats() queue.Stats { return n.fsm.table.Load().Stats() }

// Now is cluster time in Unix milliseconds.
func (n *Node) Now() int64 { return n.clock.now() }

// Applied is the index of the newest entry that this replica holds.
func (n *Node) Applied() uint64 { return n.fsm.applied.load() }

// WaitApplied returns once this replica holds the entry at index, or ctx ends.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error {
	return n.fsm.applied.wait(ctx, index)
}

// Keys are the proof keys of the cluster, the newest first; empty before the first leader has made one.
func (n *Node) Keys() seal.Ring { return n.fsm.identity.Load().keys }

// Cluster is the cluster's id, empty before the first leader has made one.
func (n *Node) Cluster() string { return n.fsm.identity.Load().cluster.String() }

// Follow freezes the replica's table and starts a feed of the changes after it; at most limit wait in it.
func (n *Node) Follow(limit int) (picture *queue.Frozen, feed *queue.Feed, stop func()) {
	table := n.fsm.table.Load()
	picture, feed = table.Follow(limit)
	return picture, feed, func() { table.Unfollow(feed) }
}

// SetLimits has a change of limits carried out, by whichever node leads, and returns the limits then in
// force and the index of the entry. On return this node's replica has them too, unless ctx ended first, and so have the others in reach.
// A *RefusedError says that nothing was done, since some node is too old for one of the limits.
func (n *Node) SetLimits(ctx context.Context, change queue.LimitsChange) (queue.Limits, uint64, error) {
	if err := change.Values.Validate(change.Set); err != nil {
		return queue.Limits{}, 0, err
	}
	if later := (change.Set | change.Clear) &^ n.fields(); later != 0 {
		return queue.Limits{}, 0, refusef("a limit of this change needs feature level %d, and the cluster is at %d: upgrade all nodes first",
			since(queue.EntryLaterLimits), n.fsm.identity.Load().featureLevel())
	}
	for {
		limits, index, err := n.setLimits(ctx, change)
		switch {
		case err == nil:
			return limits, index, nil
		case n.leaderless() > leaderless:
			return queue.Limits{}, 0, ErrNoLeader
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return queue.Limits{}, 0, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

func (n *Node) setLimits(ctx context.Context, change queue.LimitsChange) (queue.Limits, uint64, error) {
	if n.leading.Load() != 0 {
		limits, index, err := n.proposeLimits(change)
		if err == nil {
			n.Spread(ctx, index)
		}
		return limits, index, err
	}
	address, _ := n.leader()
	if address == "" {
		return queue.Limits{}, 0, ErrNoLeader
	}
	c := n.newClient()
	defer c.close()
	reply, err := c.call(ctx, address, frameLimits, queue.AppendLimits(nil, change))
	if err != nil {
		return queue.Limits{}, 0, err
	}
	if len(reply) < 8 {
		return queue.Limits{}, 0, errBadFrame
	}
	answer, err := queue.DecodeLimits(reply[8:])
	if err != nil {
		return queue.Limits{}, 0, err
	}
	index := binary.BigEndian.Uint64(reply)
	return answer.Values, index, n.WaitApplied(ctx, index)
}
