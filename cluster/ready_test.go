package cluster_test

import (
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// A node that is back after a long cut is in reach of the leader at once; visitors are sent to it when it has caught up.
func TestANodeFarBehindIsNotReady(t *testing.T) {
	c := clustertest.New(t, 3, limits(1)).StartAll()
	follower := c.Nodes[(c.Leader()+1)%3]
	for _, lacks := range []uint64{1001, 1000} {
		follower.PretendToLack(lacks)
		if err := follower.Ready(); (err == nil) != (lacks <= 1000) || err != nil && !strings.Contains(err.Error(), "1001 entries behind") {
			t.Errorf("%d entries behind: %v", lacks, err)
		}
	}
}

func TestMetricsOfTheDisk(t *testing.T) {
	c := clustertest.New(t, 1, limits(1)).StartAll()
	n := c.Nodes[0]
	clustertest.Submit(t, n, queue.KindArrive, token(0))
	if size, age := n.Disk(time.Now()); size < 4096 || age != -1 {
		t.Errorf("%d bytes, a snapshot %v s old", size, age)
	}
	if err := n.TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	if _, age := n.Disk(time.Now().Add(time.Minute)); age < 60 || age > 90 {
		t.Errorf("in a minute the snapshot is %v s old", age)
	}
}
