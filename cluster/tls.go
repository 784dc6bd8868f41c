package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/openwaitingroom/owr/internal/authority"
	"github.com/openwaitingroom/owr/internal/certs"
)

// TLS is what a node needs to speak TLS 1.3 with the others. Both sides of a connection show a certificate that the private
// authority has signed and that names its node by a URI, owr://node/NODE_ID; names of hosts in it do not matter. All three files
// are PEM, and a new pair or new roots are taken when the files change; connections that are up stay.
type TLS struct {
	Cert, Key, CA string
	Prefer        bool           // while a running cluster changes over: connections without TLS are taken, and made to who knows no TLS
	Metrics       *certs.Metrics // how long the certificate is still valid; nil: nobody asks

	every time.Duration // between two looks at the files; 0: the default; tests
}

// Check reports what keeps the node with this id from speaking TLS with these files, as Open would.
func (t *TLS) Check(node string) error {
	_, err := newPassport(t, node, slog.New(slog.DiscardHandler))
	return err
}

// clusterProtocol is what both sides have to name (ALPN, RFC 7301): a connection that was meant for another port of ours, with
// a certificate that would do here, ends at the handshake.
const clusterProtocol = "owr-cluster"

var (
	errNoTLS     = errors.New("it hung up on the TLS handshake, or answered in clear: it has no WR_CLUSTER_TLS_CERT, or is just ending")
	errPlain     = errors.New("it speaks without TLS, and this node takes nothing but TLS: it lacks WR_CLUSTER_TLS_CERT")
	errTLSHello  = errors.New("it speaks TLS, and this node does not: this one lacks WR_CLUSTER_TLS_CERT")
	errAuthority = errors.New("its certificate is not one of WR_CLUSTER_TLS_CA")
	errWrongName = errors.New("its certificate is another node's")
	errNoName    = errors.New("its certificate names no node by a URI owr://node/NODE_ID")
	errProtocol  = errors.New("it is not on its way to a cluster port")
	errRefusesUs = errors.New("the other side refuses this node's certificate")
)

// A passport is what this node shows and what it takes from others. Any number of callers.
type passport struct {
	node   string
	prefer bool
	keys   *certs.Reloader
	log    *slog.Logger
	shown  atomic.Pointer[shown]
}

// shown is the newest certificate that was read, and the newest of those that are this node's.
type shown struct{ read, used *tls.Certificate }

func newPassport(t *TLS, node string, log *slog.Logger) (*passport, error) {
	keys, err := certs.NewReloader(certs.Config{Use: "cluster", Cert: t.Cert, Key: t.Key, CA: t.CA, Every: t.every, Logger: log, Metrics: t.Metrics})
	if err != nil {
		return nil, err
	}
	i := &passport{node: node, prefer: t.Prefer, keys: keys, log: log}
	own := keys.Certificate()
	if err := i.isOurs(own); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", t.Cert, err)
	}
	i.shown.Store(&shown{own, own})
	return i, nil
}

// isOurs returns nil when the others would take the certificate for this node's.
func (i *passport) isOurs(own *tls.Certificate) error {
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		chain := []*x509.Certificate{own.Leaf}
		for _, der := range own.Certificate[1:] {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return err
			}
			chain = append(chain, cert)
		}
		if name, err := i.nameOf(chain, use); err != nil {
			return err
		} else if name != i.node {
			return fmt.Errorf("it is that of node %s, and this is node %s", name, i.node)
		}
	}
	return nil
}

// certificate is the newest that the others take for this node's. A file that somebody put into the wrong place changes nothing.
func (i *passport) certificate() *tls.Certificate {
	last, read := i.shown.Load(), i.keys.Certificate()
	if read == last.read {
		return last.used
	}
	next := &shown{read, read}
	err := i.isOurs(read)
	if err != nil {
		next.used = last.used
	}
	if i.shown.CompareAndSwap(last, next) && err != nil {
		i.log.Error("the new certificate for the cluster port can not be used, the old one stays in use", "err", err)
	}
	return next.used
}

// nameOf checks a chain against the authority and returns the node that it names.
func (i *passport) nameOf(chain []*x509.Certificate, use x509.ExtKeyUsage) (string, error) {
	opts := x509.VerifyOptions{Roots: i.keys.Pool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{use}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return "", fmt.Errorf("%w: %w", errAuthority, err)
	}
	name := authority.MemberName(chain[0])
	if name == "" {
		return "", errNoName
	}
	return name, nil
}

// verify looks at the other side's certificate at the end of every handshake. want is the node that it has to name, "" for any.
func (i *passport) verify(state tls.ConnectionState, use x509.ExtKeyUsage, want string) error {
	if state.NegotiatedProtocol != clusterProtocol {
		return errProtocol
	}
	name, err := i.nameOf(state.PeerCertificates, use)
	if err != nil {
		return err
	}
	if want != "" && name != want {
		return fmt.Errorf("%w: it names %s, and this should be %s", errWrongName, name, want)
	}
	return nil
}

// config is for one handshake. Sessions are not resumed: a certificate that is not good any more shall not outlive itself in a ticket.
func (i *passport) config(use x509.ExtKeyUsage, want string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{clusterProtocol},
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
		InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert, // names of hosts are not looked at; VerifyConnection checks the rest, on both sides
		VerifyConnection:     func(state tls.ConnectionState) error { return i.verify(state, use, want) },
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.certificate(), nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.certificate(), nil },
	}
}

// dial makes a connection to another node secure. On an error conn is to be closed.
func (i *passport) dial(ctx context.Context, conn net.Conn, want string) (net.Conn, error) {
	c := tls.Client(conn, i.config(x509.ExtKeyUsageServerAuth, want))
	if err := c.HandshakeContext(ctx); err != nil {
		var clear tls.RecordHeaderError
		if hungUp(err) || errors.As(err, &clear) {
			err = fmt.Errorf("%w: %w", errNoTLS, err)
		}
		return nil, err
	}
	return newSecured(c, conn), nil
}

// welcome makes a connection secure that came in; with Prefer it may stay as it is. The caller has set a deadline.
func (i *passport) welcome(conn net.Conn) (net.Conn, error) {
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return nil, err
	}
	begun := &resumed{Conn: conn, first: first[:]}
	switch {
	case first[0] == tlsHandshake:
	case i.prefer:
		return begun, nil
	case first[0] == preamble[0]:
		return nil, errPlain
	default:
		return nil, errNotOurs
	}
	c := tls.Server(begun, i.config(x509.ExtKeyUsageClientAuth, ""))
	if err := c.Handshake(); err != nil {
		if refusesUs(err) {
			err = fmt.Errorf("%w: %w", errRefusesUs, err)
		}
		return nil, err
	}
	return newSecured(c, begun), nil
}

// tlsHandshake is the first byte of a connection with TLS (RFC 8446, section 5.1), and of no preamble.
const tlsHandshake = 22

// hungUp reports whether the other side has ended the connection without a word.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// refusesUs reports whether an error is an alert of the other side. With TLS 1.3 a dialer may hear of it only when it reads.
func refusesUs(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// A secured connection knows whose it is. It is closed as one without TLS is, at once: the alert that package tls would send
// first may wait for a peer that has stopped reading.
type secured struct {
	*tls.Conn
	under net.Conn
	peer  string
}

func newSecured(c *tls.Conn, under net.Conn) *secured {
	return &secured{c, under, authority.MemberName(c.ConnectionState().PeerCertificates[0])}
}

// Close implements net.Conn.
func (c *secured) Close() error { return c.under.Close() }

// peerOf is the node at the other end of a connection, "" when that is not known.
func peerOf(conn net.Conn) string {
	switch c := conn.(type) {
	case *tracked:
		return peerOf(c.Conn)
	case *secured:
		return c.peer
	}
	return ""
}

// A resumed connection gives back what was read to see what it is.
type resumed struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (c *resumed) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// lingerTime is how long a refused connection is read on, so that the reset which follows unread bytes does not overtake the alert
// that says why.
const lingerTime = 500 * time.Millisecond

// linger ends a connection after a failed handshake.
func linger(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil && conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, 64<<10)) // whatever comes, nobody wants it
	}
}
