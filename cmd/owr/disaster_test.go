package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/queue"
)

// stopped is the directory of a node alone that has run, with one visitor inside and one in line, and a backup of it.
func stopped(t *testing.T) (dir string, data []byte) {
	t.Helper()
	limits := queue.DefaultLimits()
	limits.MaxActive = 1
	dir = filepath.Join(t.TempDir(), "data")
	n, err := cluster.Open(cluster.Config{
		NodeID: "n1", Listen: "127.0.0.1:7000", DataDir: dir, Limits: limits, Version: "v1.2.3",
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), OnFailure: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for i := range byte(2) {
		if _, err := n.Submit(t.Context(), queue.Command{Kind: queue.KindArrive, Token: queue.MakeToken([16]byte{i + 1})}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := n.Backup()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Body.Close()
	if data, err = io.ReadAll(b.Body); err != nil {
		t.Fatal(err)
	}
	return dir, data
}

// serves answers GET /v1/backup with a body, and with less of it than it says when it is cut.
func serves(t *testing.T, token string, body []byte, cut int) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/backup" || token != "" && r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body[:len(body)-cut])
		if cut > 0 {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestBackupIsWrittenWhole(t *testing.T) {
	_, data := stopped(t)
	out := filepath.Join(t.TempDir(), "owr.backup")
	address := serves(t, "t0ken", data, 0)
	code, stdout, stderr := command(t, []string{"WR_ADMIN_TOKEN=t0ken", "WR_ADMIN_LISTEN=" + address}, "backup", "--out", out)
	if code != 0 || !strings.Contains(stdout, "1 inside, 0 released, 1 queued") || !strings.Contains(stdout, "holds the keys") || stderr != "" {
		t.Fatalf("exit %d, %q, %q", code, stdout, stderr)
	}
	info, err := os.Stat(out)
	if got, _ := os.ReadFile(out); err != nil || info.Mode() != 0o600 || !bytes.Equal(got, data) {
		t.Errorf("%v, mode %v, %d bytes of %d", err, info.Mode(), len(got), len(data))
	}
	code, stdout, stderr = command(t, nil, "backup", "--admin", address, "--admin-token", "t0ken")
	if code != 0 || stdout != string(data) || !strings.Contains(stderr, "1 queued") {
		t.Errorf("to standard output: exit %d, %d bytes of %d, %q", code, len(stdout), len(data), stderr)
	}
}

func TestBadBackupTakesNoName(t *testing.T) {
	_, data := stopped(t)
	wrong := bytes.Clone(data)
	wrong[len(wrong)/2] ^= 1
	for name, c := range map[string]struct{ address, says string }{
		"cut off":       {serves(t, "", data, 40), "cut off"},
		"ends too soon": {serves(t, "", data[:len(data)-40], 0), "cut off"},
		"damaged":       {serves(t, "", wrong, 0), "damaged"},
		"foreign":       {serves(t, "", []byte("<html>"), 0), "nobody of us"},
		"refused":       {serves(t, "t0ken", data, 0), "401"},
	} {
		dir := t.TempDir()
		out := filepath.Join(dir, "owr.backup")
		if err := os.WriteFile(out, []byte("the last one"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := command(t, nil, "backup", "--admin", c.address, "--out", out)
		if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: exit %d, %q, %q; want 1 and one line with %q", name, code, stdout, stderr, c.says)
		}
		list, _ := os.ReadDir(dir)
		if got, _ := os.ReadFile(out); string(got) != "the last one" || len(list) != 1 {
			t.Errorf("%s: the file is now %q, in a directory of %v", name, got, list)
		}
		if code, _, _ := command(t, nil, "backup", "--admin", c.address); code != 1 {
			t.Errorf("%s, to standard output: exit %d", name, code)
		}
	}
}

func TestRestoreTakesOnlyAWholeBackup(t *testing.T) {
	_, data := stopped(t)
	wrong := bytes.Clone(data)
	wrong[len(wrong)/2] ^= 1
	for name, c := range map[string]struct {
		content []byte
		says    string
	}{
		"cut off": {data[:len(data)-1], "cut off"}, "damaged": {wrong, "damaged"}, "foreign": {[]byte("redis dump"), "nobody of us"}, "empty": {nil, "cut off"},
	} {
		dir := t.TempDir()
		file, to := filepath.Join(dir, "file"), filepath.Join(dir, "data")
		if err := os.WriteFile(file, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := command(t, []string{"WR_NODE_ID=n1"}, "restore", "--from", file, "--data-dir", to)
		if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.says) || !strings.Contains(stderr, "nothing was written") {
			t.Errorf("%s: exit %d, %q, %q; want 1 and one line with %q", name, code, stdout, stderr, c.says)
		}
		if _, err := os.Stat(to); !os.IsNotExist(err) {
			t.Errorf("%s: there is something in %s", name, to)
		}
	}
}

func TestRestoreMakesADirectoryOnce(t *testing.T) {
	_, data := stopped(t)
	dir := t.TempDir()
	file, to := filepath.Join(dir, "file"), filepath.Join(dir, "data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"WR_NODE_ID=n2", "WR_DATA_DIR=" + to, "WR_PEERS=n1=127.0.0.1:7001,n2=127.0.0.1:7000"}
	code, stdout, stderr := command(t, environ, "restore", "--from", file)
	if code != 0 || !strings.Contains(stdout, "1 inside, 0 released, 1 queued") || !strings.Contains(stdout, "each of n1, n2") {
		t.Fatalf("exit %d, %q, %q", code, stdout, stderr)
	}
	code, _, stderr = command(t, environ, "restore", "--from", file)
	if code != 1 || !strings.Contains(stderr, to+" is not empty") {
		t.Errorf("the second time: exit %d, %q", code, stderr)
	}
	code, stdout, stderr = command(t, environ, "recover")
	if code != 2 || !strings.Contains(stdout, "one of n1, n2") || !strings.Contains(stderr, "--yes") {
		t.Errorf("a look at it: exit %d, %q, %q", code, stdout, stderr)
	}
}

func TestRecoverNeedsAYes(t *testing.T) {
	dir, _ := stopped(t)
	environ := []string{"WR_NODE_ID=n1", "WR_DATA_DIR=" + dir, "WR_PEERS=n1=127.0.0.1:7000,n2=127.0.0.1:7001,n3=127.0.0.1:7002"}
	code, stdout, stderr := command(t, environ, "recover")
	if code != 2 || !strings.Contains(stdout, "1 inside, 0 released, 1 queued") || !strings.Contains(stderr, "nothing was done") {
		t.Errorf("without --yes: exit %d, %q, %q", code, stdout, stderr)
	}
	// WR_PEERS names the lost ones, so it does not count.
	code, stdout, stderr = command(t, environ, "recover", "--yes")
	if code != 0 || !strings.Contains(stdout, "start it with WR_PEERS=n1=127.0.0.1:7000\n") || stderr != "" {
		t.Errorf("with it: exit %d, %q, %q", code, stdout, stderr)
	}
	code, _, stderr = command(t, environ, "recover", "--yes", "--node-id", "n9")
	if code != 1 || !strings.Contains(stderr, "n9") {
		t.Errorf("as somebody else: exit %d, %q", code, stderr)
	}
}

func TestDisasterCommandsNameWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ args, named string }{
		{"restore", "--from"},
		{"restore --from=x --peers=n1", "--peers"},
		{"recover --peers=n1 --node-id=n1", "--peers"},
		{"backup --admin=nowhere", "nowhere"},
		{"backup --out", "--out"},
		{"serve --feature-level=9", "--feature-level"},
	} {
		code, _, stderr := command(t, nil, strings.Fields(c.args)...)
		if code != 2 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.named) {
			t.Errorf("owr %s: exit %d, %q; want 2 and one line with %q", c.args, code, stderr, c.named)
		}
	}
	for _, args := range []string{"backup --help", "restore --help", "recover --help"} {
		if code, stdout, _ := command(t, nil, strings.Fields(args)...); code != 0 || stdout == "" {
			t.Errorf("owr %s: exit %d", args, code)
		}
	}
	if code, _, stderr := command(t, []string{"WR_NODE_ID=n1"}, "recover", "--data-dir", filepath.Join(t.TempDir(), "none")); code != 1 || !strings.Contains(stderr, "none") {
		t.Errorf("recover of nothing: exit %d, %q", code, stderr)
	}
	begun := time.Now()
	if code, _, _ := command(t, nil, "backup", "--admin", "127.0.0.1:1"); code != 1 || time.Since(begun) > 5*time.Second {
		t.Errorf("backup of nobody: exit %d after %v", code, time.Since(begun))
	}
}
