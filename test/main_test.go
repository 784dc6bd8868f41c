// Package test drives three real nodes, a real Redis and an origin, does harm to them, and ends
// each test with one audit of what visitors, origin, tables and Redis have seen.
package test

import (
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/openwaitingroom/owr/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// audit ends a test: the crowd stops where it is, and everything is compared.
func audit(w *harness.World, watch *harness.Watch, crowd *harness.Crowd, others ...*harness.Browser) {
	if crowd != nil {
		crowd.Stop()
		others = slices.AppendSeq(others, maps.Keys(crowd.Here()))
	}
	watch.Stop()
	watch.Check(w)
	w.Audit(others)
}
