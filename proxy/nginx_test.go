package proxy

import (
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/internal/freeport"
)

const cachingNginx = `daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr;
events { worker_connections 128; }
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  proxy_cache_path %[1]s/cache keys_zone=shared:1m;
  server {
    listen %[2]s;
    location / {
      proxy_pass http://%[3]s;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_cache shared;
      proxy_cache_valid any 10m;
      add_header X-Cache $upstream_cache_status always;
    }
  }
}
`

// cachingProxy is a stand that is reached through an nginx with a cache of its own.
func cachingProxy(t *testing.T, behind *stand) (front *stand, cache string) {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is missing")
	}
	address, dir := freeport.Address(t), t.TempDir()
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, fmt.Appendf(nil, cachingNginx, dir, address, behind.addr), 0o600); err != nil {
		t.Fatal(err)
	}
	said := &lockedBuffer{}
	cmd := exec.Command(nginx, "-p", dir, "-c", path, "-e", "stderr")
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not listen: %s", said.String())
		}
		<-time.After(20 * time.Millisecond)
	}
	return &stand{Server: behind.Server, t: t, room: behind.room, addr: address, log: behind.log}, filepath.Join(dir, "cache")
}

// W35: behind a shared cache with its default rules each visitor has a token and an answer of its own. What the site lets a
// cache keep, it keeps.
func TestNothingOfOursIsInASharedCache(t *testing.T) {
	plainOnly(t) // the cache asks in plain text
	for _, mode := range []string{ModeRedirect, ModeInline} {
		t.Run(mode, func(t *testing.T) {
			room := newRoom(t, 1)
			_, inside := room.active(t)
			origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "public, max-age=600")
				_, _ = fmt.Fprintf(w, "for %s", r.Header.Get("X-Who"))
			})
			front, cache := cachingProxy(t, serve(t, room, origin.URL, func(c *Config) { c.QueueMode, c.QueueStatus = mode, 200 }))

			tokens := map[string]bool{}
			for _, target := range []string{"/shop", "/queue.html?r=/shop&p=1", "/wr_check?r=/shop", "/wr_healthcheck", "/wr_ready", "//evil.example"} {
				for _, accept := range []string{"text/html", "application/json"} {
					for range 3 {
						r := front.ask("GET", target, "Accept: "+accept)
						if got := r.Header.Get("X-Cache"); got != "MISS" {
							t.Errorf("%s: %d from the cache: %s", target, r.StatusCode, got)
						}
						if token := r.ours(); token != "" {
							if tokens[token] {
								t.Errorf("%s: two visitors have one token", target)
							}
							tokens[token] = true
						}
					}
				}
			}
			if len(tokens) < 9 {
				t.Errorf("%d visitors were given tokens", len(tokens))
			}
			// The first answer of the site to a visitor carries its cookie, and is nobody else's.
			room.do(func(r *fakeRoom) { r.limits.MaxActive = 3 })
			for _, who := range []string{"a", "b"} {
				r := front.ask("GET", "/first", "X-Who: "+who)
				if r.StatusCode != 200 || r.ours() == "" || tokens[r.ours()] || r.text != "for "+who {
					t.Errorf("%s: %d %q, %q", who, r.StatusCode, r.text, r.ours())
				}
				tokens[r.ours()] = true
			}
			// The cache is one: what has no cookie of ours is kept.
			for _, want := range []string{"MISS", "HIT"} {
				if r := front.ask("GET", "/static", "Cookie: "+inside); r.Header.Get("X-Cache") != want || r.ours() != "" {
					t.Errorf("/static: %s, want %s", r.Header.Get("X-Cache"), want)
				}
			}
			kept := 0
			err := filepath.WalkDir(cache, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				kept++
				text, err := os.ReadFile(path)
				if strings.Contains(string(text), "wr_token") || !strings.Contains(string(text), "/static") {
					t.Errorf("the cache keeps %q", text)
				}
				return err
			})
			if err != nil || kept != 1 {
				t.Errorf("the cache keeps %d answers, %v", kept, err)
			}
		})
	}
}
