package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// enqueue is how long an entry may wait to be taken by Raft's main loop. It says nothing of the commit.
const enqueue = 2 * time.Second

// runTerms follows this node's leaderships, one after the other, until the node ends.
func (n *Node) runTerms() {
	var wg sync.WaitGroup
	stop := func() {}
	end := func() { // two terms of one node never overlap
		n.leading.Store(0)
		stop()
		wg.Wait()
	}
	defer func() { end() }()
	for {
		select {
		case leads := <-n.notify:
			end()
			if !leads {
				continue
			}
			ctx, cancel := context.WithCancel(n.ctx)
			stop = cancel
			wg.Go(func() {
				defer cancel()
				n.lead(ctx)
			})
		case <-n.ctx.Done():
			return
		}
	}
}

// termPause is between two attempts at a term that this node could not hand over.
const termPause = 500 * time.Millisecond

// lead runs the term until it is over. When this node can not do a leader's work another one shall try; when there is none, or it can
// not be reached, this one tries again.
func (n *Node) lead(ctx context.Context) {
	n.transfers.proposed(nil) // what was refused in an earlier term does not count
	for {
		err := n.runTerm(ctx)
		n.leading.Store(0)
		if err == nil || ctx.Err() != nil || n.raft.State() != raft.Leader {
			return
		}
		n.log.Warn("the term ends early", "err", err)
		if len(n.voters()) > 1 {
			if err := n.transfer(ctx, ""); err != nil && ctx.Err() == nil {
				n.log.Warn("leadership was not handed over", "err", err)
			}
		}
		select {
		case <-time.After(termPause):
		case <-ctx.Done():
			return
		}
	}
}

// runTerm does a leader's work for one term. It returns once the term is over and every job has returned.
func (n *Node) runTerm(ctx context.Context) error {
	contact := n.raft.LastContact()
	if n.yieldForSpace(ctx) {
		<-ctx.Done()
		return nil
	}
	// After the barrier our table holds all that earlier leaders committed. Deciding before it could
	// hand out slots that are already taken (I1).
	if err := n.taken(n.raft.Barrier(0)); err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	term := n.raft.CurrentTerm()
	if err := n.beginTerm(contact); err != nil {
		return err
	}
	n.fresh.Store(true)
	n.leading.Store(term)
	n.batcher.wake()
	n.log.Info("leading", "term", term)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { n.tick(ctx) })
	wg.Go(func() { cancel(n.watchSpace(ctx)) })
	wg.Go(func() { n.tendMembers(ctx) })
	wg.Go(func() { n.raiseLevel(ctx) })
	for _, job := range n.cfg.Jobs {
		wg.Go(func() { cancel(job(ctx, term)) }) // the first job to return ends the term for all
	}
	wg.Wait()
	return context.Cause(ctx)
}

// beginTerm writes the entries that a term begins with. The first one takes the time without a leader out of
// everybody's account and holds expiry back (I4); the others make what a cluster has once, if it is not there.
func (n *Node) beginTerm(contact time.Time) error {
	if _, err := n.propose(resumption(n.clock, n.Stats().Now, contact)); err != nil {
		return fmt.Errorf("begin the term: %w", err)
	}
	if id := n.fsm.identity.Load(); id.cluster == (clusterID{}) {
		var random clusterID
		rand.Read(random[:])
		if _, err := n.propose(appendCluster(nil, random)); err != nil {
			return fmt.Errorf("name the cluster: %w", err)
		}
	}
	if id := n.fsm.identity.Load(); len(id.keys) == 0 {
		if _, err := n.propose(appendKey(nil, seal.NewKey(1))); err != nil {
			return fmt.Errorf("make the first key: %w", err)
		}
	}
	if err := n.setBase(); err != nil {
		return fmt.Errorf("set the limits: %w", err)
	}
	return nil
}

// setBase makes the limits of this node's environment the base, as far as the feature level knows them.
func (n *Node) setBase() error {
	base := queue.LimitsChange{Now: n.clock.now(), Base: true, Set: n.fields(), Values: n.cfg.Limits}
	_, err := n.propose(queue.AppendLimits(nil, base))
	return err
}

// fields are the limits that the feature level knows.
func (n *Node) fields() queue.Field {
	if n.fsm.identity.Load().featureLevel() < since(queue.EntryLaterLimits) {
		return queue.AllFields &^ queue.LaterFields
	}
	return queue.AllFields
}

// resumption is a new leader's first entry. last is the time of the newest entry in its table, and contact when it last heard of
// the leader before it; zero: never.
func resumption(clock *clusterClock, last int64, contact time.Time) []byte {
	now, gap := resumeAt(clock, last, contact)
	resume := queue.Command{Kind: queue.KindResume, Arg: uint32(min(gap, math.MaxInt32))}
	return queue.AppendBatch(nil, queue.Batch{Now: now, Commands: []queue.Command{resume}})
}

// resumeAt is the time of a new leader's first entry, and for how long nothing could commit before it.
//
// A node that has followed a leader goes on with that leader's clock, so an election never makes time jump,
// whatever this node's own clock says. That clock may be ahead of the leader's, when that one was itself ahead of or behind the one before
// it; so all the time from the newest entry on counts as time without a leader, but for what passed until this node heard of
// the leader last: nobody's stay is cut short by what the clocks are apart (I4). After a restart of all nodes there is no such clock: time is this
// node's own, if it is ahead, and all of the time since the last entry was time without a leader.
func resumeAt(clock *clusterClock, last int64, contact time.Time) (now, gap int64) {
	now = max(clock.now(), last)
	if contact.IsZero() {
		now = max(now, clock.wall().UnixMilli())
		if last == 0 {
			return now, 0
		}
		return now, now - last
	}
	idle := max(contact.Sub(clock.heardAt()), 0)
	return now, max(now-last-idle.Milliseconds(), 0)
}

// tick proposes a tick when a deadline has passed, until ctx ends. Looking costs one read of a number; an
// idle cluster writes no entries.
func (n *Node) tick(ctx context.Context) {
	timer := time.NewTicker(n.cfg.Timing.Tick)
	defer timer.Stop()
	looks := newLooks(n.clock)
	vigil, end := n.newVigil(ctx)
	defer end()
	committed := make(chan func(), 1)
	for underWay := false; ; {
		select {
		case <-timer.C:
			looks.look()
		case then := <-committed:
			looks.look()
			underWay = false
			then()
			continue // a proposal that is refused at once is made again with the next look, and not before
		case <-ctx.Done():
			if underWay {
				<-committed
			}
			return
		}
		if underWay {
			continue
		}
		due := n.Stats().NextDeadline
		now, command, ok := looks.next(due)
		if !ok || command.Kind == queue.KindTick && !vigil.clear(now, due) {
			continue
		}
		underWay = true
		go func() { // looks go on meanwhile: a slow commit is no stop of this process
			begun := n.clock.wall()
			// Not through the batcher: what waits there would move the time that was asked for. It ends with the commit, or with the leadership.
			_, err := n.proposeAt(now, []queue.Command{command})
			if err != nil && ctx.Err() == nil {
				n.log.Debug("a tick was not carried out", "err", err)
			}
			took := n.clock.wall().Sub(begun)
			committed <- func() { looks.took(command, took, err) }
		}()
	}
}

// looks are a leader's looks at the next deadline. One goroutine.
type looks struct {
	clock *clusterClock
	last  time.Time
	owed  time.Duration // to be taken out of everybody's account
}

// maxNap is how long a leader may be away between two looks. A longer stop of its process, or of its machine, is time in which nothing
// could commit and perhaps nobody else led: the signs of life that the others noted meanwhile come right behind the
// deadlines that have passed, and must count first. So it is taken out of everybody's account as after an election (I4). It is
// well below the grace that a slot has.
const maxNap = 500 * time.Millisecond

func newLooks(clock *clusterClock) *looks { return &looks{clock: clock, last: clock.wall()} }

// look is called all the time, whatever is under way: what lies between two calls is a stop of this process.
func (l *looks) look() {
	wall := l.clock.wall()
	if away := wall.Sub(l.last); away > maxNap {
		l.owed += away
	}
	l.last = wall
}

// took says how long a command of next took to commit, or to fail: then nothing was done, or the term is over, and what was owed is owed
// still. A tick that took long stood in line with the signs of life that came meanwhile, as if the leader had been away. A resumption
// does not count: where all commits are slow each would call for another one, and nobody would ever be expired.
func (l *looks) took(c queue.Command, d time.Duration, err error) {
	switch {
	case c.Kind == queue.KindTick && d > maxNap:
		l.owed = max(l.owed, d) // a stop in that time is in both
	case c.Kind == queue.KindResume && err != nil:
		l.owed += time.Duration(c.Arg) * time.Millisecond
	}
}

// next is what a look calls for, if anything, when due is the next deadline, 0 for none, and the cluster time of the look.
func (l *looks) next(due int64) (now int64, c queue.Command, ok bool) {
	now = l.clock.now()
	switch {
	case l.owed > 0:
		owed := l.owed
		l.owed = 0
		return now, queue.Command{Kind: queue.KindResume, Arg: uint32(min(owed.Milliseconds(), math.MaxInt32))}, true
	case due != 0 && now >= due:
		return now, queue.Command{Kind: queue.KindTick}, true
	}
	return now, queue.Command{}, false
}

// proposeBatch commits one entry of the batcher's commands.
func (n *Node) proposeBatch(commands []queue.Command) ([]queue.Decision, error) {
	return n.proposeAt(n.clock.now(), commands)
}

// proposeAt commits one entry of commands. The batcher and the ticks call it, each one at a time.
func (n *Node) proposeAt(now int64, commands []queue.Command) ([]queue.Decision, error) {
	term := n.leading.Load()
	entry := queue.AppendBatch(make([]byte, 0, 16+21*len(commands)), queue.Batch{Room: n.batcher.room, Now: now, Commands: commands})
	begun := time.Now()
	future := n.raft.Apply(entry, enqueue)
	if err := n.taken(future); err != nil {
		return nil, unknownFate(err)
	}
	n.metrics.commits.Observe(time.Since(begun).Seconds())
	decisions, ok := future.Response().([]queue.Decision)
	if !ok || len(decisions) != len(commands) {
		return nil, fmt.Errorf("entry %d of %d commands was answered by %T", future.Index(), len(commands), future.Response())
	}
	if n.batcher.idle() { // otherwise the next entry brings the commit index along
		n.notices.send(term, future.Index())
	}
	return decisions, nil
}

// proposeLimits commits a change of limits on the leader and returns the limits then in force, and the
// entry's index.
func (n *Node) proposeLimits(change queue.LimitsChange) (queue.Limits, uint64, error) {
	term := n.leading.Load()
	if term == 0 {
		return queue.Limits{}, 0, errNotLeader
	}
	change.Now = n.clock.now()
	entry := queue.AppendLimits(nil, change)
	if err := n.mayPropose(entry[0]); err != nil {
		return queue.Limits{}, 0, err
	}
	future := n.raft.Apply(entry, enqueue)
	if err := n.taken(future); err != nil {
		return queue.Limits{}, 0, unknownFate(err)
	}
	limits, ok := future.Response().(queue.Limits)
	if !ok {
		return queue.Limits{}, 0, fmt.Errorf("entry %d of limits was answered by %T", future.Index(), future.Response())
	}
	n.notices.send(term, future.Index())
	return limits, future.Index(), nil
}

// propose commits one entry and returns what applying it gave.
func (n *Node) propose(entry []byte) (any, error) {
	if err := n.mayPropose(entry[0]); err != nil {
		return nil, err
	}
	future := n.raft.Apply(entry, enqueue)
	if err := n.taken(future); err != nil {
		return nil, unknownFate(err)
	}
	if err, ok := future.Response().(error); ok {
		return nil, err
	}
	return future.Response(), nil
}

// taken waits for a proposal and returns how it ended, or raft.ErrRaftShutdown once this node ends: the library answers nobody whose
// entry has committed and is still on its way to the state machine when it shuts down.
func (n *Node) taken(future raft.Future) error {
	ended := make(chan error, 1)
	go func() { ended <- future.Error() }()
	err := raft.ErrRaftShutdown
	select {
	case err = <-ended:
	case <-n.ctx.Done():
	}
	n.transfers.proposed(err)
	return err
}

// unknownFate tells the errors after which nothing was done from those after which nobody knows.
func unknownFate(err error) error {
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return fmt.Errorf("%w: %w", errNotLeader, err)
	}
	return err
}

// --- who leads ------------------------------------------------------------------------------

// followLeader keeps track of who leads, until the node ends.
func (n *Node) followLeader() {
	for {
		address, id := n.raft.LeaderWithID()
		n.setLeader(string(address), string(id))
		if n.raft.State() == raft.Shutdown && n.ctx.Err() == nil {
			// It led, and took itself out of the cluster. What its table shows would be out of date from now on.
			n.fail(errors.New("this node was removed from the cluster: to take it in again, start it with an empty data directory"))
		}
		select {
		case <-n.observed:
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) setLeader(address, id string) {
	n.leaderMu.Lock()
	defer n.leaderMu.Unlock()
	if address != "" {
		address = n.addressOf(id, address)
		n.stagger(id)
	}
	if address == n.leaderAddress && id == n.leaderID {
		return
	}
	n.leaderAddress, n.leaderID = address, id
	close(n.leaderChanged)
	n.leaderChanged = make(chan struct{})
	if address == "" {
		n.leaderLost = time.Now()
		n.lost.Store(max(1, int64(n.leaderLost.Sub(n.begun))))
		n.log.Warn("no leader")
		return
	}
	n.leaderLost = time.Time{}
	n.lost.Store(0)
	n.log.Info("leader", "leader", id)
	n.batcher.wake()
}

// stagger makes sure that a vote is split once at most when this leader is lost. A candidate without a majority waits for once to
// twice Raft's election timeout before it stands again; with the same timeout on all nodes two of them may stand at the same
// moment again, and again. Here the first of those that would be left waits for one heartbeat timeout and the others for two:
// the ranges do not meet, so with three nodes there is no second split.
func (n *Node) stagger(leader string) {
	rank := 0
	for _, id := range n.voters() {
		if id != leader && id < n.self.ID {
			rank++
		}
	}
	c := n.raft.ReloadableConfig()
	c.ElectionTimeout = c.HeartbeatTimeout * time.Duration(min(rank, 1)+1)
	if err := n.raft.ReloadConfig(c); err != nil {
		n.log.Warn("the election timeout stays as it was", "err", err) // it is valid, says Raft's documentation
	}
}

// leader is the address of the node that leads, "" when none is known, and a channel that is closed when
// that changes.
func (n *Node) leader() (address string, changed <-chan struct{}) {
	n.leaderMu.Lock()
	defer n.leaderMu.Unlock()
	return n.leaderAddress, n.leaderChanged
}

// leaderless is for how long no leader has been known; zero when one is.
func (n *Node) leaderless() time.Duration {
	n.leaderMu.Lock()
	defer n.leaderMu.Unlock()
	if n.leaderLost.IsZero() {
		return 0
	}
	return max(time.Since(n.leaderLost), 1)
}
