//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// bareFSM keeps nothing: what an entry costs before anybody has looked at it.
type bareFSM struct{}

func (bareFSM) Apply(*raft.Log) any                 { return nil }
func (bareFSM) Snapshot() (raft.FSMSnapshot, error) { return bareFSM{}, nil }
func (bareFSM) Restore(r io.ReadCloser) error       { return r.Close() }
func (bareFSM) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (bareFSM) Release()                            {}

// raftNode is one node of a bare Raft cluster: args are its number, a control address, and the addresses of
// all nodes. It has the library, the timing and the disk settings of owr, and nothing of owr. Over the control
// connection it takes a count and answers the microseconds of as many applies, one after the other, or
// "null" where it does not lead.
func raftNode(args []string) error {
	var number int
	if _, err := fmt.Sscan(args[0], &number); err != nil {
		return err
	}
	control, addresses := args[1], args[2:]
	logger := hclog.NewNullLogger()
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(args[0])
	c.Logger = logger
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 750*time.Millisecond, 750*time.Millisecond, 500*time.Millisecond
	c.MaxAppendEntries = 256
	store, err := raftboltdb.New(raftboltdb.Options{
		Path:                    filepath.Join(".", "raft.db"),
		BoltOptions:             &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return err
	}
	cache, err := raft.NewLogCache(512, store)
	if err != nil {
		return err
	}
	transport, err := raft.NewTCPTransportWithLogger(addresses[number], nil, 3, 2*time.Second, logger)
	if err != nil {
		return err
	}
	snapshots := raft.NewInmemSnapshotStore()
	var all raft.Configuration
	for i, a := range addresses {
		all.Servers = append(all.Servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: raft.ServerAddress(a)})
	}
	if err := raft.BootstrapCluster(c, store, store, snapshots, transport, all); err != nil {
		return err
	}
	node, err := raft.NewRaft(c, bareFSM{}, cache, store, snapshots, transport)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", control)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		applyOnDemand(node, conn)
	}
}

func applyOnDemand(node *raft.Raft, conn net.Conn) {
	defer conn.Close()
	var count int
	if _, err := fmt.Fscanln(bufio.NewReader(conn), &count); err != nil {
		return
	}
	var micros []float64
	if node.State() == raft.Leader {
		for range count {
			at := time.Now()
			if node.Apply(make([]byte, 32), 2*time.Second).Error() != nil {
				micros = nil
				break
			}
			micros = append(micros, float64(time.Since(at).Nanoseconds())/1000)
		}
	}
	_ = json.NewEncoder(conn).Encode(micros) // the other side sees that it ended
}

// A bareRaft is three nodes of raftNode.
type bareRaft struct{ controls []string }

func (l *lab) bareRaft() (*bareRaft, error) {
	r := new(bareRaft)
	var addresses []string
	for range 3 {
		addresses = append(addresses, l.address())
		r.controls = append(r.controls, l.address())
	}
	for i := range 3 {
		if _, err := l.startChild("raft", append([]string{fmt.Sprint(i), r.controls[i]}, addresses...)...); err != nil {
			return nil, err
		}
	}
	return r, l.await(20*time.Second, func() error {
		_, err := r.apply(1)
		return err
	})
}

// apply has the leader apply entries, one after the other, and returns the milliseconds of each.
func (r *bareRaft) apply(count int) ([]float64, error) {
	for _, control := range r.controls {
		conn, err := net.DialTimeout("tcp", control, time.Second)
		if err != nil {
			return nil, err
		}
		_, err = fmt.Fprintf(conn, "%d\n", count)
		var micros []float64
		if err == nil {
			err = json.NewDecoder(conn).Decode(&micros)
		}
		conn.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.TrimPrefix(control, "127.0.0.1"), err)
		}
		if len(micros) == count {
			for i := range micros {
				micros[i] /= 1000
			}
			return micros, nil
		}
	}
	return nil, fmt.Errorf("no node of the bare Raft cluster leads")
}
