package admin

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestMembersAreShownToWhoeverAsks(t *testing.T) {
	n := &node{}
	got := ask(n.handler(t, "secret"), "GET", "/v1/cluster", "", from("192.0.2.7:1"))
	if got.Code != 200 || !strings.Contains(got.Body.String(), `"id":"n1","address":"n1:7000","voter":true,"edge":false,"leader":true,"reachable":true,"last_contact_ms":0,"behind":0`) {
		t.Errorf("%d %s", got.Code, got.Body)
	}
}

func TestMembersAreChanged(t *testing.T) {
	n := &node{}
	h := n.handler(t, "")
	for path, body := range map[string]string{
		"join": `{"id":"n4","address":"n4:7000","edge":true}`, "promote": `{"id":"n4"}`, "remove": `{"id":"n4"}`, "transfer": `{}`,
	} {
		if got := ask(h, "POST", "/v1/cluster/"+path, body); got.Code != 200 || !strings.Contains(got.Body.String(), `"members":[`) {
			t.Errorf("%s: %d %s", path, got.Code, got.Body)
		}
	}
	for _, want := range []MemberChange{{"join", "n4", "n4:7000", true}, {"promote", "n4", "", false}, {"remove", "n4", "", false}, {"transfer", "", "", false}} {
		if !slices.Contains(n.asked, want) {
			t.Errorf("nobody asked for %+v, but for %+v", want, n.asked)
		}
	}
	if log := n.log.String(); strings.Count(log, "members changed") != 4 || !strings.Contains(log, "127.0.0.1:40000") {
		t.Errorf("the log does not tell who changed what: %s", log)
	}
}

func TestBadChangesOfMembersAreNamed(t *testing.T) {
	n := &node{}
	h := n.handler(t, "")
	for _, c := range []struct{ path, body, says string }{
		{"remove", ``, "not JSON"},
		{"remove", `{"id":"n1"}garbage`, "not JSON"},
		{"remove", `["n1"]`, "not an object"},
		{"remove", `{}`, "id: it is missing"},
		{"remove", `{"id":7}`, "7 is not a text"},
		{"remove", `{"id":"n1","id":"n2"}`, "id: given twice"},
		{"remove", `{"ID":"n1"}`, "ID"},
		{"remove", `{"id":"n1","address":"n1:7000"}`, "address"},
		{"join", `{"id":"n1"}`, "address: it is missing"},
		{"join", `{"id":"n1","address":{}}`, "an object is not a text"},
		{"join", `{"id":"n1","address":"n1:7000","edge":"yes"}`, "edge"},
		{"transfer", `{"to":"n1"}`, "to"},
	} {
		got := ask(h, "POST", "/v1/cluster/"+c.path, c.body)
		if got.Code != 400 || !strings.Contains(got.Body.String(), c.says) {
			t.Errorf("%s %s: %d %s, want 400 with %q", c.path, c.body, got.Code, got.Body, c.says)
		}
	}
	if got := ask(h, "POST", "/v1/cluster/remove", `{"id":"n1"}`, kind("text/plain")); got.Code != 415 {
		t.Errorf("a form: %d", got.Code)
	}
	if got := ask(h, "POST", "/v1/cluster/remove", `{"id":"n1"}`, kind("")); got.Code != 415 {
		t.Errorf("of no kind: %d", got.Code)
	}
	if got := ask(h, "GET", "/v1/cluster/remove", ""); got.Code != 405 {
		t.Errorf("GET on a change: %d", got.Code)
	}
	if len(n.asked) != 0 {
		t.Errorf("asked for %+v", n.asked)
	}
}

func TestRefusedChangesOfMembers(t *testing.T) {
	for _, c := range []struct {
		fail error
		code int
	}{
		{&RefusedError{Reason: "too few voters"}, 409},
		{&RefusedError{Reason: "no such member", Unknown: true}, 404},
		{errors.New("no leader can be reached"), 503},
	} {
		n := &node{fail: c.fail}
		got := ask(n.handler(t, ""), "POST", "/v1/cluster/remove", `{"id":"n1"}`)
		if got.Code != c.code || !strings.Contains(got.Body.String(), c.fail.Error()) || got.Header().Get("Retry-After") == "" != (c.code != 503) {
			t.Errorf("%v: %d %s, want %d and the reason", c.fail, got.Code, got.Body, c.code)
		}
	}
}

func TestChangesOfMembersNeedTheToken(t *testing.T) {
	n := &node{}
	h := n.handler(t, "secret")
	for _, op := range []string{OpJoin, OpPromote, OpRemove, OpTransfer} {
		if got := ask(h, "POST", "/v1/cluster/"+op, `{"id":"n1","address":"n1:7000"}`); got.Code != 401 {
			t.Errorf("%s without the token: %d", op, got.Code)
		}
	}
	if got := ask(n.handler(t, ""), "POST", "/v1/cluster/remove", `{"id":"n1"}`, from("192.0.2.7:1")); got.Code != 403 || len(n.asked) != 0 {
		t.Errorf("from afar: %d, %+v", got.Code, n.asked)
	}
}
