package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const sampleStatus = `{"node":"n1","role":"leader","leader":"n1","term":3,"applied_index":4711,"feature_level":2,"table_sum":"9f3c",
 "peers":[{"id":"n1","address":"n1:7000","voter":true,"healthy":true},{"id":"n2","address":"n2:7000","voter":true,"healthy":false}],
 "room":{"active":99,"released":1,"queued":5321,"absent":12,
         "max_active":100,"active_ttl":60,"claim_ttl":120,"queue_absent":90.5,"queue_ttl":1800,"queue_max":9000,
         "overrides":{"queue_max":9000,"max_active":100}},
 "mirror":{"enabled":true,"healthy":true,"behind_ms":4}}`

// node answers one path with one body.
func node(t *testing.T, path, body string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestStatusShowsTheNode(t *testing.T) {
	address := node(t, "/v1/status", sampleStatus)
	code, out, stderr := command(t, []string{"WR_ADMIN_LISTEN=" + address}, "status")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d, %q", code, stderr)
	}
	for _, want := range []string{
		"n1, leader", "term 3", "index 4711, sum 9f3c", "level   2", "healthy, 4 ms behind", "100 of 100 held: 99 active, 1 released",
		"5321 queued, 12 of them absent, at most 9000", "queue_absent 90.5", "max_active, queue_max, by the admin API", "n2    n2:7000  yes    no",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestStatusOfAFollowerWithoutALeader(t *testing.T) {
	var out bytes.Buffer
	if err := (&nodeStatus{Node: "n2", Role: "follower"}).write(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "leader  none") || !strings.Contains(out.String(), "the leader knows") {
		t.Errorf("got\n%s", out.String())
	}
}

func TestStatusTellsWhatIsWrongWithTheMirror(t *testing.T) {
	body := strings.Replace(sampleStatus, `"healthy":true,"behind_ms":4`, `"healthy":false,"behind_ms":9000,"error":"connection refused"`, 1)
	_, out, _ := command(t, nil, "status", "--admin", node(t, "/v1/status", body))
	if !strings.Contains(out, "not healthy, 9000 ms behind: connection refused") {
		t.Errorf("got\n%s", out)
	}
}

func TestStatusOfNobodyFails(t *testing.T) {
	silent := httptest.NewServer(nil)
	address := strings.TrimPrefix(silent.URL, "http://")
	silent.Close()
	for _, admin := range []string{address, node(t, "/else", ""), node(t, "/v1/status", "no JSON")} {
		code, out, stderr := command(t, nil, "status", "--admin", admin)
		if code != 1 || out != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, admin) {
			t.Errorf("exit %d, %q, %q", code, out, stderr)
		}
	}
}

func TestHealthcheck(t *testing.T) {
	if code, _, stderr := command(t, []string{"WR_LISTEN=" + node(t, "/wr_healthcheck", "OK")}, "healthcheck"); code != 0 {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if code, _, _ := command(t, nil, "healthcheck", "--listen", node(t, "/else", "OK")); code != 1 {
		t.Errorf("a node that does not answer: exit %d", code)
	}
}

// A node that protects reading is asked with the token for it, or with the one for everything.
func TestLookingSendsAToken(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		w.Write([]byte(sampleStatus))
	}))
	defer server.Close()
	address := "WR_ADMIN_LISTEN=" + strings.TrimPrefix(server.URL, "http://")
	for _, c := range []struct {
		environ []string
		want    string
	}{
		{nil, ""},
		{[]string{"WR_ADMIN_TOKEN=0perate"}, "Bearer 0perate"},
		{[]string{"WR_ADMIN_TOKEN=0perate", "WR_ADMIN_READ_TOKEN=r3ad"}, "Bearer r3ad"},
	} {
		for _, args := range [][]string{{"status"}, {"cluster", "list"}} {
			if code, _, stderr := command(t, append(c.environ, address), args...); code != 0 || got != c.want {
				t.Errorf("%q %q: exit %d %s, sent %q, want %q", c.environ, args, code, stderr, got, c.want)
			}
		}
	}
}
