package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/openwaitingroom/owr/internal/certs"
)

// dialFlags say where the admin listener of a node is, and how to know it.
type dialFlags struct {
	Admin           string `default:"127.0.0.1:9090" help:"Admin listener of the node to ask: HOST:PORT, or https://HOST:PORT." variable:"WR_ADMIN_LISTEN"`
	AdminCA         string `placeholder:"PATH" help:"PEM file of the authorities that the listener's certificate may be from. Default: those of the system. With it, https needs not be said."`
	AdminServerName string `placeholder:"NAME" help:"Name that the listener's certificate must hold. Default: the host that is asked."`
	AdminClientCert string `placeholder:"PATH" help:"PEM file of the certificate to show to the listener."`
	AdminClientKey  string `placeholder:"PATH" help:"PEM file of its key."`
}

// An adminNode is the admin listener of a node, for the commands that ask it.
type adminNode struct {
	address string // host:port
	scheme  string
	http    *http.Client
}

// adminNode reads where a node is to be asked. Without a scheme it is https when the listener that the environment describes has a
// certificate, or when anything is said about the one to expect.
func (l *commandLine) adminNode(f *dialFlags) (*adminNode, error) {
	r := &reader{env: l.env}
	t := clientTLS{
		CA: r.roots("admin-ca", f.AdminCA), ServerName: r.serverName("admin-server-name", f.AdminServerName),
		Pair: r.keyPair("admin-client-cert", f.AdminClientCert, "admin-client-key", f.AdminClientKey),
	}
	if r.err != nil {
		return nil, r.err
	}
	_, own := l.env.lookup("WR_ADMIN_TLS_CERT")
	scheme, text := "http", f.Admin
	if t.isSet() || own {
		scheme = "https"
	}
	if given, rest, ok := strings.Cut(text, "://"); ok {
		scheme, text = strings.ToLower(given), strings.TrimSuffix(rest, "/")
	}
	switch {
	case scheme != "http" && scheme != "https":
		r.fail("admin", "%q is not http or https", f.Admin)
	case scheme == "http" && t.isSet():
		r.fail("admin", "%q is not https, so there is no certificate to check or to show", f.Admin)
	}
	if r.err != nil {
		return nil, r.err
	}
	address, err := l.dialAddress("admin", text)
	if err != nil {
		return nil, err
	}
	config, err := t.config()
	if err != nil {
		return nil, err
	}
	if t.Pair != (keyPair{}) {
		pair, err := certs.Load(t.Pair.Cert, t.Pair.Key)
		if err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return &adminNode{address, scheme, newClient(config)}, nil
}

// url is where the listener has a path.
func (n *adminNode) url(path string) string { return n.scheme + "://" + n.address + path }

// newClient asks once and follows no redirect.
func newClient(config *tls.Config) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true, TLSClientConfig: config},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// explain adds to an error of asking what may help.
func explain(err error) error {
	var name *tls.CertificateVerificationError
	switch {
	case errors.As(err, &name):
		return errors.Join(err, errors.New("--admin-ca (WR_ADMIN_CA) names the authority, and --admin-server-name (WR_ADMIN_SERVER_NAME) the host that the certificate is for"))
	case errors.Is(err, http.ErrSchemeMismatch):
		return errors.Join(err, errors.New("the listener does not speak TLS: give --admin http://HOST:PORT"))
	}
	return err
}

// call makes one call of the admin API and reads its answer into answer; a nil body sends none. What the node says of a problem is the error.
func (n *adminNode) call(ctx context.Context, method, path string, token secret, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	var sent io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, n.url(path), sent)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+string(token))
	}
	res, err := n.http.Do(req)
	if err != nil {
		return explain(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", n.address, err)
	}
	if res.StatusCode != http.StatusOK {
		var problem struct{ Detail string }
		if json.Unmarshal(text, &problem) == nil && problem.Detail != "" {
			return errors.New(problem.Detail)
		}
		return fmt.Errorf("%s answered %s", n.address, res.Status)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("read the answer of %s: %w", n.address, err)
	}
	return nil
}

// changeTimeout is a little longer than a node works on one change.
const changeTimeout = 15 * time.Second
