package main

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// serving runs one node by its command line until ctx ends or it ends by itself, and tells the exit code.
func serving(ctx context.Context, log *bytes.Buffer, environ ...string) <-chan int {
	ended := make(chan int, 1)
	environ = append(environ, "WR_LISTEN=127.0.0.1:0", "WR_REDIS_HOST=off", "WR_BACKEND_URL=http://127.0.0.1:1")
	go func() { ended <- run(ctx, []string{"serve"}, environ, log, log) }()
	return ended
}

// until runs a command until its output holds the words.
func until(t *testing.T, words string, args ...string) {
	t.Helper()
	limit, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		code, out, stderr := command(t, nil, args...)
		if code == 0 && strings.Contains(out, words) {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-limit.Done():
			t.Fatalf("owr %s: exit %d, %s%s; want %q", strings.Join(args, " "), code, out, stderr, words)
		}
	}
}

// A node joins a running one by its settings alone, and ends with a code of its own when it is removed.
func TestANodeJoinsAndIsRemoved(t *testing.T) {
	ports, err := freePorts(4)
	if err != nil {
		t.Fatal(err)
	}
	at := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])) }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := t.TempDir()
	var logs [2]bytes.Buffer
	first := serving(ctx, &logs[0], "WR_NODE_ID=n1", "WR_PEERS=n1="+at(0), "WR_CLUSTER_LISTEN="+at(0), "WR_ADMIN_LISTEN="+at(1),
		"WR_DATA_DIR="+filepath.Join(dir, "n1"), "WR_CLUSTER_SECRET=s3cret")
	until(t, "n1 ", "cluster", "list", "--admin", at(1))
	second := serving(ctx, &logs[1], "WR_NODE_ID=n2", "WR_JOIN="+at(0), "WR_ROLE=edge", "WR_CLUSTER_LISTEN="+at(2), "WR_ADMIN_LISTEN="+at(3),
		"WR_DATA_DIR="+filepath.Join(dir, "n2"), "WR_CLUSTER_SECRET=s3cret")
	until(t, "n2      "+at(2)+"  edge    yes", "cluster", "list", "--admin", at(1))
	until(t, at(0), "status", "--admin", at(3)) // it holds the entry that says so: one that does not has nothing to be removed from, and joins

	code, out, stderr := command(t, nil, "cluster", "promote", "n2", "--admin", at(3))
	if code != 1 || out != "" || !strings.Contains(stderr, "n2 is an edge node") {
		t.Errorf("promote an edge node: exit %d, %q, %q", code, out, stderr)
	}
	code, out, stderr = command(t, nil, "cluster", "remove", "n2", "--admin", at(3)) // any node may be asked, that one too
	if code != 0 || strings.Contains(out, at(2)) {
		t.Errorf("remove it: exit %d, %q, %q", code, out, stderr)
	}
	select {
	case code := <-second:
		if code != exitRemoved || !strings.Contains(logs[1].String(), "this node was removed from the cluster") {
			t.Errorf("the removed node ended with exit code %d and\n%s", code, logs[1].String())
		}
	case <-time.After(20 * time.Second):
		t.Error("the removed node goes on")
	}
	cancel()
	if code := <-first; code != exitOK {
		t.Errorf("the first node ended with exit code %d and\n%s", code, logs[0].String())
	}
}
