package wire

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

var compare = flag.Bool("compare", false, "send the table to nginx and HAProxy too, and hold what they do against testdata/differences.json")

// differences are what other proxies do otherwise than owr with the bytes of the table, and why owr does what it does.
type differences struct {
	// Reasons are the sentences, by a short name.
	Reasons map[string]string `json:"reasons"`
	// Known has an entry for each exchange and proxy that differ: "refuses: " or "forwards: " and the name of a reason. A
	// star at its end says that versions of the proxy differ about it.
	Known map[string]map[string]string `json:"known"`
}

// The same bytes bring the same requests to the origin through owr, nginx and HAProxy, but for the differences that have been looked at.
func TestCompare(t *testing.T) {
	if !*compare {
		t.Skip("run with -compare")
	}
	text, err := os.ReadFile("testdata/differences.json")
	if err != nil {
		t.Fatal(err)
	}
	var d differences
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	for _, proxy := range []struct {
		name, binary string
		config       string
		args         func(file string) []string
	}{
		{"nginx", "nginx", nginxConfig, func(file string) []string { return []string{"-c", file, "-p", filepath.Dir(file)} }},
		{"haproxy", "haproxy", haproxyConfig, func(file string) []string { return []string{"-q", "-f", file} }},
	} {
		t.Run(proxy.name, func(t *testing.T) {
			binary, err := exec.LookPath(proxy.binary)
			if err != nil {
				t.Skip(err)
			}
			origin := newRecorder(t, nil, nil)
			origin.lenient = true
			port := harness.Port(t)
			dir := t.TempDir()
			file := filepath.Join(dir, "proxy.conf")
			config := strings.NewReplacer("DIR", dir, "PORT", fmt.Sprint(port), "ORIGIN", strings.TrimPrefix(origin.URL, "http://")).Replace(proxy.config)
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, binary, proxy.args(file)...)
			d.check(t, proxy.name, harness.Address(port), origin)
		})
	}
}

const nginxConfig = `
daemon off;
master_process off;
pid DIR/nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path DIR/body;
  proxy_temp_path DIR/proxy;
  fastcgi_temp_path DIR/fastcgi;
  uwsgi_temp_path DIR/uwsgi;
  scgi_temp_path DIR/scgi;
  client_header_timeout 4s;
  client_body_timeout 4s;
  server {
    listen 127.0.0.1:PORT;
    location / {
      proxy_pass http://ORIGIN;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
    }
  }
}
`

const haproxyConfig = `
defaults
  mode http
  timeout connect 5s
  timeout client 4s
  timeout server 10s
  timeout http-request 4s
frontend f
  bind 127.0.0.1:PORT
  default_backend b
backend b
  server s ORIGIN
`

// run starts a program that ends with its test.
func run(t *testing.T, binary string, args ...string) {
	t.Helper()
	var log strings.Builder
	cmd := exec.Command(binary, args...)
	cmd.Stderr, cmd.Stdout = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %.2000s", binary, log.String())
		}
	})
}

func (d *differences) check(t *testing.T, proxy, address string, origin *recorder) {
	harness.WaitFor(t, proxy+" answers", 20*time.Second, func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	type sent struct {
		e   exchange
		tag string
	}
	var all []sent
	var wg sync.WaitGroup
	free := make(chan struct{}, 32)
	for _, e := range exchanges() {
		if !e.differ {
			continue
		}
		tag := newTag()
		fill := strings.NewReplacer("{T}", tag, "{C}", "")
		e.send, e.origin = fill.Replace(e.send), slices.Clone(e.origin)
		for i := range e.origin {
			e.origin[i] = fill.Replace(e.origin[i])
		}
		all = append(all, sent{e, tag})
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			c := dial(t, address)
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(6 * time.Second)) // beyond the time that the proxies wait for the rest of a request
			c.send(e.send)
			c.told(methodsOf(e.send), 0, true)
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, s := range all {
		seen[s.e.name] = true
		var got []string
		for _, r := range origin.of(s.tag) {
			if r.whole {
				got = append(got, r.brief())
			}
		}
		want := slices.Clone(s.e.origin)
		slices.Sort(got)
		slices.Sort(want)
		does := "refuses"
		if len(got) > 0 {
			does = "forwards"
		}
		if fault := d.judge(s.e.name, proxy, slices.Equal(got, want), does); fault != "" {
			t.Errorf("%s: %s: it brings %.200q to the origin, owr %.200q", s.e.name, fault, got, want)
		}
	}
	for name, known := range d.Known {
		if !seen[name] && known[proxy] != "" {
			t.Errorf("%s: no such exchange is compared", name)
		}
	}
}

// judge says what is wrong with what is known of an exchange.
func (d *differences) judge(name, proxy string, same bool, does string) string {
	known := d.Known[name][proxy]
	how, why, _ := strings.Cut(strings.TrimSuffix(known, "*"), ": ")
	depends := strings.HasSuffix(known, "*")
	switch {
	case same && known != "" && !depends:
		return "it is said to differ and does not"
	case !same && known == "":
		return "it differs, and nobody has said why"
	case !same && how != does && !depends:
		return fmt.Sprintf("it is said that it %s it", how)
	case known != "" && d.Reasons[why] == "":
		return fmt.Sprintf("the reason %q is none", why)
	}
	return ""
}
