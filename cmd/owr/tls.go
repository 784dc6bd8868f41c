package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"strings"
	"sync"

	"github.com/openwaitingroom/owr/internal/certs"
)

// A keyPair is the files of a certificate and its key; both are empty where there is none.
type keyPair struct{ Cert, Key string }

// keyPair reads two paths of files that fit together.
func (r *reader) keyPair(certFlag, cert, keyFlag, key string) keyPair {
	switch {
	case cert == "" && key == "":
		return keyPair{}
	case cert == "":
		r.fail(certFlag, "it is not set, and %s is: set both or neither", r.env.describe(keyFlag))
		return keyPair{}
	case key == "":
		r.fail(keyFlag, "it is not set, and %s is: set both or neither", r.env.describe(certFlag))
		return keyPair{}
	}
	if _, err := certs.Load(cert, key); err != nil {
		r.fail(certFlag, "%q cannot be used with %s: %v: give PEM files of a certificate and of its own key", cert, r.env.describe(keyFlag), err)
		return keyPair{}
	}
	if !r.privateKey(keyFlag, key) {
		return keyPair{}
	}
	return keyPair{cert, key}
}

// roots reads the path of a file with the certificates of authorities.
func (r *reader) roots(flag, path string) string {
	if path == "" {
		return ""
	}
	if _, err := certs.LoadPool(path); err != nil {
		r.fail(flag, "%q cannot be used: %v: give a PEM file of the authorities' certificates", path, err)
		return ""
	}
	return path
}

// anySet names the first of some flags, each with its text, that is set.
func (r *reader) anySet(flagsAndTexts ...string) string {
	for i := 0; i+1 < len(flagsAndTexts); i += 2 {
		if flagsAndTexts[i+1] != "" {
			return r.env.describe(flagsAndTexts[i])
		}
	}
	return ""
}

// serverName reads the name that a server's certificate must hold: a host name or an address, without a port.
func (r *reader) serverName(flag, text string) string {
	if strings.ContainsAny(text, "/@?#=[], \t") || strings.HasSuffix(text, ".") || strings.Count(text, ":") == 1 {
		r.fail(flag, "%q is not a host name or an address, without a port", text)
	}
	return text
}

// clientTLS is how a server is found to be the right one, and what it is shown.
type clientTLS struct {
	CA         string // roots; empty: those of the system
	ServerName string // empty: the host that is dialed
	Pair       keyPair
}

func (t clientTLS) isSet() bool { return t != clientTLS{} }

// config has no certificate: who dials once adds it, and who goes on dialing follows it.
func (t clientTLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA == "" {
		return c, nil
	}
	var err error
	c.RootCAs, err = certs.LoadPool(t.CA)
	return c, err
}

// certFiles are the certificates that a node follows while it runs.
type certFiles struct {
	log     *slog.Logger
	metrics *certs.Metrics
	all     []*certs.Reloader
	ctx     context.Context
	stop    context.CancelFunc
	work    sync.WaitGroup
}

func newCertFiles(log *slog.Logger, metrics *certs.Metrics) *certFiles {
	f := &certFiles{log: log, metrics: metrics}
	f.ctx, f.stop = context.WithCancel(context.Background())
	return f
}

// follow loads the files, and follows them until close.
func (f *certFiles) follow(use string, pair keyPair, ca string) (*certs.Reloader, error) {
	r, err := certs.NewReloader(certs.Config{Use: use, Cert: pair.Cert, Key: pair.Key, CA: ca, Logger: f.log, Metrics: f.metrics})
	if err != nil {
		return nil, err
	}
	f.all = append(f.all, r)
	f.work.Go(func() { r.Run(f.ctx) })
	return r, nil
}

// listener makes the configuration of one of the node's listeners.
func (f *certFiles) listener(use string, pair keyPair, clientCA string) (*tls.Config, error) {
	r, err := f.follow(use, pair, clientCA)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if clientCA != "" {
		c.ClientAuth = tls.VerifyClientCertIfGiven // what a certificate is good for is the admin API's to say
	}
	return r.Server(c), nil
}

// dialer makes the configuration for a server that the node dials.
func (f *certFiles) dialer(use string, t clientTLS) (*tls.Config, error) {
	c, err := t.config()
	if err != nil || t.Pair == (keyPair{}) {
		return c, err
	}
	r, err := f.follow(use, t.Pair, "")
	if err != nil {
		return nil, err
	}
	c.GetClientCertificate = r.GetClientCertificate
	return c, nil
}

// reload looks at all files now. What cannot be used is in the log.
func (f *certFiles) reload() {
	f.log.Info("reading the certificate files again", "pairs", len(f.all))
	for _, r := range f.all {
		_ = r.Reload()
	}
}

func (f *certFiles) close() {
	f.stop()
	f.work.Wait()
}
