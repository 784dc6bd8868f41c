package cluster_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// A visitor whose node cannot hand in what it sees keeps its slot and its presence for as long as that node lives; and no longer than
// maxVigil, since whoever waits has a right too.
func TestLateTouchesAreWaitedFor(t *testing.T) {
	l := limits(1)
	l.ActiveTTL, l.QueueAbsent = time.Second, time.Second
	c := clustertest.New(t, 3, l).StartAll()
	leader, late := c.Nodes[c.Leader()], c.Nodes[(c.Leader()+1)%3]
	inside, waiting := token(1), token(2)
	clustertest.Submit(t, leader, queue.KindArrive, inside)
	clustertest.Submit(t, leader, queue.KindArrive, waiting)
	clustertest.Eventually(t, "the leader hears everybody", func() error {
		for _, m := range leader.Status().Members {
			if !m.Healthy {
				return errors.New(m.ID)
			}
		}
		return nil
	})
	// Both are seen by that node all the time, and looked at all the time.
	stay := func(until time.Time) {
		t.Helper()
		clustertest.Eventually(t, "the time is over", func() error {
			late.Touch(inside)
			late.Touch(waiting)
			if a, b := leader.Lookup(inside).State, leader.Lookup(waiting).State; a != queue.Active || b != queue.Queued {
				t.Fatalf("%v and %v, want both as before (I4)", a, b)
			}
			if time.Now().Before(until) {
				return errors.New("not yet")
			}
			return nil
		})
	}
	release := late.HoldTouches()
	stay(time.Now().Add(4 * time.Second)) // without the vigil both end after 2.2 s at the most
	release()
	stay(time.Now().Add(2 * time.Second))
	release = late.HoldTouches()
	defer release()
	begun := time.Now()
	clustertest.Eventually(t, "the vigil ends", func() error {
		late.Touch(inside)
		if leader.Lookup(inside).State == queue.Active {
			return errors.New("the slot is still kept")
		}
		return nil
	})
	if took := time.Since(begun); took < cluster.MaxVigil {
		t.Errorf("the slot went after %v, want %v and more", took, cluster.MaxVigil)
	}
}

// Whom the leader leaves out of a vigil is a member all the same.
func TestAVigilLeavesTheMembersAlone(t *testing.T) {
	l := limits(1)
	l.ActiveTTL = time.Second
	c := clustertest.New(t, 3, l).StartAll()
	leader, stopped := c.Nodes[c.Leader()], (c.Leader()+1)%3
	c.Stop(stopped)
	clustertest.Submit(t, leader, queue.KindArrive, token(1))
	clustertest.Eventually(t, "the slot ends", func() error {
		if leader.Lookup(token(1)).State == queue.Active {
			return errors.New("it is kept")
		}
		return nil
	})
	var ids []string
	for _, m := range leader.Status().Members {
		ids = append(ids, m.ID)
	}
	if slices.Sort(ids); !slices.Equal(ids, []string{"n1", "n2", "n3"}) {
		t.Errorf("the members are %q", ids)
	}
	c.Start(stopped)
	c.WaitReady()
}
