package cluster

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// machine is an fsm whose failures are kept.
func machine() (*fsm, *error) {
	var failure error
	return newFSM(newClusterClock(time.Now), func(err error) { failure = err }), &failure
}

func visitor(n int) queue.Token { return queue.MakeToken([16]byte{byte(n), 1}) }

func (f *fsm) feed(t testing.TB, index uint64, data []byte) any {
	t.Helper()
	return f.Apply(&raft.Log{Index: index, Data: data})
}

func arrivals(now int64, visitors ...int) []byte {
	b := queue.Batch{Now: now}
	for _, n := range visitors {
		b.Commands = append(b.Commands, queue.Command{Kind: queue.KindArrive, Token: visitor(n)})
	}
	return queue.AppendBatch(nil, b)
}

// settled is an fsm with everything that a snapshot holds.
func settled(t testing.TB) *fsm {
	f, failure := machine()
	limits := queue.DefaultLimits()
	limits.MaxActive = 2
	f.feed(t, 1, appendCluster(nil, clusterID{1, 2, 3}))
	f.feed(t, 2, appendKey(nil, seal.Key{ID: 1, Secret: [32]byte{1}}))
	f.feed(t, 3, appendKey(nil, seal.Key{ID: 2, Secret: [32]byte{2}}))
	f.feed(t, 4, appendKey(nil, seal.Key{ID: 3, Secret: [32]byte{3}}))
	f.feed(t, 5, queue.AppendLimits(nil, queue.LimitsChange{Now: 1000, Base: true, Set: queue.AllFields, Values: limits}))
	f.feed(t, 6, arrivals(2000, 1, 2, 3, 4, 5))
	other := queue.AppendBatch(nil, queue.Batch{Room: 7, Now: 2000, Commands: []queue.Command{{Kind: queue.KindArrive, Token: visitor(9)}}})
	f.feed(t, 7, other)
	if *failure != nil {
		t.Fatal(*failure)
	}
	return f
}

type sink struct {
	bytes.Buffer
	canceled bool
}

func (*sink) ID() string      { return "test" }
func (*sink) Close() error    { return nil }
func (s *sink) Cancel() error { s.canceled = true; return nil }

func persisted(t testing.TB, f *fsm) []byte {
	t.Helper()
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var out sink
	if err := snap.Persist(&out); err != nil || out.canceled {
		t.Fatal(err)
	}
	snap.Release()
	return out.Bytes()
}

func TestSnapshotHoldsEverything(t *testing.T) {
	f := settled(t)
	g, _ := machine()
	g.feed(t, 1, arrivals(1, 50, 51)) // what was there before a restore is gone after it
	if err := g.Restore(io.NopCloser(bytes.NewReader(persisted(t, f)))); err != nil {
		t.Fatal(err)
	}
	if got, want := g.table.Load().Stats(), f.table.Load().Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	if got, want := g.rooms[7].Sum(), f.rooms[7].Sum(); got != want || len(g.rooms) != 2 {
		t.Errorf("the other room has sum %x of %x, in %d rooms", got, want, len(g.rooms))
	}
	id := g.identity.Load()
	if id.cluster != (clusterID{1, 2, 3}) || len(id.keys) != 2 || id.keys[0].ID != 3 || id.keys[1].ID != 2 {
		t.Errorf("identity %+v, want the cluster's id and the last two keys, the newest first", id)
	}
	if g.applied.load() != 7 {
		t.Errorf("applied %d, want 7", g.applied.load())
	}
	next := arrivals(3000, 6, 1, 7)
	f.feed(t, 8, next)
	g.feed(t, 8, next)
	if got, want := g.table.Load().Stats(), f.table.Load().Stats(); got != want {
		t.Errorf("one entry on: stats %+v, want %+v (I7)", got, want)
	}
}

func TestDamagedSnapshotChangesNothing(t *testing.T) {
	data := persisted(t, settled(t))
	for n := range data {
		bad := bytes.Clone(data)
		bad[n] ^= 0x01
		g, _ := machine()
		g.feed(t, 1, arrivals(1, 50))
		before := g.table.Load()
		if err := g.Restore(io.NopCloser(bytes.NewReader(bad))); err == nil {
			t.Fatalf("byte %d is wrong: no error", n)
		}
		if g.table.Load() != before {
			t.Fatalf("byte %d is wrong: the table was replaced all the same", n)
		}
	}
}

func TestIdentityIsGivenOnce(t *testing.T) {
	f := settled(t)
	f.feed(t, 8, appendCluster(nil, clusterID{9}))
	if id := f.identity.Load().cluster; id != (clusterID{1, 2, 3}) {
		t.Errorf("cluster id %s, want the first one", id)
	}
}

// An entry that this binary can not read ends the node; skipping it would let the replica drift.
func TestUnknownEntryStopsTheNode(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty": {}, "of the future": {99, 1}, "a cut batch": arrivals(1, 1)[:20], "a cut key": {entryKey, 1}, "a cut id": {entryCluster},
		"limits of another size": {queue.EntryLimits, 0},
	} {
		f, failure := machine()
		f.feed(t, 1, arrivals(1000, 1))
		if _, ok := f.feed(t, 2, data).(error); !ok || *failure == nil {
			t.Errorf("%s: the node went on", name)
		}
		if err, ok := f.feed(t, 3, arrivals(2000, 2)).(error); !ok || !errors.Is(err, errBadEntry) {
			t.Errorf("%s: the next entry was applied", name)
		}
		if f.applied.load() != 1 || f.table.Load().Lookup(visitor(2)).State != queue.Unknown {
			t.Errorf("%s: applied %d after it", name, f.applied.load())
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add(arrivals(1000, 1, 2))
	f.Add(appendKey(nil, seal.Key{ID: 1}))
	f.Add(appendCluster(nil, clusterID{1}))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, failure := machine()
		if _, failed := m.feed(t, 1, data).(error); failed != (*failure != nil) {
			t.Fatal("an error that did not stop the node, or the other way round")
		}
	})
}

func FuzzReadSnapshot(f *testing.F) {
	f.Add(persisted(f, settled(f)))
	f.Fuzz(func(_ *testing.T, data []byte) {
		m, _ := machine()
		_ = m.Restore(io.NopCloser(bytes.NewReader(data))) // refused or taken: it must not panic
	})
}

func TestClusterTimeNeverRunsBack(t *testing.T) {
	c := newClusterClock(time.Now)
	if d := c.now() - time.Now().UnixMilli(); d < -1000 || d > 1000 {
		t.Errorf("before the first entry it is %d ms off this node's clock", d)
	}
	c.observe(5_000_000)
	if now := c.now(); now < 5_000_000 || now > 5_010_000 {
		t.Errorf("after an entry of 5000 s it is %d", now)
	}
	c.observe(4_000_000) // an entry that came late, or a leader whose clock is behind
	if now := c.now(); now < 5_000_000 {
		t.Errorf("an older entry set it back to %d", now)
	}
}

// A leader that was away takes the time out of everybody's account before it lets anybody expire.
func TestALeaderThatWasAwayWaitsWithExpiry(t *testing.T) {
	now := time.Now()
	clock := newClusterClock(func() time.Time { return now })
	clock.observe(1_000_000)
	l := newLooks(clock)
	for _, c := range []struct {
		pass time.Duration
		due  int64
		want queue.Command
		none bool
	}{
		{50 * time.Millisecond, 0, queue.Command{}, true},
		{50 * time.Millisecond, 1_000_101, queue.Command{}, true},
		{50 * time.Millisecond, 1_000_101, queue.Command{Kind: queue.KindTick}, false},
		{3 * time.Second, 1_000_200, queue.Command{Kind: queue.KindResume, Arg: 3000}, false},
		{50 * time.Millisecond, 1_000_200, queue.Command{Kind: queue.KindTick}, false},
	} {
		now = now.Add(c.pass)
		l.look()
		if _, got, ok := l.next(c.due); got != c.want || ok == c.none {
			t.Errorf("%v later, due %d: got %+v %v, want %+v", c.pass, c.due, got, ok, c.want)
		}
	}
}

// The first entry of a term counts as time without a leader whatever the clocks are apart, but not what passed under the old leader.
func TestResumptionDoesNotTrustClocks(t *testing.T) {
	now := time.Now()
	clock := newClusterClock(func() time.Time { return now })
	clock.observe(1_000_000)
	now = now.Add(time.Second) // idle, and the leader lives
	contact := now
	now = now.Add(600 * time.Millisecond)
	if at, gap := resumeAt(clock, 1_000_000, contact); at != 1_001_600 || gap != 600 {
		t.Errorf("resumes at %d after a gap of %d ms, want 1001600 and 600", at, gap)
	}
	// The newest entry is of a leader whose clock was 5 s behind this one.
	clock.observe(996_700)
	if at, gap := resumeAt(clock, 996_700, contact); at != 1_001_600 || gap != 4900 {
		t.Errorf("resumes at %d after a gap of %d ms, want 1001600 and 4900", at, gap)
	}
}
