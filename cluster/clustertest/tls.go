package clustertest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/internal/authority"
)

// NewAuthority makes one for a test.
func NewAuthority(t testing.TB) *authority.Authority {
	t.Helper()
	a, _, err := authority.New("test", 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Secure gives every node a certificate of the authority. It is called before the first node starts.
func (c *Cluster) Secure(a *authority.Authority) *Cluster {
	c.t.Helper()
	c.Patient()
	for i := range c.Configs {
		c.Configs[i].TLS = Papers(c.t, a, c.Configs[i].NodeID)
	}
	return c
}

// Patient gives elections more time: handshakes take some, and on a busy machine a lot. It is called before the first node starts.
func (c *Cluster) Patient() *Cluster {
	for i := range c.Configs {
		t := &c.Configs[i].Timing
		t.Heartbeat, t.Lease, t.RPC = time.Second, 700*time.Millisecond, 3*time.Second
	}
	return c
}

// Papers are the files of one node.
func Papers(t testing.TB, a *authority.Authority, node string) *cluster.TLS {
	t.Helper()
	dir := t.TempDir()
	files := &cluster.TLS{Cert: filepath.Join(dir, "node.crt"), Key: filepath.Join(dir, "node.key"), CA: filepath.Join(dir, "ca.crt")}
	Replace(t, files.CA, a.CertPEM())
	Issue(t, a, node, files)
	return files
}

// Issue puts a new certificate and its key into the place of a node's.
func Issue(t testing.TB, a *authority.Authority, node string, files *cluster.TLS) {
	t.Helper()
	pair, err := a.Issue(authority.Request{Name: node, URI: authority.MemberURI(node), Server: true, Client: true, Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	Replace(t, files.Key, pair.Key)
	Replace(t, files.Cert, pair.Cert)
}

// Replace puts a file into place as a whole.
func Replace(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
