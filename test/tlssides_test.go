package test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/internal/certs/certstest"
	"github.com/openwaitingroom/owr/test/harness"
)

// TestTLSOnEverySide has a real node speak TLS to visitors, to its origin, to a redis-server that wants a certificate of it, and to
// operators. Then its certificate is renewed, first badly.
func TestTLSOnEverySide(t *testing.T) {
	owr := harness.Binary(t)
	for _, tool := range []string{"curl", "redis-server"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is missing")
		}
	}
	ca := certstest.NewCA(t, "tests of owr")
	roots := filepath.Join(t.TempDir(), "ca.pem")
	certstest.Write(t, roots, ca.PEM)
	site, inside := t.TempDir(), t.TempDir()
	siteCert, siteKey := ca.Issue(nil, "shop.test", "127.0.0.1").Files(site)
	cert, key := ca.Issue(nil, "node.test").Files(inside) // what the node shows to others

	origin := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s for %s asked for as %s by %s, %d bytes\n", r.Header.Get("X-Forwarded-Proto"), r.Host, r.TLS.ServerName, r.TLS.PeerCertificates[0].DNSNames[0], n)
	}))
	origin.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	origin.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(nil, "origin.test").TLS()}, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}
	origin.StartTLS()
	t.Cleanup(origin.Close)

	redisDir, redisPort := t.TempDir(), strconv.Itoa(harness.Port(t))
	redisCert, redisKey := ca.Issue(nil, "redis.test").Files(redisDir)
	redis := exec.Command("redis-server", "--bind", harness.Host, "--port", "0", "--tls-port", redisPort, "--tls-cert-file", redisCert, "--tls-key-file", redisKey,
		"--tls-ca-cert-file", roots, "--save", "", "--dir", redisDir)
	if err := redis.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = redis.Process.Kill(); _ = redis.Wait() })

	n := harness.NewNode(t, "n1", origin.URL, harness.Settings{
		"WR_TLS_CERT": siteCert, "WR_TLS_KEY": siteKey,
		"WR_BACKEND_CA": roots, "WR_BACKEND_SERVER_NAME": "origin.test", "WR_BACKEND_CERT": cert, "WR_BACKEND_KEY": key,
		"WR_REDIS_HOST": harness.Host, "WR_REDIS_PORT": redisPort, "WR_REDIS_TLS": "on", "WR_REDIS_CA": roots, "WR_REDIS_SERVER_NAME": "redis.test", "WR_REDIS_CERT": cert, "WR_REDIS_KEY": key,
		"WR_ADMIN_TLS_CERT": siteCert, "WR_ADMIN_TLS_KEY": siteKey, "WR_ADMIN_CLIENT_CA": roots,
	})
	n.Start()
	admin, address := n.Settings["WR_ADMIN_LISTEN"], n.Settings["WR_LISTEN"]
	status := func() string {
		out, _ := exec.Command(owr, "status", "--admin", "https://"+admin, "--admin-ca", roots, "--admin-server-name", "shop.test", "--admin-client-cert", cert, "--admin-client-key", key).CombinedOutput()
		return string(out)
	}
	harness.WaitFor(t, "a leader whose mirror is healthy", 60*time.Second, func() bool {
		s := status()
		return strings.Contains(s, "n1, leader") && strings.Contains(s, "mirror  healthy")
	})

	curl := func(args ...string) string {
		out, err := exec.Command("curl", append([]string{"-sS", "-m", "30", "--noproxy", "*", "--cacert", roots, "--resolve", "shop.test:" + address[strings.LastIndexByte(address, ':')+1:] + ":127.0.0.1"}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("curl %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	public := "https://shop.test:" + address[strings.LastIndexByte(address, ':')+1:]
	host := strings.TrimPrefix(public, "https://")
	jar := filepath.Join(t.TempDir(), "jar")
	out := curl("-i", "-c", jar, public+"/")
	if !strings.HasPrefix(out, "HTTP/1.1 200") || !strings.Contains(out, "; Secure") || !strings.Contains(out, "https for "+host+" asked for as origin.test by node.test, 0 bytes") {
		t.Errorf("a first visit:\n%s", out)
	}
	if out = curl("-b", jar, "--data-binary", "@"+owr, public+"/upload"); !strings.Contains(out, "https for "+host) || strings.Contains(out, " 0 bytes") {
		t.Errorf("an upload: %s", out)
	}
	if out = curl("-o", "/dev/null", "-w", "%{http_code}", "http://"+address+"/"); out != "400" {
		t.Errorf("plain HTTP: %s", out)
	}

	// serial is that of the certificate in use.
	serial := func() string {
		c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: ca.Pool()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	old := serial()
	next := ca.Issue(nil, "shop.test", "127.0.0.1")
	certstest.Write(t, siteCert, next.Cert) // without its key
	hangUp := func() {
		if err := syscall.Kill(n.Pid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangUp()
	harness.WaitFor(t, "the bad pair is told of, for either listener", 20*time.Second, func() bool { return strings.Count(n.Log(), "cannot be used") >= 2 })
	if serial() != old {
		t.Error("the old certificate is not in use any more")
	}
	certstest.Write(t, siteKey, next.Key)
	hangUp()
	harness.WaitFor(t, "the new certificate is in use", 20*time.Second, func() bool { return serial() != old })
	if out = curl("-b", jar, public+"/"); !strings.Contains(out, "https for "+host) {
		t.Errorf("after it: %s", out)
	}
	if code := n.Terminate(40 * time.Second); code != 0 {
		t.Errorf("it ended with exit code %d", code)
	}
}
