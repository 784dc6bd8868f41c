package test

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// TestDemo is the README's first command: a cluster in one process, with nothing around it.
func TestDemo(t *testing.T) {
	demo := harness.NewDemo(t, "--port", strconv.Itoa(harness.Port(t)), "--max-active", "1")
	var nodes []*harness.Node
	harness.WaitFor(t, "three nodes are named", 20*time.Second, func() bool {
		nodes = nil
		for _, m := range regexp.MustCompile(`node (n\d)\s+(http://[\d.:]+)/\s+admin (http://[\d.:]+)/`).FindAllStringSubmatch(demo.Log(), -1) {
			nodes = append(nodes, &harness.Node{ID: m[1], URL: m[2], AdminURL: m[3]})
		}
		return len(nodes) == 3
	})
	for _, n := range nodes {
		harness.WaitFor(t, n.ID+" is ready", 20*time.Second, n.Ready)
	}
	first, second := harness.NewBrowser(t, nil), harness.NewBrowser(t, nil)
	if e := first.Visit(nodes[0], "/"); e.Outcome != harness.Inside {
		t.Errorf("the first visitor: %v", e)
	}
	if e := second.Visit(nodes[1], "/"); e.Outcome != harness.Waiting || e.Position != 1 {
		t.Errorf("the second visitor: %v", e)
	}
	if err := first.Leave(nodes[2]); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the second visitor is inside", 5*time.Second, func() bool { return second.Enter(nodes[2]).Outcome == harness.Inside })
	if code := demo.Interrupt(20 * time.Second); code != 0 {
		t.Errorf("Ctrl-C: exit code %d", code)
	}
}
