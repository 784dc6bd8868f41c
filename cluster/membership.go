package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Who belongs to the cluster changes by one member at a time. The leader carries a change out, whichever node was asked, and Raft
// takes it only on top of the configuration that it was decided on: a change that another one has overtaken is decided anew.

// ErrRemoved ends a node that is no member any more.
var ErrRemoved = errors.New("this node was removed from the cluster")

// A RefusedError says why a change of members was not made. Nothing was done.
type RefusedError struct {
	Reason  string // names the member, and what to do
	Unknown bool   // there is no such member
}

func (e *RefusedError) Error() string { return e.Reason }

func refusef(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}

// The changes of members.
const (
	opJoin     = "join"
	opPromote  = "promote"
	opRemove   = "remove"
	opTransfer = "transfer"
)

// A change is one request, as it travels to the leader.
type change struct {
	Op        string `json:"op"`
	ID        string `json:"id"`
	Address   string `json:"address,omitempty"`   // of who joins
	Edge      bool   `json:"edge,omitempty"`      // who joins has to be an edge node
	Forwarded bool   `json:"forwarded,omitempty"` // by a member: not to be forwarded again
}

// errOvertaken says that nothing was done because the members have changed meanwhile.
var errOvertaken = errors.New("the members have changed meanwhile")

// Join takes a running node in as a non-voter: one that was started to join and waits. It becomes a voter by itself once it has kept up
// for Timing.Stable, unless it is an edge node; with edge set it has to be one. Joining twice does no harm. Errors of this and of the
// other changes are a *RefusedError, after which nothing was done, ErrNoLeader, ctx's, or one that leaves open what happened.
func (n *Node) Join(ctx context.Context, id, address string, edge bool) error {
	return n.change(ctx, change{Op: opJoin, ID: id, Address: address, Edge: edge})
}

// Promote gives a member its vote without waiting for Timing.Stable. It has to be in reach and must not lag.
func (n *Node) Promote(ctx context.Context, id string) error {
	return n.change(ctx, change{Op: opPromote, ID: id})
}

// Remove takes a member out of the cluster; its process ends by itself as soon as it hears of it. A removal after which the voters in
// reach would be no majority is refused. A leader hands leadership over before it is removed.
func (n *Node) Remove(ctx context.Context, id string) error {
	return n.change(ctx, change{Op: opRemove, ID: id})
}

// Transfer hands leadership to the voter with this id; to the one that is furthest when id is empty. It returns once another node leads.
func (n *Node) Transfer(ctx context.Context, id string) error {
	return n.change(ctx, change{Op: opTransfer, ID: id})
}

// changePause is how long a change waits before it is tried again.
const changePause = 50 * time.Millisecond

// changeTime is the most that a leader works on one change.
func (n *Node) changeTime() time.Duration { return 2 * n.cfg.Timing.RPC }

// change has a change carried out by the node that leads.
func (n *Node) change(ctx context.Context, c change) error {
	if n.cfg.alone() {
		return refusef("%s has no cluster port, so nothing can be changed here: start it with WR_PEERS=%s=HOST:PORT, itself alone, and others can join it", n.self.ID, n.self.ID)
	}
	for {
		err := n.changeOnce(ctx, c)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, errNotLeader) && !errors.Is(err, errOvertaken):
			return err
		case n.leaderless() > leaderless:
			return ErrNoLeader
		}
		select {
		case <-time.After(changePause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

func (n *Node) changeOnce(ctx context.Context, c change) error {
	if n.leading.Load() != 0 {
		return n.carryOut(ctx, c)
	}
	address, _ := n.leader()
	if address == "" || c.Forwarded {
		return errNotLeader
	}
	c.Forwarded = true
	return n.ask(ctx, address, c)
}

// carryOut makes one change on the leader: errNotLeader or errOvertaken when nothing was done and trying again makes sense.
func (n *Node) carryOut(ctx context.Context, c change) error {
	select {
	case n.changing <- struct{}{}:
		defer func() { <-n.changing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.leading.Load() == 0 {
		return errNotLeader
	}
	servers, index, _ := n.roster.committed()
	var err error
	switch c.Op {
	case opJoin:
		err = n.carryOutJoin(ctx, c, servers, index)
	case opPromote:
		err = n.carryOutPromotion(ctx, c.ID, servers, index)
	case opRemove:
		err = n.carryOutRemoval(ctx, c.ID, servers, index)
	case opTransfer:
		err = n.carryOutTransfer(ctx, c.ID, servers)
	default:
		return refusef("this node does not know the change %q: it runs another version of owr", c.Op)
	}
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		n.log.Warn("a change of members is refused", "change", c.Op, "member", c.ID, "err", err)
	}
	return err
}

func (n *Node) carryOutJoin(ctx context.Context, c change, servers []raft.Server, index uint64) error {
	if c.ID == "" {
		return refusef("the node that joins has no id")
	}
	if host, _, err := net.SplitHostPort(c.Address); err != nil || host == "" {
		return refusef("%q, the address of %s, is not HOST:PORT", c.Address, c.ID)
	}
	for _, s := range servers {
		id, address := string(s.ID), n.addressOf(string(s.ID), string(s.Address))
		switch same := address == c.Address; {
		case id == c.ID && same && s.Suffrage == raft.Voter:
			// It asks because its directory is empty: it has forgotten what it promised, and must not vote on (see memory.go).
			return refusef("%s at %s is a voter already. A node that lost its data directory can not vote on as if it remembered: remove it, "+
				"`owr cluster remove %s`, then let it join again", id, address, id)
		case id == c.ID && same:
			return nil
		case id == c.ID:
			return refusef("%s is a member already, at %s: give the node that joins from %s another WR_NODE_ID, or remove the member first", id, address, c.Address)
		case same:
			return refusef("%s is the address of %s already: the node %s needs one of its own, WR_CLUSTER_ADVERTISE", c.Address, id, c.ID)
		}
	}
	if known := n.addressOf(c.ID, c.Address); known != c.Address {
		return refusef("WR_PEERS has %s at %s, not at %s: give the node that joins another WR_NODE_ID", c.ID, known, c.Address)
	}
	if err := n.checkNewcomer(ctx, c); err != nil {
		return err
	}
	if err := settle(n.raft.AddNonvoter(raft.ServerID(c.ID), raft.ServerAddress(c.Address), index, enqueue)); err != nil {
		return err
	}
	n.log.Info("a member has joined", "member", c.ID, "address", c.Address, "votes", false)
	return nil
}

// checkNewcomer asks the node that is to join who it is: a wrong address, or a node that has a past of its own, is found out before the
// cluster counts on it.
func (n *Node) checkNewcomer(ctx context.Context, c change) error {
	client := n.newClient()
	defer client.close()
	client.timeout = n.cfg.Timing.RPC / 2
	said, err := n.ping(ctx, client, c.Address)
	switch {
	case errors.Is(err, errForeign):
		return refusef("%s at %s has been part of another cluster: empty its WR_DATA_DIR and start it with WR_JOIN (%v)", c.ID, c.Address, err)
	case err != nil:
		return refusef("%s can not be reached at %s: it has to run, with WR_JOIN set, and that has to be its WR_CLUSTER_ADVERTISE (%v)", c.ID, c.Address, err)
	case said.id != c.ID:
		return refusef("the node at %s is %s and not %s", c.Address, said.id, c.ID)
	case said.placed:
		return refusef("%s at %s belongs to a cluster already: empty its WR_DATA_DIR and start it with WR_JOIN", c.ID, c.Address)
	case c.Edge && said.wants:
		return refusef("%s asks to become a voter: start it with WR_ROLE=edge, or let it join as one", c.ID)
	}
	return nil
}

func (n *Node) carryOutPromotion(ctx context.Context, id string, servers []raft.Server, index uint64) error {
	s, err := find(servers, id)
	if err != nil || s.Suffrage == raft.Voter {
		return err
	}
	said, err := n.reach(ctx, s)
	switch {
	case err != nil:
		return refusef("%s does not answer, and a voter that is down brings the cluster nearer to its end: %v", id, err)
	case !said.wants:
		return refusef("%s is an edge node and never votes: start it with WR_ROLE=voter first", id)
	}
	if behind := lag(n.fsm.applied.load(), said.applied); behind > closeBehind {
		return refusef("%s is %d entries behind: wait until it has caught up", id, behind)
	}
	// The voters in reach are a majority, or nothing could be changed at all, and with one more in reach they stay one.
	if err := settle(n.raft.AddVoter(s.ID, s.Address, index, enqueue)); err != nil {
		return err
	}
	n.log.Info("a member votes now", "member", id)
	return nil
}

func (n *Node) carryOutRemoval(ctx context.Context, id string, servers []raft.Server, index uint64) error {
	s, err := find(servers, id)
	if err != nil {
		return err
	}
	if s.Suffrage == raft.Voter {
		switch voters, up := n.quorum(ctx, servers, id); {
		case voters == 0:
			return refusef("%s is the only voter: without it there is no cluster. End the process instead", id)
		case up < majority(voters):
			return refusef("without %s there would be %d voters and %d of them in reach, too few for a majority of %d: bring those back that are down, or remove them first",
				id, voters, up, majority(voters))
		}
	}
	if id == n.self.ID {
		// Raft lets a leader remove itself, but then nobody leads until an election.
		if err := n.handTo(ctx, ""); err != nil {
			return fmt.Errorf("hand leadership over before the removal: %w", err)
		}
		return errNotLeader // the next leader is asked
	}
	if err := settle(n.raft.RemoveServer(s.ID, index, enqueue)); err != nil {
		return err
	}
	n.log.Info("a member was removed", "member", id, "address", string(s.Address), "voted", s.Suffrage == raft.Voter)
	return nil
}

func (n *Node) carryOutTransfer(ctx context.Context, id string, servers []raft.Server) error {
	if id == "" {
		if voters, up := n.quorum(ctx, servers, n.self.ID); voters == 0 || up == 0 {
			return refusef("there is no other voter in reach to lead")
		}
		return n.handTo(ctx, "")
	}
	if id == n.self.ID {
		return nil
	}
	s, err := find(servers, id)
	switch {
	case err != nil:
		return err
	case s.Suffrage != raft.Voter:
		return refusef("%s has no vote and can not lead", id)
	}
	if _, err := n.reach(ctx, s); err != nil {
		return refusef("%s does not answer: %v", id, err)
	}
	return n.handTo(ctx, id)
}

// handTo hands leadership to one voter, or to any when id is "", and returns once another node leads.
func (n *Node) handTo(ctx context.Context, id string) error {
	_, changed := n.leader()
	if err := n.transfer(ctx, id); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	for n.raft.State() == raft.Leader || n.leaderless() > 0 {
		select {
		case <-changed:
			_, changed = n.leader()
		case <-ctx.Done():
			return fmt.Errorf("wait for the next leader: %w", ctx.Err())
		}
	}
	return nil
}

// settle waits for a change of the configuration to commit.
func settle(future raft.IndexFuture) error {
	err := future.Error()
	if err != nil && strings.HasPrefix(err.Error(), "configuration changed since") { // the library has no name for it
		return fmt.Errorf("%w: %w", errOvertaken, err)
	}
	if err != nil {
		return unknownFate(err)
	}
	return nil
}

func find(servers []raft.Server, id string) (raft.Server, error) {
	var ids []string
	for _, s := range servers {
		if string(s.ID) == id {
			return s, nil
		}
		ids = append(ids, string(s.ID))
	}
	slices.Sort(ids)
	return raft.Server{}, &RefusedError{Reason: fmt.Sprintf("%q is no member: there are %s", id, strings.Join(ids, ", ")), Unknown: true}
}

func majority(voters int) int { return voters/2 + 1 }

func lag(ours, theirs uint64) uint64 { return ours - min(ours, theirs) }

// reach asks a member right now; what was heard from it lately may be out of date.
func (n *Node) reach(ctx context.Context, s raft.Server) (pong, error) {
	c := n.newClient()
	defer c.close()
	c.timeout = n.cfg.Timing.RPC / 2
	said, err := n.ping(ctx, c, n.addressOf(string(s.ID), string(s.Address)))
	if err == nil && said.id != string(s.ID) {
		err = fmt.Errorf("the node there is %s", said.id)
	}
	return said, err
}

// quorum asks all voters but one, this node counted without asking, and returns how many there are and how many answer.
func (n *Node) quorum(ctx context.Context, servers []raft.Server, without string) (voters, up int) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, s := range servers {
		if s.Suffrage != raft.Voter || string(s.ID) == without {
			continue
		}
		voters++
		if string(s.ID) == n.self.ID {
			mu.Lock()
			up++
			mu.Unlock()
			continue
		}
		wg.Go(func() {
			if _, err := n.reach(ctx, s); err == nil {
				mu.Lock()
				up++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return voters, up
}

// --- what the leader does unasked -----------------------------------------------------------

// tendMembers gives those their vote who came to have one and keep up, and removes non-voters that have been away for long, until ctx,
// the term, ends. It begins with the address of a node that was the whole cluster and now has a port.
func (n *Node) tendMembers(ctx context.Context) {
	if n.cfg.alone() {
		return
	}
	n.readdress()
	begun := time.Now()
	tick := time.NewTicker(min(pingEvery, n.cfg.Timing.Stable, n.cfg.Timing.Forget))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		servers, _, _ := n.roster.committed()
		for _, s := range servers {
			if s.Suffrage == raft.Voter || ctx.Err() != nil {
				continue
			}
			id, heard := string(s.ID), n.pings.of(string(s.ID))
			last := heard.at
			if last.Before(begun) {
				last = begun // what was not heard by this leader is not held against the member
			}
			switch {
			case time.Since(last) > n.cfg.Timing.Forget:
				n.log.Warn("a member without a vote has been away for too long", "member", id, "away", time.Since(last).Round(time.Second))
				n.tend(ctx, change{Op: opRemove, ID: id})
			case heard.wants && !heard.since.IsZero() && time.Since(heard.since) >= n.cfg.Timing.Stable && time.Since(begun) >= n.cfg.Timing.Stable:
				n.tend(ctx, change{Op: opPromote, ID: id})
			}
		}
	}
}

// tend makes one change that nobody asked for; a refusal is tried again in a while.
func (n *Node) tend(ctx context.Context, c change) {
	limit, cancel := context.WithTimeout(ctx, n.changeTime())
	defer cancel()
	if err := n.carryOut(limit, c); err != nil && ctx.Err() == nil {
		n.log.Debug("a change of members was not made", "change", c.Op, "member", c.ID, "err", err)
	}
}

// readdress corrects this node's own address where it is the only member: one that began without a cluster port left behind an
// address at which nobody who joins would find it.
func (n *Node) readdress() {
	servers, index, _ := n.roster.committed()
	if len(servers) != 1 || string(servers[0].Address) == n.self.Address {
		return
	}
	if err := settle(n.raft.AddVoter(servers[0].ID, raft.ServerAddress(n.self.Address), index, enqueue)); err != nil {
		n.log.Warn("the node's own address stays as it was", "address", string(servers[0].Address), "err", err)
	}
}
