package faults

import (
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// addTwin starts a second Redis that follows the first one, and a link by which the nodes reach whichever is the master, as they would by
// a name or a proxy that follows a failover.
func (w *world) addTwin() {
	w.t.Helper()
	w.twin = harness.NewRedis(w.t)
	w.toTwin = newLink(w.t, harness.Address(w.redis.Port))
	w.way = newLink(w.t, harness.Address(w.redis.Port))
	must(w.t, w.twin.Follow(harness.Host, w.toTwin.port()))
}

// failOver kills Redis while its twin is behind, and makes the twin the master: the writes of a second and a half are lost.
func failOver(w *world, _ []*harness.Node) {
	harness.WaitFor(w.t, "the twin shows the table", 10*time.Second, func() bool { index, _, err := w.twin.Marker(); return err == nil && index > 0 })
	w.toTwin.set(true, true)
	rest(w.ctx, 1500*time.Millisecond)
	ahead, _, err := w.redis.Marker()
	must(w.t, err)
	behind, _, err := w.twin.Marker()
	must(w.t, err)
	if behind >= ahead {
		w.t.Errorf("the run means nothing: the twin shows index %d, its master %d", behind, ahead)
	}
	w.redis.Kill()
	must(w.t, w.twin.Follow("", 0))
	w.way.lead(harness.Address(w.twin.Port))
	w.t.Logf("the twin takes over with index %d in place of %d", behind, ahead)
	w.redis = w.twin
}
