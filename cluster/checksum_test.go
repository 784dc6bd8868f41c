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
	if turn(data, visitor[:]) == 0 {
		t.Fatal("the log does not name the visitor")
	}
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
	wrong := visitor
	wrong[len(wrong)-1] ^= 1
	turn(data, wrong[:])
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	c.StartAll()
	if v := c.Nodes[0].Lookup(visitor); v.Position != 1 {
		t.Errorf("with the bit as it was the visitor is %+v", v)
	}
}

// turn turns the last bit of every occurrence of what, and says how many there were. bbolt copies a page when it changes it, so some of them
// may be in pages that nobody reads any more.
func turn(data, what []byte) int {
	turned := 0
	for at := 0; ; {
		found := bytes.Index(data[at:], what)
		if found < 0 {
			return turned
		}
		at += found + len(what)
		data[at-1] ^= 1
		turned++
	}
}
