package authority

import (
	"crypto/x509"
	"net/url"
	"strings"
)

// A member's certificate names it by one URI, owr://node/NAME: no name of the DNS, which somebody else may come to hold, and
// nothing that a certificate for a web site or for a person has.
const (
	memberScheme = "owr"
	memberHost   = "node"
)

// MemberURI is the name of a member in its certificate. It takes any name.
func MemberURI(name string) *url.URL {
	return &url.URL{Scheme: memberScheme, Host: memberHost, Path: "/" + name}
}

// MemberName is the inverse: the name that a certificate gives its member, "" when it gives none, or several.
func MemberName(cert *x509.Certificate) string {
	found := ""
	for _, u := range cert.URIs {
		if u.Scheme != memberScheme || u.Host != memberHost {
			continue
		}
		name, ok := strings.CutPrefix(u.Path, "/")
		if !ok || name == "" || found != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return ""
		}
		found = name
	}
	return found
}
