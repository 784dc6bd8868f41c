package cluster

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/openwaitingroom/owr/queue"
)

// A backup is its format (appendFormat), Raft's index and term as of which it was made, the cluster's id, the time in
// Unix milliseconds by the clock of the node that made it, the size of the snapshot, the snapshot, and a SHA-256 over all
// of it. The proof keys are in the snapshot, so whoever reads a backup can write cookies.
const (
	backupKind   = "owr backup "
	backupFormat = 1
	backupFixed  = 8 + 8 + 16 + 8 + 8
	maxSnapshot  = 1 << 40 // bytes
)

// ErrBadBackup is the answer of ReadArchive to bytes that are not one whole backup.
var ErrBadBackup = errors.New("not a backup that can be used")

// A Backup is a backup on its way: Size bytes in Body, which its reader closes.
type Backup struct {
	Name string // for a file
	Size int64  // bytes
	Body io.ReadCloser
}

// Backup makes a snapshot of this node's replica and answers a backup of it. The node goes on. It refuses while the
// replica is one from before a restart, since that may be long out of date.
func (n *Node) Backup() (*Backup, error) {
	if !n.fresh.Load() {
		return nil, errors.New("the table is not up to date yet: ask another node")
	}
	n.backups.Lock() // the store keeps the last two, so another backup must not take this one's away before it is open
	defer n.backups.Unlock()
	future := n.raft.Snapshot()
	if err := future.Error(); err != nil {
		return nil, fmt.Errorf("make a snapshot: %w", err)
	}
	meta, file, err := future.Open()
	if err != nil {
		return nil, fmt.Errorf("open the snapshot: %w", err)
	}
	return newBackup(n.cfg.Version, n.fsm.identity.Load().cluster, time.Now(), meta, file), nil
}

func newBackup(version string, cluster clusterID, now time.Time, meta *raft.SnapshotMeta, content io.ReadCloser) *Backup {
	head := appendFormat(nil, backupKind, backupFormat, 1, version)
	head = appendUint64(appendUint64(head, meta.Index), meta.Term)
	head = append(head, cluster[:]...)
	head = appendUint64(appendUint64(head, uint64(now.UnixMilli())), uint64(meta.Size))
	sum := sha256.New()
	whole := io.TeeReader(io.MultiReader(bytes.NewReader(head), content), sum)
	return &Backup{
		Name: fmt.Sprintf("owr-%.8s-%d.backup", cluster, meta.Index),
		Size: int64(len(head)) + meta.Size + sha256.Size,
		Body: readCloser{io.MultiReader(whole, &trailer{sum: sum}), content},
	}
}

type readCloser struct {
	io.Reader
	io.Closer
}

// A trailer reads as the sum of what was read before it.
type trailer struct {
	sum  hash.Hash
	rest *bytes.Reader // nil before the first read
}

func (t *trailer) Read(p []byte) (int, error) {
	if t.rest == nil {
		t.rest = bytes.NewReader(t.sum.Sum(nil))
	}
	return t.rest.Read(p)
}

// An Archive is a backup that was read to its end and found whole.
type Archive struct {
	Version string // who wrote it
	Cluster string // id
	Index   uint64 // of the newest entry in it
	Taken   time.Time
	Counts  queue.Counts

	term     uint64
	sum      [sha256.Size]byte
	identity *identity
	rooms    map[queue.RoomID]*queue.Table
}

// ReadArchive reads a backup, and nothing may follow it. Its errors are ErrBadBackup, and those that say which version of
// owr can read it.
func ReadArchive(r io.Reader) (*Archive, error) {
	a, err := readArchive(bufio.NewReaderSize(r, 64<<10))
	switch {
	case err == nil:
		return a, nil
	case errors.Is(err, errNewer):
		return nil, err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: it is cut off", ErrBadBackup)
	}
	return nil, fmt.Errorf("%w: %w", ErrBadBackup, err)
}

func readArchive(r *bufio.Reader) (*Archive, error) {
	sum := sha256.New()
	body := io.TeeReader(r, sum)
	_, version, err := readFormat(body, backupKind, backupFormat, 1)
	if err != nil {
		return nil, err
	}
	var fixed [backupFixed]byte
	if _, err := io.ReadFull(body, fixed[:]); err != nil {
		return nil, err
	}
	number := func(at int) uint64 { return binary.BigEndian.Uint64(fixed[at:]) }
	cluster, size := clusterID(fixed[16:32]), number(40)
	if size > maxSnapshot {
		return nil, fmt.Errorf("it is damaged: a snapshot of %d bytes", size)
	}
	content := &io.LimitedReader{R: body, N: int64(size)}
	index, id, rooms, broken := readSnapshot(content)
	if errors.Is(broken, errNewer) {
		return nil, broken
	}
	// A part that is missing and a part that is wrong call for different things: look for the end before complaining.
	if _, err := io.Copy(io.Discard, content); err != nil {
		return nil, err
	}
	a := &Archive{
		Version: version, Cluster: cluster.String(), Index: number(0), Taken: time.UnixMilli(int64(number(32))),
		term: number(8), sum: [sha256.Size]byte(sum.Sum(nil)), identity: id, rooms: rooms,
	}
	var stored [sha256.Size]byte
	if _, err := io.ReadFull(r, stored[:]); err != nil {
		return nil, err
	}
	switch {
	case stored != a.sum:
		return nil, errors.New("it is damaged: its checksum does not fit its content")
	case broken != nil:
		return nil, fmt.Errorf("its snapshot: %w", broken)
	case id.cluster != cluster || index > a.Index || a.Index > maxIndex || a.term > maxTerm:
		return nil, errors.New("its head and its snapshot do not belong together")
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows its end")
	}
	if t := rooms[queue.DefaultRoom]; t != nil {
		a.Counts = t.Stats().Counts
	}
	return a, nil
}
