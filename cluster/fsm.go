package cluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// fsm is what Raft replicates: the rooms, the cluster's id and its proof keys. It decodes, applies
// and hands back; it has no policy. Raft calls Apply, Snapshot and Restore from one goroutine.
type fsm struct {
	clock   *clusterClock
	fail    func(error)
	version string // of this binary: who writes its snapshots

	table    atomic.Pointer[queue.Table] // the default room's; replaced as a whole by Restore
	identity atomic.Pointer[identity]    // replaced as a whole when it changes
	applied  watermark
	sums     sums

	rooms  map[queue.RoomID]*queue.Table // Raft's goroutine only
	cmds   []queue.Command               // decode buffer; Raft's goroutine only
	broken bool                          // an entry could not be read; Raft's goroutine only
	sent   restores                      // the snapshots that came; Raft's goroutine only
}

// identity is what changes a few times in the life of a cluster.
type identity struct {
	cluster clusterID
	keys    seal.Ring // newest first
	level   int       // see featureLevel
	lastKey uint8     // the number that the newest key of an entryKeys got; 0: there was none
}

func newFSM(clock *clusterClock, fail func(error)) *fsm {
	f := &fsm{clock: clock, fail: fail}
	f.reset(map[queue.RoomID]*queue.Table{}, &identity{})
	return f
}

func (f *fsm) reset(rooms map[queue.RoomID]*queue.Table, id *identity) {
	f.rooms = rooms
	f.table.Store(f.room(queue.DefaultRoom))
	f.identity.Store(id)
}

// room returns the table of a room; the first entry that names a room makes it, on every replica.
func (f *fsm) room(id queue.RoomID) *queue.Table {
	t, ok := f.rooms[id]
	if !ok {
		t = queue.NewTable(queue.DefaultLimits())
		f.rooms[id] = t
	}
	return t
}

// Apply implements raft.FSM. What it returns is the response of the entry's future on the leader:
// []queue.Decision for a batch, queue.Limits for limits, an error for an entry that it can not read.
func (f *fsm) Apply(l *raft.Log) any {
	if f.broken {
		return errBadEntry
	}
	response, err := f.apply(l.Index, l.Data)
	if err != nil {
		// The entry is committed and we cannot read it: this binary is older than the log. Skipping
		// it would let this replica drift (I7), so nothing is applied any more and the node ends.
		f.broken = true
		err = fmt.Errorf("raft entry %d: %w: run the version of owr that the other nodes run", l.Index, err)
		f.fail(err)
		return err
	}
	if s := f.table.Load().Stats(); s.Index == l.Index {
		f.sums.note(s.Index, s.Sum)
	}
	f.applied.raise(l.Index)
	f.sent.moved = true
	return response
}

func (f *fsm) apply(index uint64, data []byte) (any, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: it is empty", errBadEntry)
	}
	switch data[0] {
	case queue.EntryBatch:
		batch, err := queue.DecodeBatch(data, f.cmds)
		if err != nil {
			return nil, err
		}
		f.cmds = batch.Commands
		batch.Index = index
		// The future keeps the decisions, so they get a slice of their own.
		decisions := f.room(batch.Room).Apply(batch, make([]queue.Decision, 0, len(batch.Commands)))
		f.clock.observe(batch.Now)
		return decisions, nil
	case queue.EntryLimits, queue.EntryLaterLimits:
		change, err := queue.DecodeLimits(data)
		if err != nil {
			return nil, err
		}
		change.Index = index
		limits := f.room(change.Room).ApplyLimits(change)
		f.clock.observe(change.Now)
		return limits, nil
	case entryCluster:
		id, err := decodeCluster(data)
		if err != nil {
			return nil, err
		}
		if next := *f.identity.Load(); next.cluster == (clusterID{}) {
			next.cluster = id
			f.identity.Store(&next)
		}
		return nil, nil
	case entryKey:
		key, err := decodeKey(data)
		if err != nil {
			return nil, err
		}
		next := *f.identity.Load()
		ring := append(seal.Ring{key}, next.keys...)
		next.keys = ring[:min(len(ring), ringSize)]
		f.identity.Store(&next)
		return nil, nil
	case entryLevel:
		level, err := decodeLevel(data)
		if err != nil {
			return nil, err
		}
		next := *f.identity.Load()
		if next.featureLevel() < 3 && level >= 3 {
			next.keys = slices.Clone(next.keys)
			for i := range next.keys {
				next.keys[i].Made = f.table.Load().Stats().Now // nobody wrote down when it was made: it is no younger
			}
		}
		next.level = max(next.level, level)
		f.identity.Store(&next)
		return nil, nil
	case entryKeys:
		next := *f.identity.Load()
		refused, err := next.changeKeys(data)
		if err != nil {
			return nil, err
		}
		if refused == nil {
			f.identity.Store(&next)
		}
		return keyAnswer{refused}, nil
	}
	if data[0]&ignorable != 0 {
		return nil, nil
	}
	return nil, fmt.Errorf("%w: it begins with %d", errBadEntry, data[0])
}

// --- snapshots -----------------------------------------------------------------------------

// A snapshot is its format (appendFormat), the applied index, the cluster's id, from format 2 on the feature
// level, the key ring, from format 3 on the number of the last key, the number of rooms, each room's id and table, and a CRC-32C
// over all of it. Each format is written at the level of its number, so that every version that may be in the cluster can read it.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshot is the state at one index, copied; Persist writes it beside Apply.
type snapshot struct {
	index    uint64
	version  string
	identity *identity
	ids      []queue.RoomID
	rooms    []*queue.Frozen
}

// Snapshot implements raft.FSM. Apply waits for it, so it only copies. Raft counts an entry that could not be read as
// applied; a snapshot without it would hide that.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.broken {
		return nil, errBadEntry
	}
	s := &snapshot{index: f.applied.load(), version: f.version, identity: f.identity.Load()}
	for _, id := range slices.Sorted(maps.Keys(f.rooms)) {
		s.ids = append(s.ids, id)
		s.rooms = append(s.rooms, f.rooms[id].Freeze())
	}
	return s, nil
}

// Persist implements raft.FSMSnapshot.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.write(sink); err != nil {
		if cancel := sink.Cancel(); cancel != nil {
			return fmt.Errorf("write snapshot: %w (and cancel it: %w)", err, cancel)
		}
		return fmt.Errorf("write snapshot: %w", err)
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() {}

func (s *snapshot) write(w io.Writer) error {
	sum := crc32.New(castagnoli)
	both := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	format := min(s.identity.featureLevel(), snapshotFormat)
	head := appendFormat(nil, snapshotKind, format, snapshotNamed, s.version)
	head = appendUint64(head, s.index)
	head = append(head, s.identity.cluster[:]...)
	if format > 1 {
		head = binary.BigEndian.AppendUint16(head, uint16(s.identity.level))
	}
	head = appendRing(head, s.identity.keys, format)
	if format >= 3 {
		head = append(head, s.identity.lastKey)
	}
	head = binary.BigEndian.AppendUint16(head, uint16(len(s.ids)))
	if _, err := both.Write(head); err != nil {
		return err
	}
	for i, id := range s.ids {
		if _, err := both.Write(binary.BigEndian.AppendUint16(nil, uint16(id))); err != nil {
			return err
		}
		if _, err := s.rooms[i].WriteTo(both); err != nil {
			return err
		}
	}
	if err := both.Flush(); err != nil {
		return err
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

// Restore implements raft.FSM. The state is replaced only when the whole snapshot was read and its
// checksum fits.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	index, id, rooms, err := readSnapshot(r)
	if err != nil {
		err = fmt.Errorf("read snapshot: %w", err)
		if errors.Is(err, errNewer) {
			f.fail(err) // the leader would send it again and again
		}
		return err
	}
	f.reset(rooms, id)
	if now := f.table.Load().Stats().Now; now != 0 {
		f.clock.observe(now)
	}
	f.applied.raise(index)
	if err := f.sent.restored(index); err != nil {
		f.fail(err)
	}
	return nil
}

func readSnapshot(r io.Reader) (index uint64, id *identity, rooms map[queue.RoomID]*queue.Table, err error) {
	sum := crc32.New(castagnoli)
	buffered := bufio.NewReaderSize(r, 64<<10)
	body := io.TeeReader(buffered, sum)
	format, version, err := readFormat(body, snapshotKind, snapshotFormat, snapshotNamed)
	if err != nil {
		return 0, nil, nil, err
	}
	var fixed [8 + 16]byte
	if _, err := io.ReadFull(body, fixed[:]); err != nil {
		return 0, nil, nil, err
	}
	index = binary.BigEndian.Uint64(fixed[:])
	id = &identity{cluster: clusterID(fixed[8:])}
	var number [2]byte
	if format > 1 {
		if _, err := io.ReadFull(body, number[:]); err != nil {
			return 0, nil, nil, err
		}
		if id.level = int(binary.BigEndian.Uint16(number[:])); id.level > FeatureLevel {
			return 0, nil, nil, fmt.Errorf("%w: %s, at feature level %d, and this version knows levels up to %d: run that version or a later one",
				errNewer, version, id.level, FeatureLevel)
		}
	}
	ring := make([]byte, 1)
	if _, err := io.ReadFull(body, ring); err != nil {
		return 0, nil, nil, err
	}
	size, most := keyBytes(format)
	if int(ring[0]) > most {
		return 0, nil, nil, fmt.Errorf("key ring of %d keys", ring[0])
	}
	ring = append(ring, make([]byte, size*int(ring[0]))...)
	if _, err := io.ReadFull(body, ring[1:]); err != nil {
		return 0, nil, nil, err
	}
	if id.keys, _, err = cutRing(ring, format); err != nil {
		return 0, nil, nil, err
	}
	if format >= 3 {
		if _, err := io.ReadFull(body, number[:1]); err != nil {
			return 0, nil, nil, err
		}
		id.lastKey = number[0]
	}
	if _, err := io.ReadFull(body, number[:]); err != nil {
		return 0, nil, nil, err
	}
	rooms = map[queue.RoomID]*queue.Table{}
	for range binary.BigEndian.Uint16(number[:]) {
		if _, err := io.ReadFull(body, number[:]); err != nil {
			return 0, nil, nil, err
		}
		table, err := queue.ReadTable(body)
		if err != nil {
			return 0, nil, nil, err
		}
		rooms[queue.RoomID(binary.BigEndian.Uint16(number[:]))] = table
	}
	want := sum.Sum32()
	var got [4]byte
	if _, err := io.ReadFull(buffered, got[:]); err != nil {
		return 0, nil, nil, err
	}
	if binary.BigEndian.Uint32(got[:]) != want {
		return 0, nil, nil, fmt.Errorf("checksum %08x, the content has %08x", got, want)
	}
	return index, id, rooms, nil
}

// --- applied index -------------------------------------------------------------------------

// A watermark is an index that only rises, and those who wait for it. One goroutine raises it.
type watermark struct {
	index   atomic.Uint64
	waiting atomic.Int32

	mu     sync.Mutex
	raised chan struct{} // closed at the next raise; nil while nobody waits
}

func (w *watermark) load() uint64 { return w.index.Load() }

func (w *watermark) raise(index uint64) {
	w.index.Store(index)
	if w.waiting.Load() == 0 {
		return
	}
	w.mu.Lock()
	if w.raised != nil {
		close(w.raised)
		w.raised = nil
	}
	w.mu.Unlock()
}

// wait returns once the index is reached, or ctx ends.
func (w *watermark) wait(ctx context.Context, index uint64) error {
	if w.load() >= index {
		return nil
	}
	w.waiting.Add(1)
	defer w.waiting.Add(-1)
	for {
		w.mu.Lock()
		if w.raised == nil {
			w.raised = make(chan struct{})
		}
		raised := w.raised
		w.mu.Unlock()
		if w.load() >= index {
			return nil
		}
		select {
		case <-raised:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
