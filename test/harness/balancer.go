package harness

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A Balancer is an HAProxy in front of all nodes that sends visitors to those whose /wr_ready says 200.
type Balancer struct {
	*Process
	URL   string
	stats string
}

// NewBalancer starts one. It skips the test where HAProxy is not installed.
func NewBalancer(t testing.TB, nodes []*Node) *Balancer {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy is not installed (scripts/need haproxy)")
	}
	dir := t.TempDir()
	public, stats := Port(t), Port(t)
	var config strings.Builder
	fmt.Fprintf(&config, `
global
  maxconn 1000
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 30s
  option forwardfor
  option redispatch
  retries 2
  retry-on conn-failure
frontend site
  bind %s
  default_backend nodes
frontend stats
  bind %s
  stats enable
  stats uri /stats
backend nodes
  balance roundrobin
  option httpchk GET /wr_ready
  default-server inter 200ms fall 2 rise 2
`, Address(public), Address(stats))
	for _, n := range nodes {
		fmt.Fprintf(&config, "  server %s %s check\n", n.ID, strings.TrimPrefix(n.URL, "http://"))
	}
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &Balancer{Process: newProcess(t, "haproxy", dir), URL: URL(public), stats: URL(stats) + "/stats;csv"}
	b.start(nil, path, "-db", "-f", file)
	for _, n := range nodes {
		b.WaitUp(n)
	}
	return b
}

// WaitUp waits until the balancer sends visitors to a node.
func (b *Balancer) WaitUp(n *Node) {
	b.t.Helper()
	WaitFor(b.t, "the balancer takes "+n.ID, 20*time.Second, func() bool {
		status, body, err := fetch(http.MethodGet, b.stats, "", nil)
		if err != nil || status != http.StatusOK {
			return false
		}
		for line := range strings.Lines(string(body)) {
			if f := strings.Split(line, ","); len(f) > 17 && f[0] == "nodes" && f[1] == n.ID {
				return f[17] == "UP"
			}
		}
		return false
	})
}
