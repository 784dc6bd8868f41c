package admin

import (
	"net/http"
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	cases := []struct {
		name   string
		with   []func(*http.Request)
		status int
	}{
		{"none", nil, 401},
		{"right", []func(*http.Request){header("Authorization", "Bearer s3cret-token")}, 200},
		{"right, from afar", []func(*http.Request){header("Authorization", "Bearer s3cret-token"), from("192.0.2.7:1"), host("owr.example")}, 200},
		{"the scheme in lower case", []func(*http.Request){header("Authorization", "bearer s3cret-token")}, 200},
		{"a part of it", []func(*http.Request){header("Authorization", "Bearer s3cret")}, 401},
		{"more than it", []func(*http.Request){header("Authorization", "Bearer s3cret-token2")}, 401},
		{"another case", []func(*http.Request){header("Authorization", "Bearer S3cret-token")}, 401},
		{"empty", []func(*http.Request){header("Authorization", "Bearer ")}, 401},
		{"no scheme", []func(*http.Request){header("Authorization", "s3cret-token")}, 401},
		{"basic", []func(*http.Request){header("Authorization", "Basic s3cret-token")}, 401},
		{"two", []func(*http.Request){header("Authorization", "Bearer s3cret-token"), header("Authorization", "Bearer x")}, 400},
		{"a page of another site", []func(*http.Request){header("Authorization", "Bearer s3cret-token"), header("Sec-Fetch-Site", "cross-site")}, 403},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n := &node{known: true}
			h := n.handler(t, "s3cret-token")
			got := ask(h, "PUT", "/v1/limits", `{"max_active":3}`, c.with...)
			if got.Code != c.status {
				t.Errorf("%d %s, want %d", got.Code, got.Body, c.status)
			}
			if challenge := got.Header().Get("WWW-Authenticate"); (challenge != "") != (c.status == 401) || c.status == 401 && !strings.HasPrefix(challenge, "Bearer") {
				t.Errorf("WWW-Authenticate %q with %d", challenge, got.Code)
			}
			if (len(n.changes) == 1) != (c.status == 200) {
				t.Errorf("%d changes with %d", len(n.changes), got.Code)
			}
			left := ask(h, "DELETE", "/v1/visitors/"+visitor, "", c.with...)
			if want := map[int]int{200: 204}[c.status]; want != 0 && left.Code != want || want == 0 && left.Code != c.status {
				t.Errorf("DELETE is %d where PUT is %d", left.Code, c.status)
			}
			if strings.Contains(n.log.String(), "cret") {
				t.Errorf("the log holds a token: %s", n.log.String())
			}
		})
	}
}

func TestLoopback(t *testing.T) {
	cases := []struct {
		name   string
		with   []func(*http.Request)
		status int
	}{
		{"IPv4", nil, 200},
		{"another loopback address", []func(*http.Request){from("127.8.8.8:5")}, 200},
		{"IPv6", []func(*http.Request){from("[::1]:5"), host("[::1]:9090")}, 200},
		{"IPv4 in IPv6", []func(*http.Request){from("[::ffff:127.0.0.1]:5")}, 200},
		{"localhost", []func(*http.Request){host("localhost:9090")}, 200},
		{"localhost without a port", []func(*http.Request){host("localhost")}, 200},
		{"from afar", []func(*http.Request){from("192.0.2.7:5")}, 403},
		{"from afar over IPv6", []func(*http.Request){from("[2001:db8::1]:5")}, 403},
		{"from nowhere", []func(*http.Request){from("@")}, 403},
		{"from afar, with a word of its own", []func(*http.Request){from("192.0.2.7:5"), header("X-Forwarded-For", "127.0.0.1")}, 403},
		{"through a proxy on this machine", []func(*http.Request){header("X-Forwarded-For", "192.0.2.7")}, 403},
		{"through another", []func(*http.Request){header("Forwarded", "for=192.0.2.7")}, 403},
		{"a name that was rebound", []func(*http.Request){host("rebind.evil.example:9090")}, 403},
		{"a page of another site", []func(*http.Request){header("Origin", "https://evil.example")}, 403},
		{"a page of the same site", []func(*http.Request){header("Origin", "http://127.0.0.1:9090"), header("Sec-Fetch-Site", "same-origin")}, 200},
		{"a token that nobody asked for", []func(*http.Request){header("Authorization", "Bearer x")}, 200},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n := &node{}
			got := ask(n.handler(t, ""), "PUT", "/v1/limits", `{"max_active":3}`, c.with...)
			if got.Code != c.status {
				t.Errorf("%d %s, want %d", got.Code, got.Body, c.status)
			}
			if (len(n.changes) == 1) != (c.status == 200) {
				t.Errorf("%d changes with %d", len(n.changes), got.Code)
			}
		})
	}
}

func TestRefusalsDoNotFillTheLog(t *testing.T) {
	n := &node{}
	h := n.handler(t, "secret")
	for range 1000 {
		ask(h, "PUT", "/v1/limits", `{}`)
	}
	if lines := strings.Count(n.log.String(), "\n"); lines == 0 || lines > 5 {
		t.Errorf("%d lines for 1000 refusals, want a few", lines)
	}
}

// A page whose name was made to mean this machine reads nothing.
func TestReboundNamesReadNothing(t *testing.T) {
	h := (&node{}).handler(t, operateToken)
	for _, c := range []struct {
		with []func(*http.Request)
		want int
	}{
		{[]func(*http.Request){host("rebind.evil.example:9090")}, 421},
		{[]func(*http.Request){host("owr.example"), bearer("guess")}, 421},
		{[]func(*http.Request){host("owr.example"), bearer(operateToken)}, 200},
		{[]func(*http.Request){host("REBIND.evil.example.")}, 421},
		{[]func(*http.Request){host("evil.localhost.example")}, 421},
		{[]func(*http.Request){host("owr.internal"), from("192.0.2.7:1")}, 200},
		{[]func(*http.Request){host("n1:9090")}, 200},
		{[]func(*http.Request){host("localhost")}, 200},
		{[]func(*http.Request){host("owr.localhost:9090")}, 200},
		{[]func(*http.Request){host("[::1]:9090"), from("[::1]:5")}, 200},
	} {
		for _, path := range []string{"/v1/status", "/v1/cluster"} {
			if got := ask(h, "GET", path, "", c.with...); got.Code != c.want {
				t.Errorf("%s: %d, want %d", path, got.Code, c.want)
			}
		}
		if got := ask(h, "GET", "/metrics", "", c.with...); got.Code != 200 {
			t.Errorf("metrics: %d", got.Code)
		}
	}
	if got := ask((&node{}).handler(t, ""), "GET", "/v1/status", "", host("rebind.evil.example")); got.Code != 421 {
		t.Errorf("where there is no token: %d", got.Code)
	}
}

// The keys are in a backup, so a page of another site may not even ask for one.
func TestABackupIsNoBusinessOfAnotherSite(t *testing.T) {
	asked := 0
	h := (&node{}).handlerOf(t, func(c *Config) {
		c.Backup = func() (*Backup, error) { asked++; return &Backup{Name: "b", Body: http.NoBody}, nil }
	})
	for site, want := range map[string]int{"cross-site": 403, "same-site": 403, "same-origin": 200, "none": 200} {
		if got := ask(h, "GET", "/v1/backup", "", header("Sec-Fetch-Site", site)); got.Code != want {
			t.Errorf("%s: %d, want %d", site, got.Code, want)
		}
	}
	if asked != 2 {
		t.Errorf("%d backups were begun, want 2", asked)
	}
}
