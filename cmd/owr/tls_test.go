package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/internal/certs/certstest"
)

// A paper is an authority, two pairs of its making and roots, in files.
type paper struct {
	ca            *certstest.CA
	cert, key     string // for 127.0.0.1 and shop.test
	cert2, key2   string // another pair
	roots, broken string
}

func newPaper(t *testing.T) *paper {
	t.Helper()
	p := &paper{ca: certstest.NewCA(t, "tests of owr")}
	one, two := t.TempDir(), t.TempDir()
	p.cert, p.key = p.ca.Issue(nil, "127.0.0.1", "shop.test").Files(one)
	p.cert2, p.key2 = p.ca.Issue(nil, "n1.test").Files(two)
	p.roots, p.broken = filepath.Join(one, "ca.pem"), filepath.Join(two, "broken.pem")
	certstest.Write(t, p.roots, p.ca.PEM)
	certstest.Write(t, p.broken, []byte("-----BEGIN CERTIFICATE-----\n"))
	return p
}

func TestTLSSettings(t *testing.T) {
	p := newPaper(t)
	cfg := mustConfigure(t, []string{
		"WR_TLS_CERT=" + p.cert, "WR_TLS_KEY=" + p.key, "WR_ADMIN_TLS_CERT=" + p.cert2, "WR_ADMIN_TLS_KEY=" + p.key2, "WR_ADMIN_CLIENT_CA=" + p.roots,
		"WR_BACKEND_URL=https://10.0.0.1", "WR_BACKEND_CA=" + p.roots, "WR_BACKEND_SERVER_NAME=shop.internal", "WR_BACKEND_CERT=" + p.cert, "WR_BACKEND_KEY=" + p.key,
		"WR_REDIS_TLS=1", "WR_REDIS_CA=" + p.roots, "WR_REDIS_SERVER_NAME=::1", "WR_REDIS_CERT=" + p.cert2, "WR_REDIS_KEY=" + p.key2,
	})
	first, second := keyPair{p.cert, p.key}, keyPair{p.cert2, p.key2}
	if cfg.TLS != first || cfg.AdminTLS != second || cfg.AdminClientCA != p.roots || cfg.BackendTLS != (clientTLS{p.roots, "shop.internal", first}) ||
		cfg.Redis.Trust != (clientTLS{p.roots, "::1", second}) {
		t.Errorf("got %+v", cfg)
	}
	cfg = mustConfigure(t, []string{"WR_TLS_CERT=elsewhere", "WR_TLS_KEY=" + p.key}, "--tls-cert", p.cert)
	if cfg.TLS != first {
		t.Errorf("the flag does not win: %+v", cfg.TLS)
	}

	redis, backend := "WR_REDIS_TLS=1", "WR_BACKEND_URL=https://shop"
	for _, c := range []struct {
		environ []string
		named   []string
	}{
		{[]string{"WR_TLS_CERT=" + p.cert}, []string{"WR_TLS_KEY", "WR_TLS_CERT", "both"}},
		{[]string{"WR_TLS_KEY=" + p.key}, []string{"WR_TLS_CERT", "WR_TLS_KEY", "both"}},
		{[]string{"WR_TLS_CERT=" + p.cert, "WR_TLS_KEY=" + p.key2}, []string{"WR_TLS_CERT", p.cert, "WR_TLS_KEY", "PEM"}},
		{[]string{"WR_TLS_CERT=/none", "WR_TLS_KEY=" + p.key}, []string{"WR_TLS_CERT", "/none", "no such file"}},
		{[]string{"WR_TLS_CERT=" + p.broken, "WR_TLS_KEY=" + p.key}, []string{"WR_TLS_CERT", p.broken}},
		{[]string{"WR_ADMIN_TLS_CERT=" + p.cert}, []string{"WR_ADMIN_TLS_KEY"}},
		{[]string{"WR_ADMIN_CLIENT_CA=" + p.roots}, []string{"WR_ADMIN_CLIENT_CA", p.roots, "WR_ADMIN_TLS_CERT"}},
		{[]string{"WR_ADMIN_CLIENT_CA=" + p.broken}, []string{"WR_ADMIN_CLIENT_CA", p.broken}},
		{[]string{backend, "WR_BACKEND_CA=" + p.key}, []string{"WR_BACKEND_CA", p.key, "authorities"}},
		{[]string{backend, "WR_BACKEND_SERVER_NAME=shop:443"}, []string{"WR_BACKEND_SERVER_NAME", "shop:443"}},
		{[]string{backend, "WR_BACKEND_SERVER_NAME=https://shop"}, []string{"WR_BACKEND_SERVER_NAME", "https://shop"}},
		{[]string{backend, "WR_BACKEND_CERT=" + p.cert}, []string{"WR_BACKEND_KEY"}},
		{[]string{"WR_BACKEND_CA=" + p.roots}, []string{"WR_BACKEND_URL", "http://backend:8080", "WR_BACKEND_CA"}},
		{[]string{"WR_BACKEND_SERVER_NAME=shop"}, []string{"WR_BACKEND_URL", "WR_BACKEND_SERVER_NAME"}},
		{[]string{"WR_REDIS_CA=" + p.roots}, []string{"WR_REDIS_TLS", "WR_REDIS_CA"}},
		{[]string{redis, "WR_REDIS_CA=" + p.broken}, []string{"WR_REDIS_CA", p.broken}},
		{[]string{redis, "WR_REDIS_KEY=" + p.key}, []string{"WR_REDIS_CERT"}},
	} {
		code, out, stderr := command(t, c.environ, "serve")
		if code != 2 || out != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit %d, %q, %q", c.environ, code, out, stderr)
		}
		for _, n := range c.named {
			if !strings.Contains(stderr, n) {
				t.Errorf("%q: %q does not name %s", c.environ, stderr, n)
			}
		}
	}
}

// The commands talk to an admin listener with TLS, show a certificate, and trust nobody by chance.
func TestCommandsOverTLS(t *testing.T) {
	p := newPaper(t)
	_, archive := stopped(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, `{"detail":"no certificate"}`, http.StatusForbidden)
			return
		}
		answers := map[string]string{
			"/v1/status": sampleStatus, "/v1/cluster": sampleMembers, "/v1/cluster/promote": sampleMembers, "/v1/backup": string(archive), "/wr_healthcheck": "OK",
		}
		_, _ = io.WriteString(w, answers[r.URL.Path])
	}))
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: p.ca.Pool(), ClientAuth: tls.VerifyClientCertIfGiven}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	address := strings.TrimPrefix(server.URL, "https://")
	shows := []string{"WR_ADMIN_CLIENT_CERT=" + p.cert2, "WR_ADMIN_CLIENT_KEY=" + p.key2}
	trusts := "WR_ADMIN_CA=" + p.roots
	for _, args := range []string{"status", "cluster list", "cluster promote n4", "backup"} {
		for name, environ := range map[string][]string{
			"a scheme": {"WR_ADMIN_LISTEN=" + server.URL, trusts}, "roots say so": {"WR_ADMIN_LISTEN=" + address, trusts},
			"a name": {"WR_ADMIN_LISTEN=" + address, trusts, "WR_ADMIN_SERVER_NAME=shop.test", "WR_ADMIN_TLS_CERT=" + p.cert},
		} {
			code, out, stderr := command(t, append(slices.Clone(environ), shows...), strings.Fields(args)...)
			if code != 0 || out == "" {
				t.Errorf("%s with %s: exit %d, %q", args, name, code, stderr)
			}
		}
		for says, environ := range map[string][]string{
			"unknown authority": {"WR_ADMIN_LISTEN=" + server.URL}, "WR_ADMIN_SERVER_NAME": {"WR_ADMIN_LISTEN=" + address, trusts, "WR_ADMIN_SERVER_NAME=other.test"},
			"not https": {"WR_ADMIN_LISTEN=http://" + address, trusts}, "HTTPS": {"WR_ADMIN_LISTEN=http://" + address}, "not http or https": {"WR_ADMIN_LISTEN=ftp://" + address},
		} {
			environ := slices.Clone(environ)
			if says != "HTTPS" {
				environ = append(environ, shows...)
			}
			code, out, stderr := command(t, environ, strings.Fields(args)...)
			if code == 0 || out != "" || strings.Count(stderr, "\n") != 1 || says != "HTTPS" && !strings.Contains(stderr, says) {
				t.Errorf("%s: exit %d, %q, %q; want %q", args, code, out, stderr, says)
			}
		}
		if code, _, _ := command(t, []string{"WR_ADMIN_LISTEN=" + address, trusts}, strings.Fields(args)...); code != 1 {
			t.Errorf("%s without a certificate: exit %d", args, code)
		}
	}
	plain := node(t, "/v1/status", sampleStatus)
	if code, _, stderr := command(t, []string{"WR_ADMIN_LISTEN=" + plain, trusts}, "status"); code != 1 || !strings.Contains(stderr, "http://HOST:PORT") {
		t.Errorf("a listener without TLS: exit %d, %q", code, stderr)
	}
}

// One node with TLS on both of its listeners, which takes a new certificate while it runs.
func TestANodeWithTLS(t *testing.T) {
	p := newPaper(t)
	ports, err := freePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	at := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])) }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log bytes.Buffer
	ended := make(chan int, 1)
	environ := []string{
		"WR_LISTEN=" + at(0), "WR_ADMIN_LISTEN=" + at(1), "WR_CLUSTER_LISTEN=" + at(2), "WR_NODE_ID=n1", "WR_REDIS_HOST=off", "WR_BACKEND_URL=http://127.0.0.1:1",
		"WR_DATA_DIR=" + filepath.Join(t.TempDir(), "n1"), "WR_TLS_CERT=" + p.cert, "WR_TLS_KEY=" + p.key,
		"WR_ADMIN_TLS_CERT=" + p.cert, "WR_ADMIN_TLS_KEY=" + p.key, "WR_ADMIN_CLIENT_CA=" + p.roots,
	}
	go func() { ended <- run(ctx, []string{"serve"}, environ, &log, &log) }()
	asks := []string{"--admin", at(1), "--admin-ca", p.roots, "--admin-client-cert", p.cert2, "--admin-client-key", p.key2}
	until(t, "n1, leader", append([]string{"status"}, asks...)...)
	if code, _, stderr := command(t, environ, "healthcheck"); code != 0 {
		t.Errorf("healthcheck: exit %d, %q", code, stderr)
	}
	if code, _, _ := command(t, nil, "healthcheck", "--listen", at(0)); code != 1 {
		t.Errorf("a health check without TLS: exit %d", code)
	}

	get := func(url string) (*http.Response, string, error) {
		client := newClient(&tls.Config{RootCAs: p.ca.Pool()})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			return nil, "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res, string(body), err
	}
	res, _, err := get("https://" + at(0) + "/")
	if err != nil || len(res.Cookies()) != 1 || !res.Cookies()[0].Secure {
		t.Fatalf("a visitor over TLS: %v, %v", res, err)
	}
	old := res.TLS.PeerCertificates[0].SerialNumber
	p.ca.Issue(nil, "127.0.0.1").Files(filepath.Dir(p.cert))
	deadline := time.Now().Add(30 * time.Second)
	for {
		public, _, err := get("https://" + at(0) + "/wr_healthcheck")
		if err != nil {
			t.Fatal(err)
		}
		private, _, err := get("https://" + at(1) + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		if public.TLS.PeerCertificates[0].SerialNumber.Cmp(old) != 0 && private.TLS.PeerCertificates[0].SerialNumber.Cmp(old) != 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not in use")
		}
		<-time.After(50 * time.Millisecond)
	}
	_, metrics, err := get("https://" + at(1) + "/metrics")
	for _, want := range []string{`owr_tls_certificate_expiry_seconds{use="public"} `, `owr_tls_certificate_expiry_seconds{use="admin"} `, `owr_tls_reload_failures_total{use="public"} 0`, `owr_tls_handshakes_total{result="full"} `} {
		if err != nil || !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics (%v)", want, err)
		}
	}
	cancel()
	if code := <-ended; code != exitOK {
		t.Errorf("it ended with exit code %d and\n%s", code, log.String())
	}
	if strings.Contains(log.String(), "handshake") {
		t.Errorf("a handshake is in the log:\n%s", log.String())
	}
}
