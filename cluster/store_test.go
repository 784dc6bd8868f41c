package cluster

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// disked is a store in a directory; its failures are kept.
func disked(t *testing.T, dir string) (*store, *error) {
	t.Helper()
	failure := new(error)
	s, err := openStore(dir, newRaftLog(slog.New(slog.DiscardHandler)), time.Minute, func(err error) { *failure = err })
	if err != nil {
		t.Fatal(err)
	}
	return s, failure
}

// A killedDisk takes so many writes of the stable store and then no more, as if the process had been killed.
type killedDisk struct {
	disk
	writes int
}

var errKilled = errors.New("killed")

func (d *killedDisk) Set(key, value []byte) error {
	if d.writes--; d.writes < 0 {
		return errKilled
	}
	return d.disk.Set(key, value)
}

func (d *killedDisk) SetUint64(key []byte, value uint64) error {
	if d.writes--; d.writes < 0 {
		return errKilled
	}
	return d.disk.SetUint64(key, value)
}

// Wherever a node is killed while it votes, it comes back with that vote, or with none in that term: never with another one's.
func TestVoteIsWholeOrNotThere(t *testing.T) {
	vote := func(s *store, term uint64, candidate string) error { // as the library does it
		if err := s.SetUint64([]byte("LastVoteTerm"), term); err != nil {
			return err
		}
		return s.Set([]byte("LastVoteCand"), []byte(candidate))
	}
	for writes := range 3 {
		dir := t.TempDir()
		s, _ := disked(t, dir)
		if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), 3), vote(s, 3, "a"), s.SetUint64([]byte("CurrentTerm"), 5)); err != nil {
			t.Fatal(err)
		}
		s.bolt = &killedDisk{s.bolt, writes}
		if err := vote(s, 5, "b"); (err != nil) != (writes < 2) {
			t.Errorf("killed after %d writes: %v", writes, err)
		}
		s.close()
		s, _ = disked(t, dir)
		term, err := s.GetUint64([]byte("LastVoteTerm"))
		if err != nil {
			t.Fatal(err)
		}
		candidate, err := s.Get([]byte("LastVoteCand"))
		if err != nil {
			t.Fatal(err)
		}
		if term == 5 && string(candidate) != "b" || term != 5 && writes == 2 {
			t.Errorf("killed after %d writes the vote is for %s in term %d, it was for b in term 5", writes, candidate, term)
		}
		if s.term.Load() != 5 {
			t.Errorf("the current term is %d, want 5", s.term.Load())
		}
		s.close()
	}
}

// hungDisk writes nothing until it is let go.
type hungDisk struct {
	disk
	free chan struct{}
}

func (d hungDisk) StoreLogs([]*raft.Log) error         { <-d.free; return nil }
func (d hungDisk) DeleteRange(uint64, uint64) error    { <-d.free; return nil }
func (d hungDisk) Set([]byte, []byte) error            { <-d.free; return nil }
func (d hungDisk) SetUint64([]byte, uint64) error      { <-d.free; return nil }
func (d hungDisk) StoreLog(*raft.Log) error            { <-d.free; return nil }
func (d hungDisk) GetLog(uint64, *raft.Log) error      { return raft.ErrLogNotFound }
func (d hungDisk) FirstIndex() (index uint64, _ error) { return 0, nil }

func TestEveryWriteIsWatched(t *testing.T) {
	for name, write := range map[string]func(*store) error{
		"entries":               func(s *store) error { return s.StoreLogs([]*raft.Log{{Index: 1}}) },
		"an entry":              func(s *store) error { return s.StoreLog(&raft.Log{Index: 1}) },
		"a deletion":            func(s *store) error { return s.DeleteRange(1, 2) },
		"a term":                func(s *store) error { return s.SetUint64(keyCurrentTerm, 1) },
		"a vote":                func(s *store) error { return s.Set(keyVoteCandidate, []byte("a")) },
		"the end of a recovery": func(s *store) error { return s.remember(1) },
	} {
		synctest.Test(t, func(t *testing.T) {
			failures := make(chan error, 1)
			d := hungDisk{free: make(chan struct{})}
			s := &store{path: "raft.db", bolt: d, limit: 5 * time.Second, fail: func(err error) { failures <- err }}
			done := make(chan error, 1)
			go func() { done <- write(s) }()
			time.Sleep(4 * time.Second)
			synctest.Wait()
			if len(failures) != 0 {
				t.Errorf("%s: given up after 4 s, want 5", name)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			select {
			case err := <-failures:
				if !strings.Contains(err.Error(), "raft.db") {
					t.Errorf("%s: the error does not name the file: %v", name, err)
				}
			default:
				t.Errorf("%s: a write hangs and the node goes on", name)
			}
			close(d.free)
			<-done
		})
	}
}

// A log that has left the cluster's is dropped before Raft starts, and no other one.
func TestDivergedLog(t *testing.T) {
	type entry struct{ index, term uint64 }
	for name, c := range map[string]struct {
		log     []entry
		dropped bool
	}{
		"it continues the snapshot":               {log: []entry{{9, 2}, {10, 3}, {11, 3}, {12, 4}}},
		"it begins behind the snapshot":           {log: []entry{{11, 3}, {12, 4}}},
		"empty":                                   {},
		"another term at the snapshot's index":    {log: []entry{{9, 2}, {10, 2}, {11, 4}}, dropped: true},
		"its last entry is of an older term":      {log: []entry{{8, 2}, {9, 2}}, dropped: true},
		"it goes on in an older term":             {log: []entry{{11, 2}, {12, 2}}, dropped: true},
		"a tail that never committed, and longer": {log: []entry{{8, 1}, {9, 2}, {10, 2}, {11, 2}, {12, 2}}, dropped: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := disked(t, dir)
			sink, err := s.snapshots.Create(raft.SnapshotVersionMax, 10, 3, raft.Configuration{}, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := sink.Write(persisted(t, settled(t))); err != nil {
				t.Fatal(err)
			}
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
			for _, e := range c.log {
				if err := s.StoreLog(&raft.Log{Index: e.index, Term: e.term}); err != nil {
					t.Fatal(err)
				}
			}
			s.close()
			s, failure := disked(t, dir)
			defer s.close()
			dropped, err := s.dropDivergedLog()
			if dropped != c.dropped || err != nil || *failure != nil {
				t.Errorf("dropped %v, want %v: %v, %v", dropped, c.dropped, err, *failure)
			}
			last, err := s.LastIndex()
			want := uint64(0)
			if n := len(c.log); n > 0 && !c.dropped {
				want = c.log[n-1].index
			}
			if last != want || err != nil {
				t.Errorf("the last entry is %d, want %d, %v", last, want, err)
			}
		})
	}
}

// A node that is sent the same snapshot again and again, and can take no entry after it, says that it has to be started again.
func TestSnapshotsInVain(t *testing.T) {
	data := persisted(t, settled(t)) // of entry 7
	m, failure := machine()
	restore := func() {
		t.Helper()
		if err := m.Restore(io.NopCloser(bytes.NewReader(data))); err != nil {
			t.Fatal(err)
		}
	}
	restore() // at the start
	restore() // once more: an answer was lost
	m.feed(t, 8, arrivals(3000, 6))
	for range 2 {
		restore()
	}
	if *failure != nil {
		t.Fatalf("two in a row, after an entry: %v", *failure)
	}
	restore()
	if *failure == nil || !strings.Contains((*failure).Error(), "start the node again") {
		t.Errorf("three in a row that brought nothing: %v", *failure)
	}
}
