package compose

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// TestComposeFile starts the cluster of the README, sends visitors through it, kills its leader and
// brings it back.
func TestComposeFile(t *testing.T) {
	if os.Getenv("OWR_COMPOSE_TEST") == "" {
		t.Skip("it builds images and starts containers: make compose-test")
	}
	if out, err := exec.Command("docker", "version").CombinedOutput(); err != nil {
		t.Skipf("no container engine answers: %s", out)
	}
	s := &stack{t: t, compose: findCompose(t)}
	name := fmt.Sprintf("owr-compose-test-%d", os.Getpid())
	s.env = []string{
		"OWR_IMAGE=" + name + ":test", "COMPOSE_PROJECT_NAME=" + name, "WR_ADMIN_TOKEN=t0ken", "WR_MAX_ACTIVE=2",
	}
	nodes := make([]*harness.Node, 3)
	for i := range nodes {
		public, admin := harness.Port(t), harness.Port(t)
		nodes[i] = &harness.Node{ID: fmt.Sprintf("n%d", i+1), URL: harness.URL(public), AdminURL: harness.URL(admin), Token: "t0ken"}
		s.env = append(s.env, fmt.Sprintf("N%d_PORT=%d", i+1, public), fmt.Sprintf("N%d_ADMIN_PORT=%d", i+1, admin))
	}
	s.needImages()
	s.build()
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := s.run(s.compose[0], slices.Concat(s.compose[1:], []string{"logs", "--tail", "30", "--no-color"})...)
			t.Logf("logs:\n%s", out)
		}
		s.project("down", "--volumes", "--timeout", "20")
	})
	s.project("up", "--detach")
	ready(t, nodes, time.Minute)
	healthy(t, s)
	for _, n := range nodes {
		if left, err := n.Metric(`owr_tls_certificate_expiry_seconds{use="cluster"}`); err != nil || left < 300*86400 {
			t.Errorf("%s: its certificate for the cluster port is good for %g s, %v", n.ID, left, err)
		}
	}
	// Another up makes no new certificates.
	s.project("up", "--detach")
	if log := s.project("logs", "--no-color", "certs"); strings.Count(log, "is there") != 3 {
		t.Errorf("the certificates, the second time: %s", log)
	}
	ready(t, nodes, time.Minute)

	// Two slots: two visitors inside, four in line, each on the next node.
	var inside, waiting []*harness.Browser
	for i := range 6 {
		b := harness.NewBrowser(t, nil)
		switch e := b.Visit(nodes[i%3], "/"); e.Outcome {
		case harness.Inside:
			inside = append(inside, b)
		case harness.Waiting:
			waiting = append(waiting, b)
		default:
			t.Fatalf("a newcomer: %v", e)
		}
	}
	if len(inside) != 2 {
		t.Fatalf("two slots: %d are inside", len(inside))
	}
	inLine(t, nodes, waiting)
	picture(t, s, waiting)

	// One gives its slot up; the head of the line comes in.
	if err := inside[0].Leave(nodes[1]); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the head of the line is inside", 5*time.Second, func() bool { return waiting[0].Enter(nodes[2]).Outcome == harness.Inside })
	inside[0], waiting = waiting[0], waiting[1:]
	inLine(t, nodes, waiting)

	// The leader's container dies. Those inside stay inside, and the line stays in order.
	dead := leader(t, nodes)
	alive := slices.DeleteFunc(slices.Clone(nodes), func(n *harness.Node) bool { return n == dead })
	container := strings.TrimSpace(s.project("ps", "--quiet", dead.ID))
	s.must("docker", "kill", container)
	for _, b := range inside {
		for _, n := range alive {
			if e := b.Get(n, "/"); e.Outcome != harness.Inside {
				t.Errorf("a visitor inside, after the leader died, on %s: %v", n.ID, e)
			}
		}
	}
	next := leader(t, alive)
	t.Logf("%s led and was killed; %s leads now", dead.ID, next.ID)
	inLine(t, alive, waiting)
	if err := inside[0].Leave(next); err != nil {
		t.Errorf("a change without the old leader: %v", err)
	}
	harness.WaitFor(t, "the head of the line is inside", 10*time.Second, func() bool { return waiting[0].Enter(alive[0]).Outcome == harness.Inside })
	waiting = waiting[1:]

	// It comes back, by the same name and perhaps at another address, and agrees.
	s.must("docker", "start", container)
	ready(t, nodes, time.Minute)
	inLine(t, nodes, waiting)
	picture(t, s, waiting)
}

func ready(t *testing.T, nodes []*harness.Node, limit time.Duration) {
	t.Helper()
	for _, n := range nodes {
		harness.WaitFor(t, n.ID+" is ready", limit, n.Ready)
	}
}

// healthy waits until the engine says so of every container that has a health check.
func healthy(t *testing.T, s *stack) {
	t.Helper()
	for _, service := range []string{"n1", "n2", "n3", "backend"} {
		id := strings.TrimSpace(s.project("ps", "--quiet", service))
		harness.WaitFor(t, service+" is healthy", time.Minute, func() bool {
			return strings.TrimSpace(s.must("docker", "inspect", "--format", "{{.State.Health.Status}}", id)) == "healthy"
		})
	}
}

// leader waits for the node that leads these nodes.
func leader(t *testing.T, nodes []*harness.Node) *harness.Node {
	t.Helper()
	var found *harness.Node
	harness.WaitFor(t, "a leader", 20*time.Second, func() bool {
		for _, n := range nodes {
			if s, err := n.Status(); err == nil && s.Role == "leader" && s.Leader == n.ID {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

// inLine checks that the visitors wait in this order on every node.
func inLine(t *testing.T, nodes []*harness.Node, waiting []*harness.Browser) {
	t.Helper()
	for _, n := range nodes {
		for i, b := range waiting {
			var e harness.Event
			if !harness.Poll(5*time.Second, func() bool { e = b.Check(n); return e.Position == i+1 }) {
				t.Errorf("place %d, on %s: %v", i+1, n.ID, e)
			}
		}
	}
}

// picture checks that Redis shows the line.
func picture(t *testing.T, s *stack, waiting []*harness.Browser) {
	t.Helper()
	var want []string
	for _, b := range waiting {
		want = append(want, b.ID())
	}
	id := strings.TrimSpace(s.project("ps", "--quiet", "redis"))
	var got []string
	if !harness.Poll(10*time.Second, func() bool {
		got = strings.Fields(s.must("docker", "exec", id, "redis-cli", "--raw", "LRANGE", "wr:queue", "0", "-1"))
		return slices.Equal(got, want)
	}) {
		t.Errorf("Redis shows %v in line, want %v", got, want)
	}
}
