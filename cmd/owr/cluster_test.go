package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const sampleMembers = `{"by":"n1","leader":"n1","members":[
 {"id":"n1","address":"n1:7000","voter":true,"leader":true,"reachable":true,"last_contact_ms":0,"behind":0},
 {"id":"n2","address":"n2:7000","voter":true,"reachable":false,"last_contact_ms":61500,"behind":17},
 {"id":"n4","address":"n4:7000","reachable":true,"last_contact_ms":120,"behind":3},
 {"id":"n5","address":"n5:7000","edge":true,"reachable":false,"last_contact_ms":-1,"behind":0}]}`

func TestClusterListShowsTheMembers(t *testing.T) {
	code, out, stderr := command(t, []string{"WR_ADMIN_LISTEN=" + node(t, "/v1/cluster", sampleMembers)}, "cluster", "list")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d, %q", code, stderr)
	}
	for _, want := range []string{
		"leader  n1", "n1      n1:7000  leader   yes        0s            0", "n2      n2:7000  voter    no         1m1.5s        17",
		"n4      n4:7000  joining  yes        120ms         3", "n5      n5:7000  edge     no         never         ?",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "seen by") {
		t.Errorf("the leader's own view is called another's:\n%s", out)
	}
	followers := strings.Replace(sampleMembers, `"by":"n1","leader":"n1"`, `"by":"n2","leader":""`, 1)
	if _, out, _ := command(t, nil, "cluster", "list", "--admin", node(t, "/v1/cluster", followers)); !strings.Contains(out, "leader   none") || !strings.Contains(out, "seen by  n2") {
		t.Errorf("got\n%s", out)
	}
}

// change answers one call and keeps it.
type change struct{ method, path, body, token, kind string }

func desk(t *testing.T, code int, answer string) (string, *change) {
	t.Helper()
	got := &change{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*got = change{r.Method, r.URL.Path, string(body), r.Header.Get("Authorization"), r.Header.Get("Content-Type")}
		w.WriteHeader(code)
		io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), got
}

func TestClusterChangesReachTheNode(t *testing.T) {
	for _, c := range []struct{ args, path, body string }{
		{"join n4 n4:7000", "join", `{"id":"n4","address":"n4:7000"}`},
		{"join n4 n4:7000 --edge", "join", `{"id":"n4","address":"n4:7000","edge":true}`},
		{"promote n4", "promote", `{"id":"n4"}`},
		{"remove n4", "remove", `{"id":"n4"}`},
		{"transfer n2", "transfer", `{"id":"n2"}`},
		{"transfer", "transfer", `{}`},
	} {
		address, got := desk(t, 200, sampleMembers)
		code, out, stderr := command(t, []string{"WR_ADMIN_LISTEN=" + address, "WR_ADMIN_TOKEN=t0ken"}, append([]string{"cluster"}, strings.Fields(c.args)...)...)
		if code != 0 || stderr != "" || !strings.Contains(out, "n4:7000") {
			t.Errorf("%s: exit %d, %q, %q", c.args, code, out, stderr)
		}
		if want := (change{"POST", "/v1/cluster/" + c.path, c.body, "Bearer t0ken", "application/json"}); *got != want {
			t.Errorf("%s: sent %+v, want %+v", c.args, *got, want)
		}
	}
}

func TestClusterChangesThatAreRefused(t *testing.T) {
	address, got := desk(t, 409, `{"title":"Conflict","status":409,"detail":"without n3 there would be too few"}`)
	code, out, stderr := command(t, nil, "cluster", "remove", "n3", "--admin", address)
	if code != 1 || out != "" || stderr != "owr: remove n3: without n3 there would be too few\n" || got.token != "" {
		t.Errorf("exit %d, %q, %q, token %q", code, out, stderr, got.token)
	}
	address, _ = desk(t, 502, "a proxy's page")
	if code, _, stderr := command(t, nil, "cluster", "transfer", "--admin", address); code != 1 || !strings.Contains(stderr, address+" answered 502") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
