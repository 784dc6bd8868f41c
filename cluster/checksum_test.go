package cluster_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// A bit that the disk has turned in the middle of an entry is found when the node starts, not applied.
func TestAnEntryWithAWrongBitIsNamed(t *testing.T) {
	c := clustertest.New(t, 1, limits(1)).StartAll()
	for i := range 3 {
		clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(i))
	}
	c.Stop(0)
	path := filepath.Join(c.Configs[0].DataDir, "raft.db")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	visitor := token(1)
	at := bytes.Index(data, visitor[:])
	if at < 0 {
		t.Fatal("the log does not name the visitor")
	}
	data[at+15] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := cluster.Open(c.Configs[0])
	if err == nil {
		n.Close()
		t.Fatal("the node started")
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove this node's whole data directory") {
		t.Errorf("the error does not name %s and what to do: %v", path, err)
	}
	data[at+15] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	c.StartAll()
	if v := c.Nodes[0].Lookup(visitor); v.Position != 1 {
		t.Errorf("with the bit as it was the visitor is %+v", v)
	}
}
