package mirror

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	const password, own = "s3cret word", "p4int"
	server := startRedis(t)
	server.do("CONFIG", "SET", "requirepass", password)
	server.options.Password = password
	// What the mirror needs, and nothing else.
	server.do("ACL", "SETUSER", "painter", "on", ">"+own, "~shop*", "+@read", "+@write", "+eval", "+evalsha", "+select", "-@dangerous")
	cases := []struct {
		name               string
		username, password string
		db                 int
		works              bool
	}{
		{"password alone", "", password, 0, true},
		{"the default user by name", "default", password, 1, true},
		{"a user with as few rights as can be", "painter", own, 2, true},
		{"no login where one is needed", "", "", 3, false},
		{"a wrong password", "", "wr0ng", 4, false},
		{"a wrong user", "nobody", own, 5, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRoom()
			someVisitors(r)
			prefix := "shop" + string(rune('0'+c.db)) + ":"
			m := run(t, r, server.addr, 3, func(cfg *Config) {
				cfg.Username, cfg.Password, cfg.DB, cfg.KeyPrefix = c.username, c.password, c.db, prefix
			})
			if !c.works {
				eventually(t, repaired, func() bool { return m.Status().LastError != "" }, m.log.String)
				if m.Status().Healthy || m.log.count("mirror lost") != 1 {
					t.Errorf("status %+v, log:\n%s", m.Status(), m.log)
				}
			} else {
				options := server.options
				options.DB = c.db
				client := redis.NewClient(&options)
				defer client.Close()
				shows(t, client, prefix, r, repaired)
				change(r)
				shows(t, client, prefix, r, time.Second)
				client.Del(t.Context(), prefix+"queue")
				shows(t, client, prefix, r, repaired)
			}
			for _, secret := range []string{password, own, "wr0ng"} {
				if strings.Contains(m.log.String(), secret) || strings.Contains(m.Status().LastError, secret) {
					t.Errorf("a password shows: %+v\n%s", m.Status(), m.log)
				}
			}
		})
	}
}

func TestNoLogin(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r := newRoom()
		someVisitors(r)
		run(t, r, addr, 3, func(c *Config) { c.DB, c.KeyPrefix = 7, "{wr}:" })
		client := redis.NewClient(&redis.Options{Addr: addr, DB: 7, Protocol: 2, DisableIdentity: true})
		defer client.Close()
		shows(t, client, "{wr}:", r, repaired)
		if n := dial(t, addr).DBSize(t.Context()).Val(); n != 0 {
			t.Errorf("%d keys in database 0, want none", n)
		}
	})
}

func TestTwoRoomsInOneDatabase(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		a, b := newRoom(), newRoom()
		b.tokens = 1000
		someVisitors(a)
		someVisitors(b)
		run(t, a, addr, 3, func(c *Config) { c.KeyPrefix = "a:" })
		run(t, b, addr, 5, func(c *Config) { c.KeyPrefix, c.Cluster = "b:", func() string { return "c2" } })
		client := dial(t, addr)
		eventually(t, repaired, func() bool {
			pa, _, _ := look(t.Context(), client, "a:")
			pb, _, _ := look(t.Context(), client, "b:")
			return differs(pa, a.picture()) == "" && differs(pb, b.picture()) == ""
		}, func() string { return "both pictures are not there" })
	})
}

// certificate writes a certificate of 127.0.0.1 that is its own authority.
func certificate(t *testing.T, dir string) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return certFile, keyFile, roots
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certFile, keyFile, roots := certificate(t, t.TempDir())
	port := freePort(t)
	server := &server{t: t, addr: "127.0.0.1:" + port, dir: t.TempDir(), args: []string{
		"--port", "0", "--tls-port", port, "--tls-cert-file", certFile, "--tls-key-file", keyFile, "--tls-auth-clients", "no",
	}}
	server.options = redis.Options{Addr: server.addr, Protocol: 2, DisableIdentity: true, TLSConfig: &tls.Config{RootCAs: roots}}
	server.start()
	t.Cleanup(server.kill)
	client := server.client()
	defer client.Close()

	r := newRoom()
	someVisitors(r)
	run(t, r, server.addr, 3, func(c *Config) { c.TLS = &tls.Config{RootCAs: roots} })
	shows(t, client, "wr:", r, repaired)
	change(r)
	shows(t, client, "wr:", r, time.Second)

	for name, config := range map[string]*tls.Config{"an unknown authority": {}, "another name": {RootCAs: roots, ServerName: "redis.example"}, "no TLS": nil} {
		m := run(t, newRoom(), server.addr, 9, func(c *Config) { c.TLS, c.KeyPrefix = config, "other:" })
		eventually(t, repaired, func() bool { return m.Status().LastError != "" }, m.log.String)
		if m.Status().Healthy {
			t.Errorf("%s is taken", name)
		}
		m.stop()
	}
	if n := client.Exists(t.Context(), "other:mirror").Val(); n != 0 {
		t.Error("something was written without a certificate that fits")
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := Config{Source: newRoom(), Cluster: func() string { return "c1" }, Addr: "redis:6379"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	cases := map[string]func(*Config){
		"no port":                  func(c *Config) { c.Addr = "redis" },
		"an empty port":            func(c *Config) { c.Addr = "redis:" },
		"a negative database":      func(c *Config) { c.DB = -1 },
		"a control byte in prefix": func(c *Config) { c.KeyPrefix = "wr\n" },
		"no source":                func(c *Config) { c.Source = nil },
		"no cluster":               func(c *Config) { c.Cluster = nil },
	}
	for name, spoil := range cases {
		bad := good
		spoil(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestNoMirror(t *testing.T) {
	t.Parallel()
	m := run(t, newRoom(), "", 3, func(c *Config) { c.Source, c.Cluster = nil, nil })
	if s := m.Status(); s != (Status{}) {
		t.Errorf("status %+v, want not enabled", s)
	}
	m.stop()
	if families, _ := m.registry.Gather(); len(families) > 0 {
		t.Errorf("%d metrics of a mirror that is off", len(families))
	}
}
