package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"strings"
	"testing"
)

const (
	operateToken = "0perate-0perate-0perate"
	readToken    = "r3ad-r3ad-r3ad-r3ad-r3ad"
)

func bearer(token string) func(*http.Request) { return header("Authorization", "Bearer "+token) }

// certificate is what crypto/tls leaves of a client's certificate with these organizational units.
func certificate(verified bool, units ...string) func(*http.Request) {
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: "ann", OrganizationalUnit: units}}
	return func(r *http.Request) {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
		if verified {
			r.TLS.VerifiedChains = [][]*x509.Certificate{{leaf}}
		}
	}
}

// Each caller against each kind of call. The statuses are those of a status, of the metrics, of a change, of a
// backup and of health.
func TestRoles(t *testing.T) {
	both := func(c *Config) { c.Token, c.ReadToken = operateToken, readToken }
	protected := func(c *Config) { c.Token, c.ReadToken, c.ProtectReads = operateToken, readToken, true }
	certs := func(c *Config) { c.ClientCertificates, c.ProtectReads = true, true }
	afar := from("192.0.2.7:1")
	cases := []struct {
		name string
		cfg  func(*Config)
		with []func(*http.Request)
		want [5]int
	}{
		{"the token alone is set: reading is open", func(c *Config) { c.Token = operateToken }, []func(*http.Request){afar}, [5]int{200, 200, 401, 401, 200}},
		{"nobody, and there is a token for reading", both, nil, [5]int{401, 200, 401, 401, 200}},
		{"who reads", both, []func(*http.Request){afar, bearer(readToken)}, [5]int{200, 200, 403, 403, 200}},
		{"who operates", both, []func(*http.Request){afar, bearer(operateToken)}, [5]int{200, 200, 200, 200, 200}},
		{"who guesses", both, []func(*http.Request){afar, bearer("guess")}, [5]int{401, 200, 401, 401, 200}},
		{"nobody, and reading is protected", protected, nil, [5]int{401, 401, 401, 401, 200}},
		{"who reads what is protected", protected, []func(*http.Request){bearer(readToken)}, [5]int{200, 200, 403, 403, 200}},
		{"who operates what is protected", protected, []func(*http.Request){bearer(operateToken)}, [5]int{200, 200, 200, 200, 200}},
		{"a token for reading alone, over loopback", func(c *Config) { c.ReadToken = readToken }, nil, [5]int{200, 200, 200, 200, 200}},
		{"a token for reading alone, shown over loopback", func(c *Config) { c.ReadToken = readToken }, []func(*http.Request){bearer(readToken)}, [5]int{200, 200, 403, 403, 200}},
		{"a token for reading alone, from afar", func(c *Config) { c.ReadToken = readToken }, []func(*http.Request){afar}, [5]int{403, 200, 403, 403, 200}},
		{"protected by nothing but loopback, there", func(c *Config) { c.ProtectReads = true }, nil, [5]int{200, 200, 200, 200, 200}},
		{"protected by nothing but loopback, from afar", func(c *Config) { c.ProtectReads = true }, []func(*http.Request){afar}, [5]int{403, 403, 403, 403, 200}},

		{"a certificate that operates", certs, []func(*http.Request){afar, certificate(true, "operate")}, [5]int{200, 200, 200, 200, 200}},
		{"a certificate that reads", certs, []func(*http.Request){afar, certificate(true, "read")}, [5]int{200, 200, 403, 403, 200}},
		{"a certificate of both", certs, []func(*http.Request){afar, certificate(true, "operate", "read")}, [5]int{200, 200, 200, 200, 200}},
		{"a certificate of no role", certs, []func(*http.Request){certificate(true, "sales", "Operate", "operate ")}, [5]int{403, 403, 403, 403, 200}},
		{"a certificate that nobody has verified", certs, []func(*http.Request){certificate(false, "operate")}, [5]int{401, 401, 401, 401, 200}},
		{"no certificate, over loopback", certs, nil, [5]int{401, 401, 401, 401, 200}},
		{"a certificate that reads, with the token", protected, []func(*http.Request){afar, certificate(true, "read"), bearer(operateToken)}, [5]int{200, 200, 200, 200, 200}},
		{"a certificate that operates, with a wrong token", protected, []func(*http.Request){afar, certificate(true, "operate"), bearer("old")}, [5]int{200, 200, 200, 200, 200}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n := &node{}
			h := n.handlerOf(t, func(cfg *Config) {
				c.cfg(cfg)
				cfg.Backup = func() (*Backup, error) { return &Backup{Name: "b", Body: http.NoBody}, nil }
			})
			got := [5]int{
				ask(h, "GET", "/v1/status", "", c.with...).Code, ask(h, "GET", "/metrics", "", c.with...).Code,
				ask(h, "PUT", "/v1/limits", `{"max_active":3}`, c.with...).Code, ask(h, "GET", "/v1/backup", "", c.with...).Code,
				ask(h, "GET", "/readyz", "", c.with...).Code,
			}
			if got != c.want {
				t.Errorf("status, metrics, change, backup and health are %v, want %v", got, c.want)
			}
			if members := ask(h, "GET", "/v1/cluster", "", c.with...).Code; members != c.want[0] {
				t.Errorf("the members are %d, want %d as the status", members, c.want[0])
			}
			for _, call := range [][2]string{{"DELETE", "/v1/visitors/" + visitor}, {"POST", "/v1/cluster/remove"}} {
				code := ask(h, call[0], call[1], `{"id":"n1"}`, c.with...).Code
				if allowed := code < 300 || code == 404; allowed != (c.want[2] == 200) || !allowed && code != c.want[2] {
					t.Errorf("%s %s is %d where PUT is %d", call[0], call[1], code, c.want[2])
				}
			}
			if (len(n.changes) == 1 && len(n.asked) == 1) != (c.want[2] == 200) {
				t.Errorf("%d limits and %d members were changed", len(n.changes), len(n.asked))
			}
		})
	}
}

// The log says of each change who made it, and of what is refused who asked.
func TestChangesAreAudited(t *testing.T) {
	n := &node{known: true}
	h := n.handlerOf(t, func(c *Config) {
		c.Token, c.ReadToken, c.ClientCertificates = operateToken, readToken, true
		c.Keys, c.RotateKey = func() []Key { return nil }, func(context.Context) error { return nil }
	})
	line := func() string {
		text := n.log.String()
		n.log.Reset()
		return text
	}
	for _, c := range []struct {
		what  func()
		words []string
	}{
		{
			func() { ask(h, "PUT", "/v1/limits", `{"max_active":3}`, bearer(operateToken)) },
			[]string{`"msg":"limits changed"`, `"caller":"127.0.0.1:40000"`, `"role":"operate"`, `"by":"token"`, `"set":{"max_active":3}`, `"index":4712`},
		},
		{
			func() { ask(h, "DELETE", "/v1/visitors/"+visitor, "", certificate(true, "operate")) },
			[]string{`"msg":"visitor removed"`, `"role":"operate"`, `"by":"certificate"`, `"certificate":"CN=ann,OU=operate"`, `"index":4713`},
		},
		{
			func() { ask(h, "POST", "/v1/cluster/remove", `{"id":"n1"}`, bearer(operateToken)) },
			[]string{`"msg":"members changed"`, `"change":"remove"`, `"member":"n1"`, `"by":"token"`, `"applied_index":4711`},
		},
		{
			func() { ask(h, "POST", "/v1/keys/rotate", "", bearer(operateToken)) },
			[]string{`"msg":"proof keys changed"`, `"change":"rotate"`, `"by":"token"`, `"status":200`, `"applied_index":4711`},
		},
		{
			func() { ask(h, "PUT", "/v1/limits", `{"max_active":3}`, bearer(readToken)) },
			[]string{`"msg":"admin call refused"`, `"role":"read"`, `"by":"token"`, `"method":"PUT"`, `"path":"/v1/limits"`, `"status":403`},
		},
		{
			func() { ask(h, "PUT", "/v1/limits", `{"max_active":-3}`, bearer(operateToken)) },
			[]string{`"msg":"limits not changed"`, `"role":"operate"`, `"status":400`},
		},
	} {
		c.what()
		got := line()
		for _, w := range c.words {
			if !strings.Contains(got, w) {
				t.Errorf("the log has no %s in %s", w, got)
			}
		}
		if strings.Count(got, "\n") != 1 || strings.Contains(got, operateToken) || strings.Contains(got, readToken) {
			t.Errorf("want one line without a token, got %s", got)
		}
	}
}

// What a caller chooses cannot make the log long, or a second line in it.
func TestTheLogKeepsItsShape(t *testing.T) {
	n := &node{}
	h := n.handler(t, operateToken)
	r := func(r *http.Request) { r.URL.Path = "/v1/visitors/" + strings.Repeat("x\n", 4000) }
	ask(h, "DELETE", "/v1/visitors/x", "", r)
	if log := n.log.String(); strings.Count(log, "\n") != 1 || len(log) > 1000 {
		t.Errorf("%d bytes in %d lines: %.300s", len(log), strings.Count(log, "\n"), log)
	}
}

func TestOneTokenIsNotBoth(t *testing.T) {
	cfg := (&node{}).config(operateToken)
	cfg.ReadToken = operateToken
	if _, err := New(cfg); err == nil {
		t.Error("whoever reads may change")
	}
}
