package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config says which files a Reloader follows.
type Config struct {
	Use  string // what they are for, in log and metrics: "public", "admin", "cluster", ...
	Cert string // the certificate and the chain behind it; empty: only CA is followed
	Key  string // its private key
	CA   string // roots for the certificates of peers; empty: none

	Every   time.Duration // how often the files are looked at; 0: 2 s
	Logger  *slog.Logger  // nil: nothing is logged
	Metrics *Metrics      // nil: none; may be shared by several
}

const defaultEvery = 2 * time.Second

// A Reloader has a key pair and roots at hand, and takes new ones from their files while it runs. What was loaded stays in use
// until all that follows it can be used: a pair that does not fit together, or a file that is gone, changes nothing and is told
// once. Every method may be called from any number of goroutines.
type Reloader struct {
	cfg     Config
	current atomic.Pointer[loaded]

	mu    sync.Mutex
	done  stamps // of what was loaded last, or could not be
	seen  stamps // at the last look
	wrong bool   // the last try failed, and that was told
}

type loaded struct {
	pair *tls.Certificate
	pool *x509.CertPool
}

// NewReloader loads the files a first time, and answers an error when they cannot be used.
func NewReloader(cfg Config) (*Reloader, error) {
	if (cfg.Cert == "") != (cfg.Key == "") || cfg.Cert == "" && cfg.CA == "" {
		return nil, errors.New("certs: a certificate and its key are needed, or neither and roots")
	}
	if cfg.Every <= 0 {
		cfg.Every = defaultEvery
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Reloader{cfg: cfg}
	stamps := r.look()
	got, err := r.load()
	if err != nil {
		return nil, err
	}
	r.done, r.seen = stamps, stamps
	r.take(got)
	cfg.Metrics.follow(r)
	return r, nil
}

// Certificate is the one in use; nil when none is followed. It must not be changed.
func (r *Reloader) Certificate() *tls.Certificate { return r.current.Load().pair }

// Pool are the roots in use; nil when none are followed. It must not be changed.
func (r *Reloader) Pool() *x509.CertPool { return r.current.Load().pool }

// GetCertificate is for tls.Config of a server. Every name is answered with the one certificate.
func (r *Reloader) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return r.Certificate(), nil
}

// GetClientCertificate is for tls.Config of a client. The certificate is shown whatever the server says it would take: one
// that is refused has a reason in the server's log, and one that is not shown has none.
func (r *Reloader) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return r.Certificate(), nil
}

// Run follows the files until ctx ends. A change counts once two looks in a row have found the same: a pair is replaced file by
// file, and what is half there is nobody's mistake.
func (r *Reloader) Run(ctx context.Context) {
	ticker := time.NewTicker(r.cfg.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.poll()
		}
	}
}

func (r *Reloader) poll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.look()
	settled := now.equal(r.seen)
	r.seen = now
	if settled && !now.equal(r.done) {
		_ = r.reloadLocked(now)
	}
}

// Reload loads the files now, changed or not, and answers why they could not be used. That is logged and counted as well.
func (r *Reloader) Reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = false // who asks for it is told again
	r.seen = r.look()
	return r.reloadLocked(r.seen)
}

func (r *Reloader) reloadLocked(now stamps) error {
	r.done = now
	got, err := r.load()
	if err != nil {
		r.cfg.Metrics.failed(r.cfg.Use)
		if !r.wrong {
			r.cfg.Logger.Error("new certificate files cannot be used, the old ones stay in use", "use", r.cfg.Use, "err", err)
		}
		r.wrong = true
		return err
	}
	r.wrong = false
	r.take(got)
	return nil
}

func (r *Reloader) load() (*loaded, error) {
	got := &loaded{}
	var err error
	if r.cfg.Cert != "" {
		if got.pair, err = Load(r.cfg.Cert, r.cfg.Key); err != nil {
			return nil, err
		}
	}
	if r.cfg.CA != "" {
		if got.pool, err = LoadPool(r.cfg.CA); err != nil {
			return nil, err
		}
	}
	return got, nil
}

// take puts into use what was loaded.
func (r *Reloader) take(got *loaded) {
	before := r.current.Swap(got)
	log := r.cfg.Logger.With("use", r.cfg.Use)
	if got.pair == nil {
		if before != nil {
			log.Info("new roots are in use")
		}
		return
	}
	leaf := got.pair.Leaf
	log = log.With("names", leaf.DNSNames, "not_after", leaf.NotAfter.UTC().Format(time.RFC3339))
	switch now := time.Now(); {
	case now.After(leaf.NotAfter):
		log.Warn("the certificate has expired")
	case now.Before(leaf.NotBefore):
		log.Warn("the certificate is not valid yet", "not_before", leaf.NotBefore.UTC().Format(time.RFC3339))
	case before != nil:
		log.Info("a new certificate is in use")
	}
}

// stamps say which files there are, in the order of Config. A file that was replaced or written to has another stamp.
type stamps [3]os.FileInfo

func (r *Reloader) look() (s stamps) {
	for i, file := range []string{r.cfg.Cert, r.cfg.Key, r.cfg.CA} {
		if file != "" {
			s[i], _ = os.Stat(file) // nil: it is not there, which loading it will say
		}
	}
	return s
}

func (s stamps) equal(other stamps) bool {
	for i, a := range s {
		b := other[i]
		switch {
		case a == nil && b == nil:
		case a == nil || b == nil || !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()):
			return false
		}
	}
	return true
}
