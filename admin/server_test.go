package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/openwaitingroom/owr/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is what stands behind the listener in these tests.
type node struct {
	mu      sync.Mutex
	changes []queue.LimitsChange
	left    []queue.Token
	fail    error
	known   bool
	asked   []MemberChange
	log     bytes.Buffer
}

func (n *node) config(token string) Config {
	registry := prometheus.NewRegistry()
	visits := prometheus.NewCounter(prometheus.CounterOpts{Name: "owr_visits_total", Help: "Visits."})
	registry.MustRegister(visits)
	return Config{
		Token: token, Registry: registry,
		Logger: slog.New(slog.NewJSONHandler(&n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Live:   func() error { return n.fail },
		Ready:  func() error { return n.fail },
		Status: func() Status {
			limits := queue.DefaultLimits()
			limits.MaxActive, limits.ClaimTTL = 2, 1500*time.Millisecond
			return Status{
				Node: "n1", Role: "leader", Leader: "n1", Term: 3, AppliedIndex: 4711, FeatureLevel: 2, TableSum: "9f3c",
				Peers:  []Peer{{ID: "n1", Address: "n1:7000", Voter: true, Healthy: true}},
				Room:   NewRoom(queue.Counts{Active: 1, Released: 2, Queued: 3, Absent: 1}, limits, queue.FieldMaxActive|queue.FieldClaimTTL),
				Mirror: &Mirror{Enabled: true, Healthy: true, BehindMS: 4},
			}
		},
		SetLimits: func(_ context.Context, c queue.LimitsChange) (queue.Limits, uint64, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.fail != nil {
				return queue.Limits{}, 0, n.fail
			}
			n.changes = append(n.changes, c)
			limits := queue.DefaultLimits()
			for _, f := range queue.Fields {
				if c.Set&f.Field != 0 {
					limits.Set(f.Field, c.Values.Get(f.Field))
				}
			}
			return limits, 4712, nil
		},
		Leave: func(_ context.Context, t queue.Token) (bool, uint64, error) {
			n.left = append(n.left, t)
			return n.known, 4713, n.fail
		},
		Members: func(context.Context) Members {
			return Members{By: "n1", Leader: "n1", Members: []Member{{ID: "n1", Address: "n1:7000", Voter: true, Leader: true, Reachable: true}}}
		},
		ChangeMembers: func(_ context.Context, c MemberChange) error {
			n.asked = append(n.asked, c)
			return n.fail
		},
	}
}

func (n *node) handler(t *testing.T, token string) http.Handler {
	t.Helper()
	return n.handlerOf(t, func(c *Config) { c.Token = token })
}

func (n *node) handlerOf(t *testing.T, change func(*Config)) http.Handler {
	t.Helper()
	cfg := n.config("")
	change(&cfg)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s.Handler()
}

// ask is a request from this machine itself, of JSON when it can be, unless change says otherwise.
func ask(h http.Handler, method, path, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:9090"+path, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:40000"
	if method == "PUT" || method == "POST" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

// kind replaces the Content-Type; empty: there is none.
func kind(value string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Del("Content-Type")
		if value != "" {
			r.Header.Set("Content-Type", value)
		}
	}
}

func from(addr string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

const visitor = "0b0a7a1c-9f8e-4d7c-8a6b-112233445566"

func TestReading(t *testing.T) {
	n := &node{}
	h := n.handler(t, "secret")
	cases := []struct {
		path, kind, says string
	}{
		{"/livez", "text/plain; charset=utf-8", "ok\n"},
		{"/readyz", "text/plain; charset=utf-8", "ok\n"},
		{"/metrics", "text/plain", "# TYPE owr_visits_total counter"},
		{"/v1/status", "application/json", `"table_sum":"9f3c"`},
	}
	for _, c := range cases {
		t.Run(c.path, func(t *testing.T) {
			got := ask(h, "GET", c.path, "", from("192.0.2.7:1"), host("owr.internal"))
			if got.Code != 200 || !strings.Contains(got.Body.String(), c.says) {
				t.Errorf("%d %s, want 200 with %q", got.Code, got.Body, c.says)
			}
			if kind := got.Header().Get("Content-Type"); !strings.HasPrefix(kind, c.kind) {
				t.Errorf("Content-Type %q, want %q", kind, c.kind)
			}
			if got.Header().Get("Cache-Control") != "no-store" || got.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers %v, want no-store and nosniff", got.Header())
			}
			if head := ask(h, "HEAD", c.path, ""); head.Code != 200 {
				t.Errorf("HEAD is %d", head.Code)
			}
		})
	}
}

func TestHealthSaysWhyNot(t *testing.T) {
	n := &node{fail: errors.New("no leader for 7 s")}
	h := n.handler(t, "")
	for _, path := range []string{"/livez", "/readyz"} {
		if got := ask(h, "GET", path, ""); got.Code != 503 || !strings.Contains(got.Body.String(), "no leader for 7 s") {
			t.Errorf("%s: %d %q, want 503 and the reason", path, got.Code, got.Body)
		}
	}
}

func TestStatusIsTheContract(t *testing.T) {
	h := (&node{}).handler(t, "")
	want := `{"node":"n1","role":"leader","leader":"n1","term":3,"applied_index":4711,"feature_level":2,"table_sum":"9f3c",` +
		`"peers":[{"id":"n1","address":"n1:7000","voter":true,"healthy":true}],` +
		`"room":{"active":1,"released":2,"queued":3,"absent":1,"unconfirmed":0,"taken_back":0,` +
		`"max_active":2,"active_ttl":60,"claim_ttl":1.5,"queue_absent":90,"queue_ttl":1800,"queue_max":0,"first_hit_ttl":0,` +
		`"overrides":{"claim_ttl":1.5,"max_active":2}},` +
		`"mirror":{"enabled":true,"healthy":true,"behind_ms":4}}` + "\n"
	if got := ask(h, "GET", "/v1/status", "").Body.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var back Status
	if err := json.Unmarshal([]byte(want), &back); err != nil || back.Room.ActiveTTL != 60 || back.Room.Overrides["max_active"] != 2 {
		t.Errorf("does not read back: %+v, %v", back, err)
	}
	if text, _ := json.Marshal(Status{}); strings.Contains(string(text), "mirror") {
		t.Errorf("a follower shows a mirror: %s", text)
	}
}

func TestSetLimits(t *testing.T) {
	n := &node{}
	h := n.handler(t, "")
	got := ask(h, "PUT", "/v1/limits", `{"max_active":2,"queue_max":null}`)
	want := `{"max_active":2,"active_ttl":60,"claim_ttl":120,"queue_absent":90,"queue_ttl":1800,"queue_max":0,"first_hit_ttl":0}` + "\n"
	if got.Code != 200 || got.Body.String() != want {
		t.Fatalf("%d %s, want 200 %s", got.Code, got.Body, want)
	}
	change := queue.LimitsChange{Set: queue.FieldMaxActive, Clear: queue.FieldQueueMax, Values: queue.Limits{MaxActive: 2}}
	if len(n.changes) != 1 || n.changes[0] != change {
		t.Errorf("submitted %+v, want one %+v", n.changes, change)
	}
	log := n.log.String()
	if strings.Count(log, "\n") != 1 || !strings.Contains(log, `"caller":"127.0.0.1:40000"`) || !strings.Contains(log, `"set":{"max_active":2}`) ||
		!strings.Contains(log, `"index":4712`) || !strings.Contains(log, `"role":"operate","by":"loopback"`) {
		t.Errorf("log %s, want one line with the caller, its role, the change and the index of its entry", log)
	}
	if got := ask(h, "PUT", "/v1/limits", `{}`); got.Code != 200 || !strings.Contains(got.Body.String(), `"max_active":2`) || len(n.changes) != 1 {
		t.Errorf("nothing to set: %d %s and %d changes, want the limits in force and no new change", got.Code, got.Body, len(n.changes))
	}
}

func TestSetLimitsRefuses(t *testing.T) {
	n := &node{}
	h := n.handler(t, "")
	cases := []struct {
		name, kind, body string
		status           int
		says             string
	}{
		{"a bad field", "application/json", `{"max_active":-1}`, 400, "max_active"},
		{"good and bad together", "application/json", `{"max_active":3,"queue_max":-5}`, 400, "queue_max"},
		{"no JSON", "application/json", `max_active=3`, 400, "not JSON"},
		{"JSON of no kind", "", `{"max_active":3}`, 415, "application/json"},
		{"nothing of no kind", "", ``, 415, "application/json"},
		{"nothing", "application/json", ``, 400, "not JSON"},
		{"a form", "application/x-www-form-urlencoded", `max_active=3`, 415, "application/json"},
		{"text", "text/plain", `{"max_active":3}`, 415, "application/json"},
		{"multipart", "multipart/form-data; boundary=x", `{"max_active":3}`, 415, "application/json"},
		{"a broken kind", "application/json; charset", `{"max_active":3}`, 415, "application/json"},
		{"64 KiB and one byte", "application/json", strings.Repeat(" ", maxBody) + "{", 413, "64 KiB"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := ask(h, "PUT", "/v1/limits", c.body, kind(c.kind))
			var told struct {
				Status int
				Detail string
			}
			if err := json.Unmarshal(got.Body.Bytes(), &told); err != nil {
				t.Fatalf("%s: %v", got.Body, err)
			}
			if got.Code != c.status || told.Status != c.status || !strings.Contains(told.Detail, c.says) {
				t.Errorf("%d %s, want %d with %q", got.Code, got.Body, c.status, c.says)
			}
			if got.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("Content-Type %q", got.Header().Get("Content-Type"))
			}
		})
	}
	if len(n.changes) > 0 {
		t.Errorf("a refused change was submitted: %+v", n.changes)
	}
	if got := ask(h, "PUT", "/v1/limits", `{"max_active":3}`, header("Content-Type", "text/plain")); got.Code != 415 {
		t.Errorf("two kinds are %d, want 415", got.Code)
	}
	for _, name := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON"} {
		if got := ask(h, "PUT", "/v1/limits", `{"max_active":3}`, kind(name)); got.Code != 200 {
			t.Errorf("%s is %d, want 200", name, got.Code)
		}
	}
	if got := ask(h, "PUT", "/v1/limits", strings.Repeat(" ", maxBody-2)+"{}"); got.Code != 200 {
		t.Errorf("exactly 64 KiB is %d, want 200", got.Code)
	}
}

func TestLeave(t *testing.T) {
	n := &node{known: true}
	h := n.handler(t, "")
	if got := ask(h, "DELETE", "/v1/visitors/"+visitor, ""); got.Code != 204 || got.Body.Len() > 0 {
		t.Errorf("%d %s, want 204", got.Code, got.Body)
	}
	token, _ := queue.ParseToken([]byte(visitor))
	if len(n.left) != 1 || n.left[0] != token {
		t.Errorf("left %v, want %v", n.left, token)
	}
	n.known = false
	if got := ask(h, "DELETE", "/v1/visitors/"+visitor, ""); got.Code != 404 {
		t.Errorf("an unknown visitor is %d, want 404", got.Code)
	}
	for _, id := range []string{"x", strings.ToUpper(visitor), visitor + ".proof", visitor[:35], "%2e%2e", "00000000-0000-1000-8000-000000000000"} {
		if got := ask(h, "DELETE", "/v1/visitors/"+id, ""); got.Code != 400 {
			t.Errorf("DELETE of %q is %d, want 400", id, got.Code)
		}
	}
	if len(n.left) != 2 {
		t.Errorf("%d visitors were asked for, want 2", len(n.left))
	}
	if strings.Contains(n.log.String(), visitor) || strings.Contains(n.log.String(), "10,122") {
		t.Errorf("the log holds a whole id: %s", n.log.String())
	}
}

func TestClusterCannot(t *testing.T) {
	n := &node{fail: errors.New("no leader")}
	h := n.handler(t, "")
	for _, c := range [][3]string{{"PUT", "/v1/limits", `{"max_active":2}`}, {"DELETE", "/v1/visitors/" + visitor, ""}} {
		got := ask(h, c[0], c[1], c[2])
		if got.Code != 503 || got.Header().Get("Retry-After") == "" || !strings.Contains(got.Body.String(), "no leader") ||
			got.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v %s, want 503 with Retry-After and the reason", c[0], got.Code, got.Header(), got.Body)
		}
	}
}

func TestMethods(t *testing.T) {
	h := (&node{}).handler(t, "")
	cases := []struct{ method, path, allow string }{
		{"GET", "/v1/limits", "PUT"},
		{"POST", "/v1/limits", "PUT"},
		{"GET", "/v1/visitors/" + visitor, "DELETE"},
		{"POST", "/v1/status", "GET, HEAD"},
		{"DELETE", "/metrics", "GET, HEAD"},
		{"PUT", "/livez", "GET, HEAD"},
	}
	for _, c := range cases {
		got := ask(h, c.method, c.path, `{"max_active":1}`, header("X-HTTP-Method-Override", "DELETE"))
		if got.Code != 405 || got.Header().Get("Allow") != c.allow {
			t.Errorf("%s %s: %d, Allow %q, want 405 and %q", c.method, c.path, got.Code, got.Header().Get("Allow"), c.allow)
		}
	}
	for _, path := range []string{"/", "/v1", "/v1/visitors", "/debug/pprof/"} {
		if got := ask(h, "GET", path, ""); got.Code != 404 {
			t.Errorf("GET %s is %d, want 404", path, got.Code)
		}
	}
}

func TestServeAndShutdown(t *testing.T) {
	n := &node{}
	s, err := New(n.config(""))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	client := &http.Client{}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://" + l.Addr().String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if answer.StatusCode != 200 || string(body) != "ok\n" {
		t.Errorf("%d %q, want 200", answer.StatusCode, body)
	}
	request, _ := http.NewRequest("PUT", "http://"+l.Addr().String()+"/v1/limits", strings.NewReader(`{"max_active":3}`))
	request.Header.Set("Content-Type", "application/json")
	answer, err = client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 200 {
		t.Errorf("a change over loopback is %d, want 200", answer.StatusCode)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve ended with %v, want nil", err)
	}
}

func TestNewWantsAllItNeeds(t *testing.T) {
	cfg := (&node{}).config("")
	cfg.Leave = nil
	if _, err := New(cfg); err == nil {
		t.Error("a config without Leave is taken")
	}
}
