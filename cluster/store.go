package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	logFile       = "raft.db"
	snapshotDir   = "snapshots" // Raft's name
	snapshotsKept = 2
	logCacheSize  = 512
)

// store is the node's disk: Raft's log and votes in one bbolt file, snapshots beside it. Every error of a
// write ends the node, and so does a write that hangs (watch): a node that can not keep its word must not go
// on giving it.
type store struct {
	path      string
	bolt      disk
	snapshots *raft.FileSnapshotStore
	newest    *raft.SnapshotMeta // the one that Raft will start from; nil: there is none
	limit     time.Duration      // for one write
	fail      func(error)

	term     atomic.Uint64 // Raft's current term, as on disk
	voteTerm uint64        // of the vote that is being written, see vote.go; Raft's goroutine only
}

// A disk is what the store needs of raft-boltdb.
type disk interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// openStore opens or creates the store in dir. It refuses a directory whose parts do not belong together
// rather than begin with an empty table.
func openStore(dir string, logger hclog.Logger, limit time.Duration, fail func(error)) (s *store, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the data directory: %w", err)
	}
	path := filepath.Join(dir, logFile)
	_, statErr := os.Stat(path)
	fresh := errors.Is(statErr, fs.ErrNotExist)

	// bbolt panics on a file whose pages make no sense.
	defer func() {
		if p := recover(); p != nil {
			err = damaged(path, fmt.Errorf("%v", p))
		}
	}()
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout:        5 * time.Second, // a node that still runs holds the lock
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
		MsgpackUseNewTimeFormat: true,
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: another process holds it: end that node first, or use another WR_DATA_DIR", path)
	case err != nil:
		return nil, damaged(path, err)
	}
	s = &store{path: path, bolt: bolt, limit: limit, fail: fail}
	s.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, logger)
	if err != nil {
		bolt.Close()
		return nil, fmt.Errorf("open the snapshots in %s: %w", dir, err)
	}
	if err := s.fits(dir, fresh); err != nil {
		bolt.Close()
		return nil, err
	}
	if err := s.whole(); err != nil {
		bolt.Close()
		return nil, err
	}
	term, err := bolt.GetUint64(keyCurrentTerm)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		bolt.Close()
		return nil, damaged(path, err)
	}
	s.term.Store(term)
	return s, nil
}

func damaged(path string, err error) error {
	return fmt.Errorf("open %s: %w: the file is damaged; with the other nodes alive, remove this node's whole data directory and start it again, "+
		"it will be sent everything; as a single node, restore the directory from a backup", path, err)
}

// fits checks that log and snapshots continue one another, and that the snapshot can be read.
func (s *store) fits(dir string, fresh bool) error {
	list, err := s.snapshots.List() // the newest first
	if err != nil {
		return fmt.Errorf("list the snapshots in %s: %w", dir, err)
	}
	if fresh && len(list) > 0 {
		return fmt.Errorf("%s is gone but there are snapshots beside it: the node's votes are lost, and voting again could elect two leaders; "+
			"restore the file, or remove the whole directory %s", s.path, dir)
	}
	first, err := s.bolt.FirstIndex()
	if err != nil {
		return damaged(s.path, err)
	}
	// Raft goes back to an older snapshot when it can not read the newest. That is right as long as the log
	// still reaches back to it; otherwise entries would be missing, and with them visitors.
	usable, unread := uint64(0), error(nil)
	for _, meta := range list {
		if err := s.readable(meta.ID); err != nil {
			if path := filepath.Join(dir, "snapshots", meta.ID); errors.Is(err, errNewer) {
				return fmt.Errorf("read %s: %w", path, err)
			}
			unread = errors.Join(unread, damaged(filepath.Join(dir, "snapshots", meta.ID), err))
			continue
		}
		usable, s.newest = meta.Index, meta
		break
	}
	switch {
	case first <= usable+1 && (usable > 0 || unread == nil):
		return nil
	case unread != nil:
		return unread
	}
	return fmt.Errorf("the log in %s begins at entry %d and the newest snapshot in %s ends at %d: entries between them are missing, the table can not "+
		"be made from them; restore the snapshots, or remove the whole directory and let the other nodes send everything", s.path, first, dir, usable)
}

// readable reads a snapshot to its end; opening it checks the file's checksum.
func (s *store) readable(id string) error {
	_, r, err := s.snapshots.Open(id)
	if err != nil {
		return err
	}
	defer r.Close()
	_, _, _, err = readSnapshot(r)
	return err
}

func (s *store) close() error { return s.bolt.Close() }

// size is that of the log's file in bytes; 0 when it can not be told.
func (s *store) size() int64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// snapshotAge is how old the newest snapshot is, in seconds; -1 when there is none. The library's names of snapshots end in the time.
func (s *store) snapshotAge(now time.Time) float64 {
	list, err := s.snapshots.List()
	if err != nil || len(list) == 0 {
		return -1
	}
	made, err := strconv.ParseInt(list[0].ID[strings.LastIndexByte(list[0].ID, '-')+1:], 10, 64)
	if err != nil {
		return -1
	}
	return now.Sub(time.UnixMilli(made)).Seconds()
}

// guard turns an error, or a panic of bbolt on a damaged page, into the end of the node.
func (s *store) guard(doing string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%v", p)
	}
	if *err != nil && !errors.Is(*err, raft.ErrLogNotFound) && !errors.Is(*err, raftboltdb.ErrKeyNotFound) {
		s.fail(fmt.Errorf("%s %s: %w: free some space or mend the disk, then start the node again; nothing that was told to a visitor is lost", doing, s.path, *err))
	}
}

// FirstIndex implements raft.LogStore.
func (s *store) FirstIndex() (index uint64, err error) {
	defer s.guard("read", &err)
	return s.bolt.FirstIndex()
}

// LastIndex implements raft.LogStore.
func (s *store) LastIndex() (index uint64, err error) {
	defer s.guard("read", &err)
	return s.bolt.LastIndex()
}

// GetLog implements raft.LogStore.
func (s *store) GetLog(index uint64, log *raft.Log) (err error) {
	defer s.guard("read", &err)
	if err = s.bolt.GetLog(index, log); err == nil {
		err = check(log)
	}
	return err
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (s *store) StoreLogs(logs []*raft.Log) (err error) {
	defer s.guard("write", &err)
	defer s.watch("write entries to")()
	return s.bolt.StoreLogs(stamped(logs))
}

// DeleteRange implements raft.LogStore.
func (s *store) DeleteRange(first, last uint64) (err error) {
	defer s.guard("write", &err)
	defer s.watch("delete entries from")()
	return s.bolt.DeleteRange(first, last)
}

// Set implements raft.StableStore.
func (s *store) Set(key, value []byte) (err error) {
	defer s.guard("write", &err)
	defer s.watch("write to")()
	if bytes.Equal(key, keyVoteCandidate) {
		return s.writeVote(s.voteTerm, value)
	}
	return s.bolt.Set(key, value)
}

// Get implements raft.StableStore.
func (s *store) Get(key []byte) (value []byte, err error) {
	defer s.guard("read", &err)
	return s.bolt.Get(key)
}

// SetUint64 implements raft.StableStore.
func (s *store) SetUint64(key []byte, value uint64) (err error) {
	if bytes.Equal(key, keyVoteTerm) {
		s.voteTerm = value // the candidate comes next, and both are written then
		return nil
	}
	defer s.guard("write", &err)
	defer s.watch("write to")()
	if err := s.bolt.SetUint64(key, value); err != nil {
		return err
	}
	if bytes.Equal(key, keyCurrentTerm) {
		s.term.Store(value)
	}
	return nil
}

// GetUint64 implements raft.StableStore.
func (s *store) GetUint64(key []byte) (value uint64, err error) {
	defer s.guard("read", &err)
	return s.bolt.GetUint64(key)
}
