package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/internal/certs"
	"github.com/openwaitingroom/owr/internal/certs/certstest"
)

func TestLoadNamesTheFile(t *testing.T) {
	ca := certstest.NewCA(t, "root")
	one, other := ca.Issue(nil, "a.example"), ca.Issue(nil, "b.example")
	dir := t.TempDir()
	certFile, keyFile := one.Files(dir)
	pair, err := certs.Load(certFile, keyFile)
	if err != nil || pair.Leaf == nil || pair.Leaf.DNSNames[0] != "a.example" {
		t.Fatalf("Load = %v, %v", pair, err)
	}

	foreign, garbage, large := filepath.Join(dir, "foreign.pem"), filepath.Join(dir, "garbage.pem"), filepath.Join(dir, "large.pem")
	certstest.Write(t, foreign, other.Key)
	certstest.Write(t, garbage, []byte("no PEM at all"))
	certstest.Write(t, large, make([]byte, 5<<20))
	for _, c := range []struct{ name, cert, key, says string }{
		{"another's key", certFile, foreign, foreign},
		{"no certificate", garbage, keyFile, garbage},
		{"no key", certFile, garbage, garbage},
		{"no file", certFile, filepath.Join(dir, "none"), "none"},
		{"a directory", dir, keyFile, "is not a file"},
		{"too large", certFile, large, "more than"},
	} {
		if _, err := certs.Load(c.cert, c.key); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, and not %q", c.name, err, c.says)
		}
	}
}

func TestLoadPoolTakesCertificatesOnly(t *testing.T) {
	ca, second := certstest.NewCA(t, "root"), certstest.NewCA(t, "second")
	leaf := ca.Issue(nil, "a.example")
	file := filepath.Join(t.TempDir(), "ca.pem")
	certstest.Write(t, file, append(append([]byte("# ours\n"), ca.PEM...), second.PEM...))
	pool, err := certs.LoadPool(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.TLS().Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "a.example"}); err != nil {
		t.Error(err)
	}
	for name, content := range map[string][]byte{
		"empty": nil, "a key": leaf.Key, "a key behind a certificate": append(bytes.Clone(ca.PEM), leaf.Key...),
		"a broken certificate": []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
	} {
		certstest.Write(t, file, content)
		if _, err := certs.LoadPool(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A followed is a Reloader over files of its own, in a bubble of synctest: its clock goes when everything waits.
type followed struct {
	*certs.Reloader
	dir      string
	registry *prometheus.Registry
	mu       sync.Mutex
	log      bytes.Buffer
}

func (f *followed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(p)
}

func (f *followed) logged(text string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Count(f.log.String(), text)
}

func (f *followed) name() string { return f.Certificate().Leaf.DNSNames[0] }

func (f *followed) failures(t *testing.T) float64 {
	t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "owr_tls_reload_failures_total" {
			return family.Metric[0].GetCounter().GetValue()
		}
	}
	t.Fatal("no count of failures")
	return 0
}

func follow(t *testing.T, p certstest.Pair, ca []byte) *followed {
	t.Helper()
	f := &followed{dir: t.TempDir(), registry: prometheus.NewRegistry()}
	m, err := certs.NewMetrics(f.registry)
	if err != nil {
		t.Fatal(err)
	}
	cfg := certs.Config{Use: "test", Metrics: m, Logger: slog.New(slog.NewTextHandler(f, nil)), Every: time.Second}
	cfg.Cert, cfg.Key = p.Files(f.dir)
	if ca != nil {
		cfg.CA = filepath.Join(f.dir, "ca.pem")
		certstest.Write(t, cfg.CA, ca)
	}
	if f.Reloader, err = certs.NewReloader(cfg); err != nil {
		t.Fatal(err)
	}
	go f.Run(t.Context())
	return f
}

func TestReloaderFollowsItsFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := certstest.NewCA(t, "root")
		f := follow(t, ca.Issue(nil, "a.example"), nil)
		time.Sleep(10 * time.Second)
		if f.name() != "a.example" || f.logged("in use") != 0 {
			t.Fatalf("%s, and the log has %s", f.name(), f.log.String())
		}
		ca.Issue(nil, "b.example").Files(f.dir)
		time.Sleep(3 * time.Second)
		if f.name() != "b.example" || f.logged("a new certificate is in use") != 1 {
			t.Errorf("%s, and the log has %s", f.name(), f.log.String())
		}
		// A renewal replaces file by file. Between the two nothing fits, and nobody is alarmed.
		next := ca.Issue(nil, "c.example")
		certstest.Write(t, filepath.Join(f.dir, "cert.pem"), next.Cert)
		time.Sleep(500 * time.Millisecond)
		certstest.Write(t, filepath.Join(f.dir, "key.pem"), next.Key)
		time.Sleep(3 * time.Second)
		if f.name() != "c.example" || f.failures(t) != 0 {
			t.Errorf("%s after %g failures: %s", f.name(), f.failures(t), f.log.String())
		}
	})
}

func TestReloaderKeepsTheOldPairAndSaysSoOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := certstest.NewCA(t, "root")
		f := follow(t, ca.Issue(nil, "a.example"), nil)
		next := ca.Issue(nil, "b.example")
		certstest.Write(t, filepath.Join(f.dir, "cert.pem"), next.Cert)
		time.Sleep(time.Minute)
		if f.name() != "a.example" || f.failures(t) != 1 || f.logged("cannot be used") != 1 {
			t.Fatalf("%s after %g failures: %s", f.name(), f.failures(t), f.log.String())
		}
		if err := os.Remove(filepath.Join(f.dir, "cert.pem")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if f.name() != "a.example" || f.failures(t) != 2 || f.logged("cannot be used") != 1 {
			t.Errorf("%s after %g failures: %s", f.name(), f.failures(t), f.log.String())
		}
		if f.Reload() == nil || f.failures(t) != 3 || f.logged("cannot be used") != 2 {
			t.Errorf("%g failures after somebody asked: %s", f.failures(t), f.log.String())
		}
		next.Files(f.dir)
		if err := f.Reload(); err != nil || f.name() != "b.example" {
			t.Errorf("%s, %v", f.name(), err)
		}
	})
}

func TestReloaderFollowsRoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, second := certstest.NewCA(t, "root"), certstest.NewCA(t, "second")
		f := follow(t, ca.Issue(nil, "a.example"), ca.PEM)
		if !f.Pool().Equal(ca.Pool()) {
			t.Fatal("other roots than in the file")
		}
		certstest.Write(t, filepath.Join(f.dir, "ca.pem"), second.PEM)
		time.Sleep(3 * time.Second)
		if !f.Pool().Equal(second.Pool()) {
			t.Error("the old roots are still in use")
		}
	})
}

func TestReloaderTellsHowLongItsCertificateIsValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := certstest.NewCA(t, "root")
		f := follow(t, ca.Issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(90 * time.Second) }, "a.example"), nil)
		time.Sleep(30 * time.Second)
		want := `
			# HELP owr_tls_certificate_expiry_seconds How long the certificate in use is still valid; negative once it has expired.
			# TYPE owr_tls_certificate_expiry_seconds gauge
			owr_tls_certificate_expiry_seconds{use="test"} 60
		`
		if err := testutil.GatherAndCompare(f.registry, strings.NewReader(want), "owr_tls_certificate_expiry_seconds"); err != nil {
			t.Error(err)
		}
		ca.Issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "a.example").Files(f.dir)
		time.Sleep(3 * time.Second)
		if f.logged("the certificate has expired") != 1 {
			t.Error(f.log.String())
		}
	})
}

func TestNewReloaderWantsBothFiles(t *testing.T) {
	for _, c := range []certs.Config{{}, {Cert: "x"}, {Key: "x"}, {Cert: "x", CA: "x"}} {
		if _, err := certs.NewReloader(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

// A server's handshakes have the certificate and the roots of the moment, and sessions are resumed all the same.
func TestServerFollows(t *testing.T) {
	ca, second := certstest.NewCA(t, "root"), certstest.NewCA(t, "second")
	dir := t.TempDir()
	cfg := certs.Config{Use: "test", CA: filepath.Join(dir, "ca.pem")}
	cfg.Cert, cfg.Key = ca.Issue(nil, "a.example").Files(dir)
	certstest.Write(t, cfg.CA, ca.PEM)
	r, err := certs.NewReloader(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := r.Server(&tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.VerifyClientCertIfGiven})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// shake answers what the server has seen, and the client's error.
	shake := func(client *tls.Config) (tls.ConnectionState, error) {
		far, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		near, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s, c := tls.Server(near, server), tls.Client(far, client)
		seen := make(chan tls.ConnectionState, 1)
		go func() {
			if s.Handshake() == nil {
				_, _ = s.Write([]byte("x"))
			}
			seen <- s.ConnectionState()
			_ = s.Close()
		}()
		_, err = c.Read(make([]byte, 1)) // tickets come before it
		_ = far.Close()
		return <-seen, err
	}
	mine := ca.Issue(nil, "client").TLS()
	client := &tls.Config{RootCAs: ca.Pool(), ServerName: "a.example", Certificates: []tls.Certificate{mine}, ClientSessionCache: tls.NewLRUClientSessionCache(2)}
	for i, resumed := range []bool{false, true} {
		got, err := shake(client)
		if err != nil || len(got.VerifiedChains) != 1 || got.DidResume != resumed {
			t.Errorf("handshake %d: %v, %d chains, resumed %v", i, err, len(got.VerifiedChains), got.DidResume)
		}
	}
	if got, err := shake(&tls.Config{RootCAs: ca.Pool(), ServerName: "a.example"}); err != nil || len(got.PeerCertificates) != 0 {
		t.Errorf("without a certificate: %v", err)
	}
	second.Issue(nil, "b.example").Files(dir)
	certstest.Write(t, cfg.CA, second.PEM)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	next := &tls.Config{RootCAs: second.Pool(), ServerName: "b.example"}
	if _, err := shake(next); err != nil {
		t.Errorf("the new certificate: %v", err)
	}
	next.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &mine, nil }
	if got, err := shake(next); err == nil || len(got.VerifiedChains) != 0 {
		t.Errorf("a client of the old roots is taken: %v", err)
	}
	// Neither does a session from before let it in.
	client.RootCAs.AppendCertsFromPEM(second.PEM)
	if got, err := shake(client); err == nil && len(got.VerifiedChains) != 0 {
		t.Error("a session of the old roots is resumed")
	}
}
