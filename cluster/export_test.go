package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/openwaitingroom/owr/queue"
)

// TakeSnapshot has Raft write a snapshot and cut the log now.
func (n *Node) TakeSnapshot() error { return n.raft.Snapshot().Error() }

// ElectionTimeout is for how long, and at most twice, this node waits for votes before it stands again.
func (n *Node) ElectionTimeout() time.Duration { return n.raft.ReloadableConfig().ElectionTimeout }

// HandTo gives leadership to another node, without asking first whether that is wise.
func (n *Node) HandTo(ctx context.Context, to string) error { return n.transfer(ctx, to) }

// RemoveSelf takes a leader out of the cluster.
func (n *Node) RemoveSelf() error {
	return n.raft.RemoveServer(raft.ServerID(n.self.ID), 0, 0).Error()
}

// IsLeader reports what Raft says of itself.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// Free makes the node see so much free space.
func (c *Config) Free(free func() uint64) {
	c.free = func(string) (uint64, error) { return free(), nil }
}

// Every is how often the files are looked at.
func (t *TLS) Every(d time.Duration) { t.every = d }

// AskAs sends another node a frame that only id may send: "ping", "join", "remove", "commands" or "keys".
func (n *Node) AskAs(ctx context.Context, address, id, what string) error {
	kind, payload := framePing, []byte(id)
	switch what {
	case "join":
		kind, payload = frameChange, []byte(`{"op":"join","id":"`+id+`","address":"127.0.0.1:1"}`)
	case "remove":
		kind, payload = frameChange, []byte(`{"op":"remove","id":"`+id+`"}`)
	case "commands":
		kind, payload = frameCommands, queue.AppendCommands([]byte{0, 0}, []queue.Command{{Kind: queue.KindArrive, Token: visitor(1)}})
	case "keys":
		kind, payload = frameKeys, []byte(`{"op":1}`)
	}
	c := n.newClient()
	defer c.close()
	_, err := c.call(ctx, address, kind, payload)
	return err
}

// A Stall holds up writes of entries while it lasts.
type Stall struct {
	mu      sync.Mutex
	blocked chan struct{} // closed by End; nil: nothing is held up
}

// Begin holds up every write from now on.
func (s *Stall) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked = make(chan struct{})
}

// End lets them go on.
func (s *Stall) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked != nil {
		close(s.blocked)
		s.blocked = nil
	}
}

func (s *Stall) wait() {
	s.mu.Lock()
	blocked := s.blocked
	s.mu.Unlock()
	if blocked != nil {
		<-blocked
	}
}

// Stall puts a disk that can hang under the node.
func (c *Config) Stall() *Stall {
	s := new(Stall)
	c.disk = func(d disk) disk { return stallingDisk{d, s} }
	return s
}

type stallingDisk struct {
	disk
	stall *Stall
}

func (d stallingDisk) StoreLogs(logs []*raft.Log) error {
	d.stall.wait()
	return d.disk.StoreLogs(logs)
}

// Whole reports whether the node remembers what it promised, and so votes.
func (n *Node) Whole() bool { return n.memory.whole.Load() }

// Belongs is the cluster that this node shows at the cluster port.
func (n *Node) Belongs() string { return n.belongs().String() }

// LowestLevel asks all voters for their feature level.
func (n *Node) LowestLevel(ctx context.Context) (level int, behind string) {
	clients := map[raft.ServerID]*client{}
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	return n.lowestLevel(ctx, clients)
}

// ProposeRaw commits any bytes.
func (n *Node) ProposeRaw(entry []byte) error { return n.raft.Apply(entry, enqueue).Error() }

// Differing is how many members' tables differ from this node's.
func (n *Node) Differing() int { return n.fsm.sums.differing() }

// PretendToLack is an answer of the leader that has so many entries more.
func (n *Node) PretendToLack(entries uint64) {
	n.leaderMu.Lock()
	id := n.leaderID
	n.leaderMu.Unlock()
	n.pings.note(id, pong{applied: n.fsm.applied.load() + entries}, n.fsm.applied.load())
}

// Disk is what the metrics say of it.
func (n *Node) Disk(now time.Time) (size int64, age float64) {
	return n.store.size(), n.store.snapshotAge(now)
}

// PretendLevel makes this node's replica one of a cluster at that level.
func (n *Node) PretendLevel(level int) {
	id := *n.fsm.identity.Load()
	id.level = level
	n.fsm.identity.Store(&id)
}

// HoldTouches keeps the node from handing in what it notes, until release.
func (n *Node) HoldTouches() (release func()) {
	n.touches.flushing <- struct{}{}
	return func() { <-n.touches.flushing }
}

const MaxVigil = maxVigil

// Disown takes the name out of the directory of a node that does not run.
func Disown(dir string) error {
	s, err := openStore(dir, newRaftLog(slog.New(slog.DiscardHandler)), time.Minute, func(error) {})
	if err != nil {
		return err
	}
	return errors.Join(s.disown(), s.close())
}

// Forge puts another batch in the place of the newest one in the log of a node that does not run.
func Forge(dir string, instead queue.Command) error {
	s, err := openStore(dir, newRaftLog(slog.New(slog.DiscardHandler)), time.Minute, func(error) {})
	if err != nil {
		return err
	}
	defer s.close()
	last, err := s.LastIndex()
	for ; err == nil && last > 0; last-- {
		var entry raft.Log
		if err = s.GetLog(last, &entry); err == nil && entry.Type == raft.LogCommand && entry.Data[0] == queue.EntryBatch {
			b, err := queue.DecodeBatch(entry.Data, nil)
			if err != nil {
				return err
			}
			b.Commands = []queue.Command{instead}
			entry.Data = queue.AppendBatch(nil, b)
			return s.StoreLog(&entry)
		}
	}
	return errors.Join(err, errors.New("there is no batch"))
}
