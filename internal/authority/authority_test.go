package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"strings"
	"testing"
	"time"
)

const day = 24 * time.Hour

func parse(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(p.Cert)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// What RFC 5280 asks of a root: sections 4.1.2.2 (serial number), 4.2.1.1 to 4.2.1.3 (key identifiers and usage), 4.2.1.9.
func TestAuthorityProfile(t *testing.T) {
	a, pair, err := New("a cluster", 10*day)
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, pair)
	if !c.IsCA || !c.BasicConstraintsValid || c.MaxPathLen != 0 || !c.MaxPathLenZero {
		t.Errorf("basic constraints: CA %v, path length %d", c.IsCA, c.MaxPathLen)
	}
	if c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || len(c.ExtKeyUsage) != 0 {
		t.Errorf("key usage %b, extended %v", c.KeyUsage, c.ExtKeyUsage)
	}
	if len(c.SubjectKeyId) == 0 || c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() < 64 || c.SerialNumber.BitLen() > 160 {
		t.Errorf("subject key id %x, serial number %v", c.SubjectKeyId, c.SerialNumber)
	}
	if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() || c.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		t.Errorf("key %T, signature %v", c.PublicKey, c.SignatureAlgorithm)
	}
	if c.Version != 3 || c.Subject.CommonName != "a cluster" || c.Issuer.String() != c.Subject.String() {
		t.Errorf("version %d, subject %v, issuer %v", c.Version, c.Subject, c.Issuer)
	}
	again, err := Parse(pair.Cert, pair.Key)
	if err != nil || !again.NotAfter().Equal(a.NotAfter()) {
		t.Errorf("read again: %v", err)
	}
}

func TestIssuedProfile(t *testing.T) {
	a, pair, err := New("a cluster", 10*day)
	if err != nil {
		t.Fatal(err)
	}
	name := &url.URL{Scheme: "owr", Host: "node", Path: "/n 1?#%"}
	issued, err := a.Issue(Request{Name: "n1", Unit: "operate", Hosts: []string{"n1.example", "*.example", "10.0.0.1", "fd00::1"}, URI: name, Server: true, Client: true, Life: day})
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, issued)
	if c.IsCA || !c.BasicConstraintsValid || c.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("CA %v, key usage %b", c.IsCA, c.KeyUsage)
	}
	if string(c.AuthorityKeyId) != string(parse(t, pair).SubjectKeyId) || len(c.SubjectKeyId) != 20 {
		t.Errorf("authority key id %x, subject key id %x", c.AuthorityKeyId, c.SubjectKeyId)
	}
	if len(c.DNSNames) != 2 || len(c.IPAddresses) != 2 || len(c.URIs) != 1 || c.URIs[0].Path != name.Path || c.Subject.OrganizationalUnit[0] != "operate" {
		t.Errorf("names %v %v %v, subject %v", c.DNSNames, c.IPAddresses, c.URIs, c.Subject)
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
			t.Errorf("usage %v: %v", use, err)
		}
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: "n1.example"}); err != nil {
		t.Error(err)
	}
	client, err := a.Issue(Request{Name: "ann", Client: true, Life: day})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(t, client).Verify(x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("a client's certificate is good for a server")
	}
}

func TestWhatIsNotIssued(t *testing.T) {
	a, pair, err := New("a cluster", 10*day)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Issue(Request{Name: "n1", Life: 11 * day}); err == nil || !strings.Contains(err.Error(), "authority") {
		t.Errorf("it outlives the authority: %v", err)
	}
	for _, host := range []string{"", "a b", "-a", "a..b", "http://a", "a:80", "*", "a.*", strings.Repeat("a", 64), "ä"} {
		if _, err := a.Issue(Request{Name: "n1", Hosts: []string{host}, Life: day}); err == nil {
			t.Errorf("the host %q", host)
		}
	}
	_, other, err := New("another", 10*day)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := a.Issue(Request{Name: "n1", Life: day})
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string][2][]byte{
		"the key of another": {pair.Cert, other.Key}, "no authority": {leaf.Cert, leaf.Key}, "no certificate": {pair.Key, pair.Key}, "no key": {pair.Cert, pair.Cert}, "nothing": {},
	} {
		if _, err := Parse(p[0], p[1]); err == nil {
			t.Errorf("%s: no complaint", name)
		}
	}
}
