package main

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/openwaitingroom/owr/internal/authority"
	"github.com/openwaitingroom/owr/internal/certs"
)

// made runs a command that has to succeed and returns what it printed.
func made(t *testing.T, args ...string) string {
	t.Helper()
	code, out, err := command(t, nil, args...)
	if code != 0 || err != "" {
		t.Fatalf("owr %v: exit %d, %s", args, code, err)
	}
	return out
}

func load(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	pair, err := certs.Load(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

// Two commands make all that the nodes of a cluster need.
func TestTwoCommandsMakeTheCertificatesOfACluster(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	made(t, "cert", "ca", "--out", dir)
	out := made(t, "cert", "node", "n1", "n2", "n3", "--ca", dir, "--out", dir, "--host", "n.example,10.0.0.1")
	pool, err := certs.LoadPool(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"n1", "n2", "n3"} {
		cert := load(t, dir, id)
		if authority.MemberName(cert) != id || len(cert.DNSNames) != 1 || len(cert.IPAddresses) != 1 {
			t.Errorf("%s: %v %v %v", id, cert.URIs, cert.DNSNames, cert.IPAddresses)
		}
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
			if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		for _, setting := range []string{"WR_CLUSTER_TLS_CERT=" + filepath.Join(dir, id+".crt"), "WR_CLUSTER_TLS_KEY=" + filepath.Join(dir, id+".key"), "WR_CLUSTER_TLS_CA=" + filepath.Join(dir, "ca.crt")} {
			if !strings.Contains(out, setting) {
				t.Errorf("%s: %q does not say %s", id, out, setting)
			}
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 8 {
		t.Errorf("%v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestCertificatesOfClientsAndServers(t *testing.T) {
	dir := t.TempDir()
	made(t, "cert", "ca", "--out", dir)
	made(t, "cert", "client", "ann", "--role", "operate", "--ca", dir, "--out", dir)
	made(t, "cert", "server", "*.example.com", "::1", "--ca", dir, "--out", dir)
	ann, server := load(t, dir, "ann"), load(t, dir, "_wildcard.example.com")
	if !slices.Equal(ann.Subject.OrganizationalUnit, []string{"operate"}) || ann.Subject.CommonName != "ann" || !slices.Equal(ann.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("the client: %v, %v", ann.Subject, ann.ExtKeyUsage)
	}
	if server.VerifyHostname("a.example.com") != nil || server.VerifyHostname("[::1]") != nil || !slices.Equal(server.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("the server: %v %v, %v", server.DNSNames, server.IPAddresses, server.ExtKeyUsage)
	}
	if authority.MemberName(ann) != "" || authority.MemberName(server) != "" {
		t.Error("one of them names a node")
	}
}

func TestCertificatesAreNotOverwritten(t *testing.T) {
	dir := t.TempDir()
	made(t, "cert", "ca", "--out", dir)
	made(t, "cert", "node", "n2", "--ca", dir, "--out", dir)
	read := func(name string) []byte {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	before := [2][]byte{read("n2.crt"), read("ca.key")}
	for _, args := range [][]string{{"cert", "ca", "--out", dir}, {"cert", "node", "n1", "n2", "--ca", dir, "--out", dir}, {"cert", "client", "n2", "--role", "read", "--ca", dir, "--out", dir}, {"cert", "server", "n2", "--ca", dir, "--out", dir}} {
		code, _, err := command(t, nil, args...)
		if code != 2 || !strings.Contains(err, "--force") {
			t.Errorf("owr %v: exit %d, %s", args, code, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "n1.crt")); err == nil {
		t.Error("one of two nodes got its certificate")
	}
	if !bytes.Equal(before[0], read("n2.crt")) || !bytes.Equal(before[1], read("ca.key")) {
		t.Error("a file was replaced")
	}
	made(t, "cert", "node", "n1", "n2", "--force", "--ca", dir, "--out", dir)
	if bytes.Equal(before[0], read("n2.crt")) {
		t.Error("--force replaced nothing")
	}
}

// Run again and again it makes what is missing, renews what ends soon, and leaves the rest.
func TestEnsure(t *testing.T) {
	dir := t.TempDir()
	ensure := func(ids ...string) {
		t.Helper()
		made(t, slices.Concat([]string{"cert", "node"}, ids, []string{"--ensure", "--ca", dir, "--out", dir})...)
	}
	ensure("n1", "n2")
	ca, n1, n2 := load(t, dir, "ca"), load(t, dir, "n1"), load(t, dir, "n2")
	ensure("n1", "n2", "n3")
	if !load(t, dir, "ca").Equal(ca) || !load(t, dir, "n1").Equal(n1) {
		t.Error("what was there has changed")
	}
	if got := authority.MemberName(load(t, dir, "n3")); got != "n3" {
		t.Errorf("n3: %q", got)
	}
	if err := os.Remove(filepath.Join(dir, "n2.key")); err != nil {
		t.Fatal(err)
	}
	ensure("n2")
	if load(t, dir, "n2").Equal(n2) {
		t.Error("a pair without its key was left")
	}
	// A certificate of one hour and a bit has used up most of its time at once: it begins an hour in the past.
	a := authorityOf(t, dir)
	short, err := a.Issue(authority.Request{Name: "n1", URI: authority.MemberURI("n1"), Server: true, Client: true, Life: 60e9})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"n1.crt": short.Cert, "n1.key": short.Key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ensure("n1")
	if load(t, dir, "n1").NotAfter.Equal(short.NotAfter) {
		t.Error("what ends soon was not renewed")
	}
	other := t.TempDir()
	made(t, "cert", "ca", "--out", other)
	before := load(t, dir, "n1")
	made(t, "cert", "node", "n1", "--ensure", "--ca", other, "--out", dir)
	if load(t, dir, "n1").Equal(before) {
		t.Error("what another authority has signed was left")
	}
}

func authorityOf(t *testing.T, dir string) *authority.Authority {
	t.Helper()
	cert, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := authority.Parse(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestCertCommandsNameWhatIsWrong(t *testing.T) {
	empty := t.TempDir()
	for args, named := range map[string]string{
		"cert":                           "ca",
		"cert ca --days 0":               "--days",
		"cert ca --name=":                "--name",
		"cert node":                      "id",
		"cert node n/1":                  "n/1",
		"cert node n1 CA":                "ca.crt",
		"cert node n1 --host http://n1":  "http://n1",
		"cert node n1 --ca " + empty:     "owr cert ca",
		"cert client ann":                "--role",
		"cert client ann --role root":    "root",
		"cert client ../ann --role read": "../ann",
		"cert client " + strings.Repeat("a", 65) + " --role read": "64",
		"cert server a:80":       "a:80",
		"cert server a --days x": "--days",
	} {
		code, out, err := command(t, nil, strings.Fields(args)...)
		if code != 2 || strings.Count(err, "\n") != 1 || !strings.Contains(err, named) || out != "" {
			t.Errorf("owr %s: exit %d, stdout %q, stderr %q; want 2 and one line with %q", args, code, out, err, named)
		}
	}
}
