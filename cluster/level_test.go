package cluster

import (
	"bytes"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/openwaitingroom/owr/queue"
)

// raised is a settled fsm at the newest level.
func raised(t testing.TB) *fsm {
	f := settled(t)
	f.version = "v9.8 of a test"
	f.feed(t, 8, appendLevel(nil, FeatureLevel))
	limits := queue.LimitsChange{Now: 2100, Base: true, Set: queue.FieldFirstHitTTL | queue.FieldMaxActive, Values: queue.Limits{MaxActive: 4, FirstHitTTL: 20e9}}
	f.feed(t, 9, queue.AppendLimits(nil, limits))
	commands := []queue.Command{
		{Kind: queue.KindLeave, Token: visitor(3)},
		{Kind: queue.KindLeave, Token: visitor(4)},
		{Kind: queue.KindLeave, Token: visitor(5)},
		{Kind: queue.KindEnter, Token: visitor(6)},
		{Kind: queue.KindStay, Token: visitor(6), Arg: 3},
	}
	f.feed(t, 10, queue.AppendBatch(nil, queue.Batch{Now: 2200, Commands: commands}))
	f.feed(t, 11, appendRotation(nil, 2300, [32]byte{4}))
	if c := f.table.Load().Stats().Counts; c.Unconfirmed != 1 {
		t.Fatalf("counts %+v, want one that is unconfirmed", c)
	}
	return f
}

// restored is an fsm after a snapshot, what Restore answered, and what ends the node.
func restored(data []byte) (f *fsm, err, failure error) {
	f, failed := machine()
	err = f.Restore(io.NopCloser(bytes.NewReader(data)))
	return f, err, *failed
}

func TestSnapshotFormatFollowsTheLevel(t *testing.T) {
	if data := persisted(t, settled(t)); !bytes.HasPrefix(data, []byte("owr snapshot 1\n\x00")) {
		t.Errorf("at level 1 it begins with %q, which a version from before the levels can not read", data[:20])
	}
	f := raised(t)
	data := persisted(t, f)
	if !bytes.HasPrefix(data, []byte("owr snapshot 3\nowr v9.8 of a test\n\x00")) {
		t.Errorf("at the newest level it begins with %q", data[:40])
	}
	g, err, _ := restored(data)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := g.table.Load().Stats(), f.table.Load().Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	if got, want := g.identity.Load(), f.identity.Load(); got.featureLevel() != FeatureLevel || !reflect.DeepEqual(got, want) || got.lastKey != 4 || len(got.keys) != 3 {
		t.Errorf("identity %+v, want %+v", got, want)
	}
	for n := range data {
		bad := bytes.Clone(data)
		bad[n] ^= 0x01
		if _, err, _ := restored(bad); err == nil {
			t.Errorf("byte %d is wrong: no error", n)
		}
	}
}

// The file was written by the version before the levels, of the fsm that settled makes.
func TestSnapshotOfTheFirstFormatIsRead(t *testing.T) {
	data, err := os.ReadFile("testdata/snapshot.1")
	if err != nil {
		t.Fatal(err)
	}
	f, err, _ := restored(data)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.table.Load().Stats(), settled(t).table.Load().Stats(); got != want || f.identity.Load().featureLevel() != 1 {
		t.Errorf("stats %+v at level %d, want %+v at 1", got, f.identity.Load().featureLevel(), want)
	}
	if !bytes.Equal(persisted(t, f), data) {
		t.Error("written again it is another file")
	}
}

func TestNewerSnapshotNamesItsWriter(t *testing.T) {
	high := raised(t)
	id := *high.identity.Load()
	id.level = FeatureLevel + 1
	high.identity.Store(&id)
	for name, data := range map[string][]byte{
		"format": []byte("owr snapshot 4\nowr v9.8 of a test\nwhat nobody knows yet"),
		"level":  persisted(t, high),
	} {
		_, err, failure := restored(data)
		if !errors.Is(err, errNewer) || !strings.Contains(err.Error(), "v9.8 of a test") || !strings.Contains(err.Error(), "run that version") {
			t.Errorf("%s: %v; want who wrote it and what to do", name, err)
		}
		if failure == nil {
			t.Errorf("%s: the node goes on, and is sent the snapshot again and again", name)
		}
	}
	if _, err, failure := restored([]byte("something else altogether")); err == nil || errors.Is(err, errNewer) || failure != nil {
		t.Errorf("nobody of us: %v, %v", err, failure)
	}
}

// At level 2 a snapshot is what the version with that level reads, key ring included.
func TestSnapshotOfTheSecondFormat(t *testing.T) {
	f := settled(t)
	f.version = "v1"
	f.feed(t, 8, appendLevel(nil, 2))
	data := persisted(t, f)
	if want := persisted(t, settled(t)); !bytes.HasPrefix(data, []byte("owr snapshot 2\nowr v1\n")) || len(data) != len(want)+len("owr v1\n")+2 {
		t.Errorf("at level 2 it has %d bytes and begins with %q", len(data), data[:30])
	}
	if g, err, _ := restored(data); err != nil || g.identity.Load().featureLevel() != 2 || !bytes.Equal(persisted(t, named(g, "v1")), data) {
		t.Errorf("read again: %v", err)
	}
}

func named(f *fsm, version string) *fsm { f.version = version; return f }

func TestUnknownIgnorableEntryIsPassedOver(t *testing.T) {
	f, failure := machine()
	f.feed(t, 1, arrivals(1000, 1))
	before := f.table.Load().Sum()
	if got := f.feed(t, 2, []byte{0xff, 1, 2, 3}); got != nil || *failure != nil {
		t.Fatalf("answered %v, failure %v", got, *failure)
	}
	if f.applied.load() != 2 || f.table.Load().Sum() != before {
		t.Errorf("applied %d, want 2 and the table as it was", f.applied.load())
	}
	if _, failed := f.feed(t, 3, []byte{0x7f, 1}).(error); !failed {
		t.Error("an unknown entry that may not be ignored was")
	}
	if _, err := f.Snapshot(); err == nil {
		t.Error("a replica that has left out an entry makes a snapshot")
	}
}

func TestLevelNeverFalls(t *testing.T) {
	f, failure := machine()
	if level := f.identity.Load().featureLevel(); level != 1 {
		t.Errorf("at first it is %d, want 1", level)
	}
	f.feed(t, 1, appendLevel(nil, 2))
	f.feed(t, 2, appendLevel(nil, 1))
	f.feed(t, 3, appendCluster(nil, clusterID{1}))
	if level := f.identity.Load().featureLevel(); level != 2 || *failure != nil {
		t.Errorf("level %d, %v; want 2", level, *failure)
	}
	f.feed(t, 4, appendLevel(nil, FeatureLevel+1))
	if *failure == nil || !strings.Contains((*failure).Error(), "run the version of owr that the other nodes run") {
		t.Errorf("a level that this version does not know: %v", *failure)
	}
}

func TestNewEntriesWaitForTheLevel(t *testing.T) {
	f, _ := machine()
	n := &Node{fsm: f}
	for _, kind := range []byte{queue.EntryBatch, queue.EntryLimits, entryCluster, entryKey, entryLevel} {
		if err := n.mayPropose(kind); err != nil {
			t.Errorf("kind %d at level 1: %v", kind, err)
		}
	}
	for level := 1; level < 3; level++ {
		f.feed(t, uint64(level), appendLevel(nil, level))
		for _, kind := range []byte{queue.EntryLaterLimits, entryKeys, entryKeys + 1} {
			if err := n.mayPropose(kind); !errors.Is(err, errLevel) {
				t.Errorf("the new kind %d at level %d: %v, want %v", kind, level, err, errLevel)
			}
		}
	}
	f.feed(t, 9, appendLevel(nil, 3))
	for _, kind := range []byte{queue.EntryLaterLimits, entryKeys} {
		if err := n.mayPropose(kind); err != nil {
			t.Errorf("the new kind %d at level 3: %v", kind, err)
		}
	}
}

// A voter of an older version does not know the command, so what it stands for is asked for in the words of the first level.
func TestReservationsWaitForTheLevel(t *testing.T) {
	f, _ := machine()
	n := &Node{fsm: f}
	c := queue.Command{Kind: queue.KindReserve, Token: visitor(1)}
	f.feed(t, 1, appendLevel(nil, 3))
	if got := n.spell(c); got.Kind != queue.KindClaim || got.Token != c.Token {
		t.Errorf("at level 3 it is %+v", got)
	}
	if got := n.spell(queue.Command{Kind: queue.KindAsk, Token: visitor(1), Arg: 7}); got.Kind != queue.KindArrive || got.Arg != 0 {
		t.Errorf("at level 3 it is %+v", got)
	}
	f.feed(t, 2, appendLevel(nil, 4))
	for _, c := range []queue.Command{c, {Kind: queue.KindAsk, Token: visitor(1), Arg: 7}, {Kind: queue.KindClaim, Token: visitor(1)}, {Kind: queue.KindArrive, Token: visitor(1)}} {
		if got := n.spell(c); got != c {
			t.Errorf("at level 4 %+v is %+v", c, got)
		}
	}
}
