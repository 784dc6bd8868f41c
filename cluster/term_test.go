package cluster_test

import (
	"sync"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// A term begins only when this table holds what earlier leaders committed. A leader that looked before it has applied its own
// log would find no last entry, and not know for how long nobody had led.
func TestATermBeginsWithWhatEarlierOnesCommitted(t *testing.T) {
	c := clustertest.New(t, 1, limits(1)).StartAll()
	clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(1))
	before := c.Nodes[0].Lookup(token(1)).Seen
	var log sync.WaitGroup // one that takes a while to apply again
	for i := range 100_000 {
		log.Add(1)
		err := c.Nodes[0].SubmitFunc(time.Now().Add(time.Minute), queue.Command{Kind: queue.KindArrive, Token: token(2 + i%1000)}, func(_ queue.Decision, err error) {
			if err != nil {
				t.Error(err)
			}
			log.Done()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	log.Wait()
	c.Stop(0)
	const outage = 500 * time.Millisecond
	<-time.After(outage) // the time that has to be taken out of the account
	n := c.Start(0)
	c.WaitReady()
	v := n.Lookup(token(1))
	if moved := time.Duration(v.Seen-before) * time.Millisecond; v.State != queue.Active || moved < outage-200*time.Millisecond {
		t.Errorf("after an outage of %v the visitor is %s, its last sign of life has moved by %v (I4)", outage, v.State, moved)
	}
}

// What a node finds on its own disk may be long out of date, so it knows nobody until its table is as new as the leader's.
func TestANodeThatComesBackKnowsNobodyUntilItIsFresh(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	for i := range c.Configs {
		c.Configs[i].Compaction = cluster.Compaction{Threshold: 1, Trailing: 1}
	}
	c.StartAll()
	clustertest.Submit(t, c.Nodes[0], queue.KindArrive, token(1))
	sameTables(t, c)
	if err := c.Nodes[0].TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	for i := range c.Nodes {
		c.Stop(i)
	}
	n := c.Start(0)
	if n.Stats().Counts.Active != 1 {
		t.Fatal("the snapshot was not read") // then the rest shows nothing
	}
	if v := n.Lookup(token(1)); v.State != queue.Unknown || n.HasRoom() {
		t.Errorf("alone, with a snapshot of before, it says %s", v.State)
	}
	c.Start(1)
	c.Start(2)
	c.WaitReady()
	if v := n.Lookup(token(1)); v.State != queue.Active {
		t.Errorf("once it is fresh it says %s", v.State)
	}
}
