package main

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openwaitingroom/owr/queue"
)

// A node that can not start says why, and lets go of its listeners.
func TestANodeThatCannotStartSaysWhy(t *testing.T) {
	var listeners [2]net.Listener
	for i := range listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = l
	}
	path := filepath.Join(t.TempDir(), "raft.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("garbage", 10_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := serveConfig{NodeID: "n1", DataDir: filepath.Dir(path), Limits: queue.DefaultLimits()}
	i, err := startInstance(cfg, listeners[0], listeners[1], slog.New(slog.DiscardHandler))
	if i != nil || err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("an instance: %v, and the error does not name %s: %v", i != nil, path, err)
	}
	for _, l := range listeners {
		again, err := net.Listen("tcp", l.Addr().String())
		if err != nil {
			t.Errorf("a listener is still open: %v", err)
			continue
		}
		again.Close()
	}
}
