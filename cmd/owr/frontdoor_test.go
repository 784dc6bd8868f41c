package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// A door is one whole node in this process, with a site behind it.
type door struct {
	t             testing.TB
	public, admin string
	log           lockedLog
	mu            sync.Mutex
	targets       []string // that the site has seen, as they came
}

// lockedLog is a log that is read while it is written.
type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func openDoor(t *testing.T, environ ...string) *door {
	t.Helper()
	ports, err := freePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	at := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])) }
	d := &door{t: t, public: at(0), admin: at(1)}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.targets = append(d.targets, r.RequestURI)
		d.mu.Unlock()
		io.WriteString(w, "the site")
	}))
	t.Cleanup(site.Close)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	environ = append([]string{
		"WR_LISTEN=" + at(0), "WR_ADMIN_LISTEN=" + at(1), "WR_CLUSTER_LISTEN=" + at(2), "WR_NODE_ID=n1", "WR_PEERS=n1=" + at(2),
		"WR_BACKEND_URL=" + site.URL, "WR_REDIS_HOST=off", "WR_MAX_ACTIVE=1", "WR_DATA_DIR=" + filepath.Join(t.TempDir(), "data"), "WR_LOG_LEVEL=debug",
	}, environ...)
	go func() { ended <- run(ctx, []string{"serve"}, environ, &d.log, &d.log) }()
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != exitOK {
			t.Errorf("the node ended with %d: %s", code, d.log.String())
		}
	})
	deadline := time.Now().Add(30 * time.Second)
	for {
		if _, text, err := fetch("GET", "http://"+d.public+"/wr_ready", nil); err == nil && strings.TrimSpace(text) == "OK" {
			return d
		}
		if time.Now().After(deadline) {
			t.Fatalf("the node is not ready: %s", d.log.String())
		}
		<-time.After(20 * time.Millisecond)
	}
}

// fetch makes one request that follows no redirect.
func fetch(method, url string, header map[string]string) (status int, text string, err error) {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		return 0, "", err
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	client := &http.Client{
		Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

// raw sends bytes to the public listener and returns the status and all that comes back.
func (d *door) raw(request string) (int, string) {
	d.t.Helper()
	c, err := net.Dial("tcp", d.public)
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		d.t.Fatal(err)
	}
	var all bytes.Buffer
	res, err := http.ReadResponse(bufio.NewReader(io.TeeReader(c, &all)), nil)
	if err != nil {
		d.t.Fatalf("%q: no answer: %v", request, err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, all.String()
}

// enter returns the cookies of a visitor that is inside and of one that waits.
func (d *door) enter() (inside, waiting string) {
	d.t.Helper()
	visit := func(cookie string) (string, string) {
		_, text := d.raw("GET / HTTP/1.1\r\nHost: shop.test\r\nAccept: text/html\r\n" + cookie + "Connection: close\r\n\r\n")
		if _, value, ok := strings.Cut(text, "Set-Cookie: "); ok {
			value, _, _ = strings.Cut(value, ";")
			cookie = "Cookie: " + value + "\r\n"
		}
		return cookie, text
	}
	inside, text := visit("")
	if !strings.Contains(text, "the site") {
		d.t.Fatalf("the first visitor got %s", text)
	}
	waiting, text = visit("")
	if !strings.Contains(text, " 302 ") {
		d.t.Fatalf("the second visitor got %s", text)
	}
	visit(waiting)
	return inside, waiting
}

func (d *door) seen() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.targets
	d.targets = nil
	return out
}

func (d *door) status(header map[string]string) string {
	d.t.Helper()
	_, text, err := fetch("GET", "http://"+d.admin+"/v1/status", header)
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

// However a path of the admin listener is spelt, on the public one it is a path of the site like any other.
func TestTheAdminListenerIsNotBehindThePublicOne(t *testing.T) {
	d := openDoor(t)
	inside, waiting := d.enter()
	d.seen()
	ours := []string{"table_sum", "applied_index", "max_active", "go_goroutines", "owr_", "members", "bearer", "heap"}
	paths := []string{
		"/v1/status", "/v1/limits", "/v1/cluster", "/v1/backup", "/metrics", "/livez", "/readyz", "/debug/pprof/", "/%761/status", "/v1%2fstatus", "/v1%2Flimits",
		"//v1/status", "/./v1/status", "/x/../v1/status", "/wr_check/../v1/status", "/wr_ready/../metrics", "/queue.html/../v1/status", "/V1/STATUS", "/v1/status/", "/v1/status?x=1",
		"/;/v1/status", "/v1;x/status", "/v1/./status", "/%2e%2e/v1/status", "/admin/v1/status", "/v1/visitors/0b0a7a1c-9f8e-4d7c-8a6b-112233445566",
	}
	for _, path := range paths {
		for _, target := range []string{path, "http://HOST" + path} {
			for _, host := range []string{"shop.test", d.admin, "127.0.0.1:9090", "localhost"} {
				target := strings.Replace(target, "HOST", host, 1)
				status, text := d.raw("GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + inside + "Connection: close\r\n\r\n")
				seen := d.seen()
				forwarded := status == 200 && strings.HasSuffix(text, "the site") && slices.Equal(seen, []string{path})
				if status != 400 && !forwarded {
					t.Errorf("GET %s of %s, inside: %d, and the site saw %q", target, host, status, seen)
				}
				for _, w := range ours {
					if strings.Contains(strings.ToLower(text), w) {
						t.Errorf("GET %s of %s, inside: the answer has %q", target, host, w)
					}
				}
			}
		}
		if status, text := d.raw("GET " + path + " HTTP/1.1\r\nHost: " + d.admin + "\r\nAccept: text/html\r\n" + waiting + "Connection: close\r\n\r\n"); status != 302 && status != 400 || strings.Contains(text, "table_sum") {
			t.Errorf("GET %s, waiting: %d", path, status)
		}
		if seen := d.seen(); len(seen) > 0 {
			t.Errorf("GET %s, waiting: the site saw %q", path, seen)
		}
	}
	for _, method := range []string{"PUT", "POST", "DELETE", "PATCH"} {
		for _, cookie := range []string{inside, waiting, ""} {
			d.raw(method + " /v1/limits HTTP/1.1\r\nHost: " + d.admin + "\r\n" + cookie + "Content-Type: application/json\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{\"max_active\":9}")
		}
	}
	if s := d.status(nil); !strings.Contains(s, `"max_active":1,`) {
		t.Errorf("a limit was changed from outside: %s", s)
	}
}

// What visitors choose makes no new series.
func TestVisitorsMakeNoSeries(t *testing.T) {
	d := openDoor(t)
	inside, waiting := d.enter()
	round := func(from, to int) {
		for i := from; i < to; i++ {
			for _, cookie := range []string{inside, waiting, fmt.Sprintf("Cookie: wr_token=%d\r\n", i), ""} {
				d.raw(fmt.Sprintf("GET /path/%d?q=%d HTTP/1.1\r\nHost: h%d.test\r\nUser-Agent: a%d\r\n%sConnection: close\r\n\r\n", i, i, i, i, cookie))
			}
			d.raw(fmt.Sprintf("M%d /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", i))
			d.raw(fmt.Sprintf("GET /wr_check?%d HTTP/1.1\r\nHost: a\r\n%sConnection: close\r\n\r\n", i, waiting))
		}
	}
	series := func() []string {
		_, text, err := fetch("GET", "http://"+d.admin+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for line := range strings.Lines(text) {
			if name, _, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && line[0] != '#' {
				names = append(names, name)
			} else if line[0] != '#' {
				name, _, _ := strings.Cut(line, " ")
				names = append(names, name)
			}
		}
		return names
	}
	round(0, 3)
	before := series()
	round(3, 100)
	if after := series(); len(before) < 50 || !slices.Equal(before, after) {
		t.Errorf("%d series became %d", len(before), len(after))
	}
}

// The secrets of a node stand in nothing that it says, to whomever it says it.
func TestSecretsStayInside(t *testing.T) {
	redis := miniredis.RunT(t)
	redis.RequireAuth("another") // so that there is an error to tell
	secrets := map[string]string{
		"WR_ADMIN_TOKEN": "0perate-hunter2-hunter2", "WR_ADMIN_READ_TOKEN": "r3ad-hunter2-hunter2", "WR_CLUSTER_SECRET": "clust3r-hunter2-hunter2", "WR_REDIS_PASS": "r3dis-hunter2-hunter2",
	}
	environ := []string{"WR_REDIS_HOST=127.0.0.1", "WR_REDIS_PORT=" + redis.Port(), "WR_ADMIN_PROTECT_READS=on"}
	for name, value := range secrets {
		environ = append(environ, name+"="+value)
	}
	d := openDoor(t, environ...)
	inside, _ := d.enter()
	said := map[string]string{}
	for _, path := range []string{"/v1/status", "/v1/cluster", "/metrics", "/livez", "/readyz", "/v1/limits", "/no/such/path", "/debug/pprof/goroutine?debug=2"} {
		for _, token := range []string{"0perate-hunter2-hunter2", "r3ad-hunter2-hunter2", "wrong-hunter3", ""} {
			_, text, err := fetch("GET", "http://"+d.admin+path, map[string]string{"Authorization": "Bearer " + token})
			if err != nil {
				t.Fatal(err)
			}
			said["admin "+path] += text
		}
	}
	if !strings.Contains(said["admin /v1/status"], "table_sum") || !strings.Contains(said["admin /metrics"], "owr_queued") {
		t.Error("the tokens were not taken")
	}
	_, said["a change"], _ = fetch("PUT", "http://"+d.admin+"/v1/limits", map[string]string{"Authorization": "Bearer 0perate-hunter2-hunter2"})
	_, said["the site"] = d.raw("GET / HTTP/1.1\r\nHost: a\r\n" + inside + "Connection: close\r\n\r\n")
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(d.log.String(), "mirror lost") {
		if time.Now().After(deadline) {
			t.Fatalf("Redis takes a wrong password: %s", d.log.String())
		}
		<-time.After(20 * time.Millisecond)
	}
	said["admin /v1/status"] += d.status(map[string]string{"Authorization": "Bearer r3ad-hunter2-hunter2"})
	var stacks bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 2)
	said["a dump of the goroutines"] = stacks.String()
	said["the log"] = d.log.String()
	if len(stacks.String()) < 1000 || !strings.Contains(said["the log"], "admin call refused") {
		t.Error("there is nothing to search in")
	}
	for where, text := range said {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "hunter3") {
			t.Errorf("a secret stands in %s", where)
		}
		if id, _, _ := strings.Cut(strings.TrimPrefix(inside, "Cookie: wr_token="), "."); where != "the site" && strings.Contains(text, id) {
			t.Errorf("a visitor's id stands whole in %s", where)
		}
	}
}
