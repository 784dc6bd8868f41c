package cluster

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// A cluster that starts from a backup goes on far behind what the old one did after the backup was made. Cookies carry the
// index as of which their visitor was told something (I6); a restored table below it would look outdated to all of them.
// Nobody had an index that high, so 2^40 is never reached by the old cluster, and 2^53 not by restoring it again. The
// terms jump as well, so that a node of the old cluster never looks newer, and so do the tickets.
const (
	indexJump  = 1 << 40
	termJump   = 1 << 20
	ticketJump = 1 << 20 // more visitors than line up between a backup and its use
	maxIndex   = 1<<53 - indexJump
	maxTerm    = 1<<53 - termJump

	termKey = "CurrentTerm" // of Raft's stable store
	newFile = ".new"
)

// Restore writes the data directory of one node of a new cluster: cfg's NodeID, addresses, Peers and DataDir count. The
// directory must not be there or must be empty. From one backup and the same Peers every node gets the same table, index,
// term and cluster id, so the directories made on three nodes are one cluster. It answers the new cluster's id: not the old
// one's, because what the old cluster did since the backup is not part of this one.
func (a *Archive) Restore(cfg Config) (cluster string, err error) {
	if err := empty(cfg.DataDir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return "", fmt.Errorf("create the data directory: %w", err)
	}
	path := filepath.Join(cfg.DataDir, logFile)
	defer func() {
		if err != nil { // the directory was empty: leave it so
			os.RemoveAll(filepath.Join(cfg.DataDir, snapshotDir))
			os.Remove(path + newFile)
			os.Remove(path)
		}
	}()
	id := *a.identity
	derived := sha256.Sum256(append([]byte("owr restore 1\x00"), a.sum[:]...))
	id.cluster = clusterID(derived[:16])
	content := &snapshot{index: a.Index + indexJump, version: cfg.Version, identity: &id}
	for _, room := range slices.Sorted(maps.Keys(a.rooms)) {
		content.ids, content.rooms = append(content.ids, room), append(content.rooms, a.rooms[room].FreezeAhead(content.index, ticketJump))
	}
	// The snapshot first: a directory with one and without a log is refused by a start, should this be the last thing done.
	if err := writeSnapshot(cfg, content, a.term+termJump); err != nil {
		return "", err
	}
	if err := writeTerm(path+newFile, a.term+termJump); err != nil {
		return "", err
	}
	if err := os.Rename(path+newFile, path); err != nil {
		return "", err
	}
	return id.cluster.String(), syncDir(cfg.DataDir)
}

// empty refuses a directory that holds anything.
func empty(dir string) error {
	list, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look into the data directory: %w", err)
	case len(list) > 0:
		return fmt.Errorf("%s is not empty (%s is in it): a restore makes a new cluster and needs an empty data directory; end the node and move what is there away", dir, list[0].Name())
	}
	return nil
}

func writeSnapshot(cfg Config, content *snapshot, term uint64) error {
	store, err := raft.NewFileSnapshotStoreWithLogger(cfg.DataDir, snapshotsKept, newRaftLog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return fmt.Errorf("open the snapshots in %s: %w", cfg.DataDir, err)
	}
	_, addresses := raft.NewInmemTransport("")
	members := (&Node{cfg: cfg, self: cfg.self()}).configuration()
	sink, err := store.Create(raft.SnapshotVersionMax, content.index, term, members, 1, addresses)
	if err != nil {
		return fmt.Errorf("write to %s: %w", cfg.DataDir, err)
	}
	if err := content.Persist(sink); err != nil {
		return fmt.Errorf("write to %s: %w", cfg.DataDir, err)
	}
	return nil
}

// writeTerm makes a log without entries whose node has been in that term: a lower one must never follow the snapshot's.
func writeTerm(path string, term uint64) error {
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path: path, BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}, MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return errors.Join(bolt.SetUint64([]byte(termKey), term), bolt.Close())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
