package test

import (
	"cmp"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/test/harness"
)

// beforeLevels is the last commit without feature levels. It is what a tag will be from the first one on: see previous.
const beforeLevels = "b4e88a37032f007dc0c4234ed493bd47fbbd5a14"

// previous is the owr that is upgraded from: the newest tag before this commit, or beforeLevels.
func previous(t *testing.T) string {
	t.Helper()
	harness.Binary(t)
	return harness.Release(t, cmp.Or(harness.PreviousTag(), beforeLevels))
}

// TestUpgradeAndBack rolls a cluster from the previous version to this one, back, and forth again, with visitors who come and go all
// the while. As long as the feature level is held the way back is open. Once it has risen an older version ends and says why.
func TestUpgradeAndBack(t *testing.T) {
	older, newer := previous(t), harness.Binary(t)
	w := harness.PrepareWorld(t, 5, harness.Settings{"WR_FEATURE_LEVEL": "1"})
	for _, n := range w.Nodes {
		n.Use(older)
	}
	w.Start()
	first, err := w.Nodes[0].Status()
	if err != nil {
		t.Fatal(err)
	}
	watch := w.Watch()
	inside, _ := w.LineUp(2)
	crowd := w.NewCrowd(20, 300*time.Millisecond, 7)

	roll := func(binary string, settings harness.Settings) {
		t.Helper()
		for _, n := range w.Nodes {
			if code := n.Terminate(30 * time.Second); code != 0 {
				t.Errorf("%s ended with exit code %d", n.ID, code)
			}
			entered(t, w, 3, again) // two versions, or one, and one node less
			maps.Copy(n.Settings, settings)
			n.Use(binary)
			n.Start()
			n.WaitReady()
			for _, b := range inside {
				for _, other := range w.Alive() {
					if e := b.Get(other, "/"); e.Outcome != harness.Inside {
						t.Errorf("inside since before: %v", e)
					}
				}
			}
		}
		entered(t, w, 5, again)
	}
	level := func(want int) {
		t.Helper()
		for _, n := range w.Nodes {
			harness.WaitFor(t, "the feature level", again, func() bool {
				s, err := n.Status()
				return err == nil && s.FeatureLevel == want
			})
		}
	}

	roll(newer, nil)
	level(1)
	roll(older, nil)
	roll(newer, harness.Settings{"WR_FEATURE_LEVEL": ""})
	if first.FeatureLevel == 0 { // the previous version has no levels
		level(cluster.FeatureLevel)
		n := w.Followers()[0]
		n.Terminate(30 * time.Second)
		n.Use(older)
		n.Start()
		if code := n.WaitEnd(); code != 1 || !strings.Contains(n.Log(), "run the version of owr that the other nodes run") {
			t.Errorf("an older version at the newest level ended with exit code %d and does not say why", code)
		}
		entered(t, w, 5, again)
		n.Use(newer)
		n.Start()
		n.WaitReady()
	}
	audit(w, watch, crowd, inside...)
}
