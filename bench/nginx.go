//go:build linux

package main

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

//go:embed room/*.lua
var room embed.FS

// page is what the origin answers: 127 bytes.
const page = `<!doctype html><html lang="en"><head><title>shop</title></head><body><p>Everything is still available.</p></body></html>....`

const nginxHead = `daemon off;
pid %[1]s/pid;
error_log %[1]s/error.log warn;
worker_processes %[2]d;
worker_rlimit_nofile 65536;
events { worker_connections 16384; }
`

const nginxHTTP = `
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
`

// nginx starts nginx with the rest of a configuration.
func (l *lab) nginx(name string, workers int, before, http string) (*process, error) {
	p := &process{name: name, folder: l.folder(name)}
	conf := before + fmt.Sprintf(nginxHead, p.folder, workers) + "http {" + fmt.Sprintf(nginxHTTP, p.folder) + http + "}\n"
	path := filepath.Join(p.folder, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	l.processes = append(l.processes, p)
	return p, l.spawn(p, nil, "nginx", "-p", p.folder, "-c", path, "-e", filepath.Join(p.folder, "error.log"))
}

// origin starts the origin: nginx with one worker and a page of 127 bytes.
func (l *lab) origin() (*process, string, error) {
	address := l.address()
	body := page + strings.Repeat(".", max(0, 127-len(page)))
	p, err := l.nginx("origin", 1, "", fmt.Sprintf(`
  server {
    listen %s backlog=4096;
    location / { default_type text/html; return 200 '%s'; }
  }
`, address, body[:127]))
	if err != nil {
		return nil, "", err
	}
	return p, address, l.awaitHTTP(p, address, "/", 200)
}

const nginxUpstream = `
  upstream origin { server %s; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 300s; }
`

const nginxProxied = `
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
`

// plainNginx starts nginx as a proxy that decides nothing.
func (l *lab) plainNginx(origin string) (*process, string, error) {
	address := l.address()
	p, err := l.nginx("nginx", 2, "", fmt.Sprintf(nginxUpstream, origin)+fmt.Sprintf(`
  server {
    listen %s backlog=4096;
    location / {%s    }
  }
`, address, nginxProxied))
	if err != nil {
		return nil, "", err
	}
	return p, address, l.awaitHTTP(p, address, "/", 200)
}

// luaModules are where Debian has them.
const luaModules = `load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
`

// luaRoom starts the waiting room in nginx, Lua and Redis that owr is compared with.
func (l *lab) luaRoom(origin, redis string, maxActive int) (*process, string, error) {
	address := l.address()
	lua := l.folder("room-lua")
	files, err := fs.Glob(room, "room/*.lua")
	if err != nil {
		return nil, "", err
	}
	for _, f := range files {
		text, err := room.ReadFile(f)
		if err != nil {
			return nil, "", err
		}
		if err := os.WriteFile(filepath.Join(lua, filepath.Base(f)), text, 0o644); err != nil {
			return nil, "", err
		}
	}
	host, port, _ := strings.Cut(redis, ":")
	p, err := l.nginx("lua", 2, luaModules, fmt.Sprintf(nginxUpstream, origin)+fmt.Sprintf(`
  lua_package_path "%s/?.lua;/usr/share/lua/5.1/?.lua;;";
  init_by_lua_block {
    room = require("room").new { host = "%s", port = %s, max_active = %d, active_ttl = 86400, release_interval = 2 }
  }
  init_worker_by_lua_block { room:start() }
  server {
    listen %s backlog=4096;
    location = /wr_healthcheck { default_type text/plain; return 200 OK; }
    location = /queue.html { default_type text/html; return 200 '<!doctype html><title>Please wait</title>'; }
    location = /wr_check { default_type application/json; content_by_lua_block { room:check() } }
    location / {
      access_by_lua_block { room:gate() }%s    }
  }
`, lua, host, port, maxActive, address, nginxProxied))
	if err != nil {
		return nil, "", err
	}
	return p, address, l.awaitHTTP(p, address, "/wr_healthcheck", 200)
}
