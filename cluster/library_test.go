package cluster

import (
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/openwaitingroom/owr/internal/freeport"
)

// The library counts the answers of non-voters as a majority (VerifyLeader), so a leader that is cut off from every voter may still
// be told that it leads. What has to be certain is certain by a commit.
func TestNobodyAsksVerifyLeader(t *testing.T) {
	files, err := filepath.Glob("../*/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "VerifyLeader" {
				t.Errorf("%s: VerifyLeader can say yes to a leader without a majority: commit something instead", set.Position(s.Pos()))
			}
			return true
		})
	}
}

// Heartbeats beside the main loop let a paused leader stamp an entry with a term it never led. So they have to come in like everything
// else, although Raft sets a handler for them; and Raft has to find pre-vote behind our type.
func TestHeartbeatsTakeTheMainLoop(t *testing.T) {
	var _ raft.WithPreVote = transport{}
	dead := make(chan struct{})
	end := func() transport {
		address := freeport.Address(t)
		p, err := listenPort(address, address, cardOf("", 0), slog.New(slog.DiscardHandler), dead, func(net.Conn) {})
		if err != nil {
			t.Fatal(err)
		}
		whole := new(memory)
		whole.whole.Store(true)
		tr := transport{memory: whole, NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: newStreams(p, p.raft), MaxPool: 1, Timeout: 5 * time.Second, Logger: newRaftLog(slog.New(slog.DiscardHandler)),
		})}
		t.Cleanup(func() {
			tr.Close()
			tr.CloseStreams()
			p.close()
		})
		return tr
	}
	leader, follower := end(), end()
	aside := make(chan raft.RPC, 1)
	follower.SetHeartbeatHandler(func(rpc raft.RPC) {
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
		aside <- rpc
	})
	sent := make(chan error, 1)
	go func() {
		heartbeat := raft.AppendEntriesRequest{Term: 5, RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, Addr: []byte("leader")}}
		sent <- leader.AppendEntries("follower", follower.LocalAddr(), &heartbeat, &raft.AppendEntriesResponse{})
	}()
	select {
	case rpc := <-follower.Consumer():
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	case <-aside:
		t.Error("a heartbeat went past the main loop")
	case <-time.After(10 * time.Second):
		t.Fatal("the heartbeat did not come")
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
