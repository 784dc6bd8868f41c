package authority

import (
	"crypto/x509"
	"net/url"
	"testing"
)

// Any name of a member survives the way through a certificate.
func TestMemberNames(t *testing.T) {
	a, _, err := New("a cluster", 10*day)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"n1", "N1", "node-1.example", "..", "a:b", "a?b#c%20", "a b;c@d", "*"} {
		pair, err := a.Issue(Request{Name: name, URI: MemberURI(name), Server: true, Client: true, Life: day})
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if got := MemberName(parse(t, pair)); got != name {
			t.Errorf("%q came back as %q", name, got)
		}
	}
}

func TestWhatNamesNoMember(t *testing.T) {
	for _, names := range [][]string{nil, {"https://node/n1"}, {"owr://client/n1"}, {"owr://node"}, {"owr://node/"}, {"owr://node/n1?x"}, {"owr://node/n1#x"}, {"owr://u@node/n1"}, {"owr://node/n1", "owr://node/n2"}} {
		cert := &x509.Certificate{}
		for _, text := range names {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			cert.URIs = append(cert.URIs, u)
		}
		if got := MemberName(cert); got != "" {
			t.Errorf("%v: %q", names, got)
		}
	}
	other := &x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "example", Path: "/x"}, MemberURI("n1")}}
	if got := MemberName(other); got != "n1" {
		t.Errorf("a name of somebody else's beside it: %q", got)
	}
}
