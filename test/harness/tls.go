package harness

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// Secure gives the nodes, and more that are to join them, what they need to speak TLS to each other: made by owr cert, in two commands.
// It is called before they start.
func (c *Cluster) Secure(more ...*Node) {
	c.t.Helper()
	dir := c.t.TempDir()
	nodes := slices.Concat(c.Nodes, more)
	args := []string{"node", "--ca", dir, "--out", dir}
	for _, n := range nodes {
		args = append(args, n.ID)
		n.Settings["WR_CLUSTER_TLS_CERT"] = filepath.Join(dir, n.ID+".crt")
		n.Settings["WR_CLUSTER_TLS_KEY"] = filepath.Join(dir, n.ID+".key")
		n.Settings["WR_CLUSTER_TLS_CA"] = filepath.Join(dir, "ca.crt")
	}
	cert(c.t, "ca", "--out", dir)
	cert(c.t, args...)
}

func cert(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(Binary(t), append([]string{"cert"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("owr cert %v: %v: %s", args, err, out)
	}
}
