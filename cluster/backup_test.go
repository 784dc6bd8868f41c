package cluster

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/queue"
)

// backupOf is a backup of an fsm, as of one index and term.
func backupOf(t testing.TB, f *fsm, index, term uint64) []byte {
	t.Helper()
	content := persisted(t, f)
	meta := &raft.SnapshotMeta{Index: index, Term: term, Size: int64(len(content))}
	b := newBackup("v1.2.3", f.identity.Load().cluster, time.UnixMilli(3000), meta, io.NopCloser(bytes.NewReader(content)))
	data, err := io.ReadAll(b.Body)
	if err != nil || int64(len(data)) != b.Size {
		t.Fatalf("%d bytes of %d, %v", len(data), b.Size, err)
	}
	return data
}

func TestArchiveHoldsWhatTheNodeHeld(t *testing.T) {
	f := raised(t)
	a, err := ReadArchive(bytes.NewReader(backupOf(t, f, 12, 4)))
	if err != nil {
		t.Fatal(err)
	}
	if a.Version != "owr v1.2.3" || a.Cluster != f.identity.Load().cluster.String() || a.Index != 12 || a.term != 4 || a.Taken.UnixMilli() != 3000 {
		t.Errorf("its head is %+v", a)
	}
	if a.Counts != f.table.Load().Stats().Counts || a.rooms[7].Sum() != f.rooms[7].Sum() || a.identity.level != FeatureLevel || len(a.identity.keys) != 3 {
		t.Errorf("its content is %+v", a)
	}
}

func TestBadBackupIsRefused(t *testing.T) {
	data := backupOf(t, raised(t), 12, 4)
	refused := func(what string, bad []byte, says string) {
		t.Helper()
		_, err := ReadArchive(bytes.NewReader(bad))
		if !errors.Is(err, ErrBadBackup) && !errors.Is(err, errNewer) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want one that says %q", what, err, says)
		}
	}
	for n := range data {
		bad := bytes.Clone(data)
		bad[n] ^= 0x10
		refused("a wrong byte", bad, "")
		refused("cut off", data[:n], "cut off")
	}
	bad := bytes.Clone(data)
	bad[len(bad)/2] ^= 0x01
	refused("a wrong byte in the middle", bad, "damaged")
	refused("something behind it", append(bytes.Clone(data), 0), "follows its end")
	refused("a web page", []byte("<html>not found"), "nobody of us")
	refused("a snapshot", persisted(t, raised(t)), "nobody of us")
	refused("a later format", []byte("owr backup 2\nowr v7\n"), "owr v7")
}

func TestRestoreNeedsAnEmptyDirectory(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "mine")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := ReadArchive(bytes.NewReader(backupOf(t, settled(t), 9, 4)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Restore(Config{NodeID: "n1", DataDir: dir}); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "empty") {
		t.Errorf("restored over something: %v", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 || list[0].Name() != "mine" {
		t.Errorf("the directory now holds %v, %v", list, err)
	}
}

// A backup is used some time after it was made. Nobody could be seen in that time, so it does not count.
func TestTimeWithoutAClusterDoesNotCount(t *testing.T) {
	const away = 6 * time.Hour
	then := time.Now().Add(-away).UnixMilli()
	f, _ := machine()
	f.feed(t, 1, appendCluster(nil, clusterID{1}))
	f.feed(t, 2, arrivals(then, 1, 2))
	limits := queue.DefaultLimits()
	limits.MaxActive = 1
	f.feed(t, 3, queue.AppendLimits(nil, queue.LimitsChange{Now: then + 10_000, Base: true, Set: queue.AllFields, Values: limits}))
	f.feed(t, 4, arrivals(then+20_000, 3))
	a, err := ReadArchive(bytes.NewReader(backupOf(t, f, 4, 2)))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		NodeID: "n1", Listen: "127.0.0.1:0", DataDir: filepath.Join(t.TempDir(), "data"), Limits: limits,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), OnFailure: func(err error) { t.Error(err) },
	}
	if _, err := a.Restore(cfg); err != nil {
		t.Fatal(err)
	}
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); n.Ready() != nil; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(n.Ready())
		}
	}
	if left := n.Stats().NextDeadline - n.Now(); left < 30_000 || left > 60_000 {
		t.Errorf("the next deadline is in %d ms; when the backup was made it was in 40 s", left)
	}
	for i := 1; i <= 3; i++ {
		if v := n.Lookup(visitor(i)); v.State == queue.Unknown {
			t.Errorf("visitor %d is gone", i)
		}
	}
}

func FuzzReadArchive(f *testing.F) {
	f.Add(backupOf(f, raised(f), 12, 4))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = ReadArchive(bytes.NewReader(data)) // refused or taken: it must not panic
	})
}
