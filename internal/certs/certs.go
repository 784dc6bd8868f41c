// Package certs reads key pairs and trusted roots from PEM files (RFC 7468), and follows them while they change: who renews a
// certificate puts files into place, and no process has to be told.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxFile is more than any chain or bundle of roots needs, in bytes.
const maxFile = 4 << 20

// Load reads a certificate, with the chain that a peer is shown behind it, and its private key. Its Leaf is set. The error names
// the file, and never shows what is in the key's. A certificate that has expired is no error.
func Load(certFile, keyFile string) (*tls.Certificate, error) {
	chain, err := read(certFile)
	if err != nil {
		return nil, err
	}
	key, err := read(keyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", certFile, err)
		}
	}
	return &pair, nil
}

// LoadPool reads the roots that a peer's certificate may lead to: every block of the file is a certificate that can be used, and
// there is at least one. The roots of the system are not among them.
func LoadPool(file string) (*x509.CertPool, error) {
	rest, err := read(file)
	if err != nil {
		return nil, err
	}
	pool, found := x509.NewCertPool(), false
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("roots %s: a block is %q and not a certificate", file, block.Type)
		}
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("roots %s: %w", file, err)
		}
		pool.AddCert(root)
		found = true
	}
	if !found {
		return nil, fmt.Errorf("roots %s: there is no certificate in PEM form", file)
	}
	return pool, nil
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is not a file", file), err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", file, maxFile)
	}
	return text, nil
}
