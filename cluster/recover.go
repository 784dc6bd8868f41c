package cluster

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/openwaitingroom/owr/queue"
)

// A Survivor is what the data directory of one node holds, after the majority is lost for good.
type Survivor struct {
	Members []Peer // the voters as the directory knows them
	Index   uint64 // of its newest entry
	Counts  queue.Counts
	Peers   []Peer // the voters of the cluster that goes on

	cfg    Config
	raft   *raft.Config
	store  *store
	failed error // of the disk
}

// OpenSurvivor reads the data directory of a node that does not run and changes nothing. cfg's NodeID and DataDir count, and its
// Peers: the cluster that goes on; none is this node alone, at the address that it had. Close the survivor.
func OpenSurvivor(cfg Config) (*Survivor, error) {
	path := filepath.Join(cfg.DataDir, logFile)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("there is no node to recover in %s: %w", cfg.DataDir, err)
	}
	logger := newRaftLog(slog.New(slog.DiscardHandler))
	s := &Survivor{cfg: cfg, raft: raft.DefaultConfig()}
	s.raft.LocalID, s.raft.Logger = raft.ServerID(cfg.NodeID), logger
	var err error
	if s.store, err = openStore(cfg.DataDir, logger, Timing{}.withDefaults(true).Disk, func(err error) { s.failed = err }); err != nil {
		return nil, err
	}
	if err := s.survey(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close gives the directory back.
func (s *Survivor) Close() error { return s.store.close() }

// survey does what a start would do, on a table of its own: read the newest snapshot and every entry after it. Raft's recovery goes
// on past an entry that can not be read, and would lose what is in it; here that is an error.
func (s *Survivor) survey() error {
	var unread error
	f := newFSM(newClusterClock(time.Now), func(err error) { unread = err })
	list, err := s.store.snapshots.List() // the newest first
	if err != nil {
		return fmt.Errorf("list the snapshots in %s: %w", s.cfg.DataDir, err)
	}
	var members raft.Configuration
	var from io.ReadCloser
	for _, meta := range list {
		if s.store.readable(meta.ID) != nil {
			continue // openStore has made sure that the log reaches back to an older one
		}
		if _, from, err = s.store.snapshots.Open(meta.ID); err == nil {
			err = f.Restore(from)
		}
		if err != nil {
			return fmt.Errorf("read the snapshot %s: %w", meta.ID, err)
		}
		members, s.Index = meta.Configuration, meta.Index
		break
	}
	last, err := s.store.LastIndex()
	if err != nil {
		return err
	}
	for index := s.Index + 1; index <= last; index++ {
		var entry raft.Log
		if err := s.store.GetLog(index, &entry); err != nil {
			return fmt.Errorf("read entry %d of %s: %w", index, s.store.path, err)
		}
		switch entry.Type {
		case raft.LogCommand:
			f.Apply(&entry)
		case raft.LogConfiguration:
			members = raft.DecodeConfiguration(entry.Data)
		}
		if unread != nil {
			return unread
		}
		s.Index = index
	}
	s.Counts = f.table.Load().Stats().Counts
	return s.elect(members)
}

// elect says who votes from now on.
func (s *Survivor) elect(members raft.Configuration) error {
	var names []string
	self := Peer{}
	for _, m := range members.Servers {
		p := Peer{string(m.ID), string(m.Address)}
		names = append(names, p.ID)
		if p.ID == s.cfg.NodeID {
			self = p
		}
		if m.Suffrage == raft.Voter {
			s.Members = append(s.Members, p)
		}
	}
	if self.ID == "" {
		return fmt.Errorf("%s is the directory of one of %s, and not of %s", s.cfg.DataDir, strings.Join(names, ", "), s.cfg.NodeID)
	}
	s.Peers = s.cfg.Peers
	if len(s.Peers) == 0 {
		s.Peers = []Peer{self}
	}
	if !slices.ContainsFunc(s.Peers, func(p Peer) bool { return p.ID == s.cfg.NodeID }) {
		return fmt.Errorf("the peers do not name the node whose directory this is, %s", s.cfg.NodeID)
	}
	return nil
}

// Recover makes the directory that of the cluster of s.Peers, with everything that is in it: all entries that committed, and
// those at its end of which nobody knows. The cluster has an id of its own from then on: should the lost nodes turn up with their old
// data, they are a majority of the old one, and would take back what was told since.
func (s *Survivor) Recover() error {
	cfg := s.cfg
	cfg.Peers = s.Peers
	f := newFSM(newClusterClock(time.Now), func(err error) { s.failed = err })
	f.version = cfg.Version
	_, addresses := raft.NewInmemTransport("")
	members := (&Node{cfg: cfg, self: cfg.self()}).configuration()
	another := renamed{fsm: f}
	rand.Read(another.to[:])
	if err := raft.RecoverCluster(s.raft, another, s.store, s.store, s.store.snapshots, addresses, members); err != nil {
		return fmt.Errorf("recover %s: %w", cfg.DataDir, errors.Join(err, s.failed))
	}
	if err := errors.Join(s.store.Set(clusterKey, another.to[:]), s.store.disown()); err != nil {
		return fmt.Errorf("recover %s: %w", cfg.DataDir, err)
	}
	return s.failed
}

// renamed is the state machine of a cluster that becomes another one with its next snapshot.
type renamed struct {
	*fsm
	to clusterID
}

func (r renamed) Snapshot() (raft.FSMSnapshot, error) {
	id := *r.identity.Load()
	id.cluster = r.to
	r.identity.Store(&id)
	return r.fsm.Snapshot()
}
