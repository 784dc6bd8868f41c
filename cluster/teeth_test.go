package cluster

import (
	"io"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/queue"
)

// Heartbeats take their turn with all else: taken beside Raft's main loop they let a paused leader stamp an entry with a
// term that it never led (hashicorp/raft issue 695).
func TestHeartbeatsStayInTheMainLoop(t *testing.T) {
	var ends [2]*raft.NetworkTransport
	for i := range ends {
		tcp, err := raft.NewTCPTransport("127.0.0.1:0", nil, 1, 5*time.Second, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = tcp
		t.Cleanup(func() {
			tcp.CloseStreams()
			tcp.Close()
		})
	}
	ours := transport{NetworkTransport: ends[1]}
	beside := make(chan raft.RPC, 1)
	ours.SetHeartbeatHandler(func(rpc raft.RPC) { beside <- rpc })
	done := make(chan error, 1)
	go func() {
		request := raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("leader")}, Term: 1}
		done <- ends[0].AppendEntries("n2", ours.LocalAddr(), &request, new(raft.AppendEntriesResponse))
	}()
	select {
	case rpc := <-ours.Consumer():
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	case rpc := <-beside:
		t.Error("a heartbeat was handed to the handler")
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	case <-time.After(10 * time.Second):
		t.Fatal("the heartbeat did not come")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What is told to a visitor is on a majority's disks, past every cache: bbolt syncs each write of the log. There is no
// way to see that from outside but to pull the plug, so this looks at bbolt's own switch.
func TestEveryEntryIsSynced(t *testing.T) {
	n, err := Open(Config{
		NodeID: "n1", Listen: "127.0.0.1:7000", DataDir: t.TempDir(), Limits: queue.DefaultLimits(), Logger: slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(), OnFailure: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	db := reflect.ValueOf(n.store.bolt).Elem().FieldByName("conn").Elem()
	for _, name := range []string{"NoSync", "NoGrowSync"} {
		if f := db.FieldByName(name); !f.IsValid() || f.Bool() {
			t.Errorf("bbolt's %s is set, or there is no such switch any more", name)
		}
	}
}
