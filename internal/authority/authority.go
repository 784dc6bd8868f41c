// Package authority makes a private certificate authority and the certificates that it signs, by the profile of RFC 5280.
// Keys are ECDSA on P-256, signatures ECDSA with SHA-256: every TLS 1.2 and 1.3 implementation takes both.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// backdate is how far in the past a certificate begins: the clocks of those who look at it differ.
const backdate = time.Hour

// An Authority signs certificates. Its methods may be called concurrently.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// A Pair is a certificate and its key, PEM-encoded. The key is PKCS #8.
type Pair struct {
	Cert, Key []byte
	NotAfter  time.Time
}

// A Request says what a certificate is to be good for.
type Request struct {
	Name   string   // the subject's common name, 1 to 64 bytes
	Unit   string   // its organizational unit; may be empty
	Hosts  []string // subject alternative names: addresses, and names, also *.example.com
	URI    *url.URL // another one; may be nil
	Server bool     // for the side that accepts a connection
	Client bool     // for the side that makes it
	Life   time.Duration
}

// New makes an authority with a new key. It can not sign other authorities.
func New(name string, life time.Duration) (*Authority, Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, Pair{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	pair, err := sign(template, template, key, key)
	if err != nil {
		return nil, Pair{}, err
	}
	a, err := Parse(pair.Cert, pair.Key)
	return a, pair, err
}

// Parse reads what New has made. Errors say which part can not be used.
func Parse(certPEM, keyPEM []byte) (*Authority, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("the certificate is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("the certificate is not that of an authority")
	}
	block, _ = pem.Decode(keyPEM)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("the key is not PEM of PKCS #8")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T can not sign", parsed)
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PublicKey) {
		return nil, errors.New("certificate and key do not belong together")
	}
	return &Authority{cert: cert, key: key, pem: certPEM}, nil
}

// NotAfter is when the authority's certificate ends.
func (a *Authority) NotAfter() time.Time { return a.cert.NotAfter }

// CertPEM is what those who are to trust the authority need.
func (a *Authority) CertPEM() []byte { return a.pem }

// Signed returns nil when the authority has signed the certificate.
func (a *Authority) Signed(cert *x509.Certificate) error { return cert.CheckSignatureFrom(a.cert) }

// Pool holds the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// Issue makes a key and a certificate for it. One that would outlive the authority is refused: nobody would take it then.
func (a *Authority) Issue(r Request) (Pair, error) {
	now := time.Now()
	if end := now.Add(r.Life); end.After(a.cert.NotAfter) {
		return Pair{}, fmt.Errorf("it would end after the authority does, on %s", a.cert.NotAfter.UTC().Format(time.DateOnly))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: r.Name}, NotBefore: now.Add(-backdate), NotAfter: now.Add(r.Life),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	if r.Unit != "" {
		template.Subject.OrganizationalUnit = []string{r.Unit}
	}
	if r.URI != nil {
		template.URIs = []*url.URL{r.URI}
	}
	if r.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if r.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		if !IsHost(h) {
			return Pair{}, fmt.Errorf("%q is neither an address nor a host name", h)
		}
		template.DNSNames = append(template.DNSNames, h)
	}
	return sign(template, a.cert, key, a.key)
}

// sign makes the certificate of key and reads it back, so that nobody is handed one that can not be read.
func sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer crypto.Signer) (Pair, error) {
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return Pair{}, err
	}
	sum := sha256.Sum256(public)
	template.SubjectKeyId = sum[:20] // RFC 7093, method 1. The library takes the issuer's for the authority key identifier
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Pair{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Cert:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		NotAfter: cert.NotAfter,
	}, nil
}

// IsHost reports whether name is one of the DNS (RFC 1123, section 2.1), or *. before one (RFC 6125, section 6.4.3).
func IsHost(name string) bool {
	name = strings.TrimPrefix(name, "*.")
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return true
}
