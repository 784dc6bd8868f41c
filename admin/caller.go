package admin

import (
	"crypto/tls"
	"slices"
)

// A role is what a caller may do. A higher one may all that a lower one may.
type role uint8

const (
	roleNone    role = iota // nobody we know
	roleRead                // may look
	roleOperate             // may look and change
)

func (r role) String() string {
	return [...]string{"none", "read", "operate"}[r]
}

// A caller is who makes a call, as far as it has proved that.
type caller struct {
	address string // of the other end, with its port
	role    role
	by      string // what proved the role: certificate, token or loopback; empty: nothing did
	subject string // of the client's certificate; empty: it showed none that is valid
}

// attrs describe the caller in the log. The token is not among them.
func (c *caller) attrs(more ...any) []any {
	out := []any{"caller", c.address, "role", c.role.String()}
	if c.by != "" {
		out = append(out, "by", c.by)
	}
	if c.subject != "" {
		out = append(out, "certificate", shorten(c.subject))
	}
	return append(out, more...)
}

// certify takes the role from the certificate that the client has shown: its organizational unit is
// the name of the role. A chain is there only after crypto/tls has verified it against the
// authority of this listener; a certificate that has none is no certificate.
func (c *caller) certify(state *tls.ConnectionState) {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return
	}
	name := state.VerifiedChains[0][0].Subject
	c.by, c.subject = "certificate", name.String()
	for _, r := range []role{roleRead, roleOperate} {
		if slices.Contains(name.OrganizationalUnit, r.String()) {
			c.role = r
		}
	}
}

// maxLogged is how much of a text of the caller's choice goes into one line of the log, in bytes.
const maxLogged = 200

func shorten(text string) string {
	if len(text) > maxLogged {
		return text[:maxLogged] + "…"
	}
	return text
}
