package mirror

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/openwaitingroom/owr/queue"
)

// Source is what the mirror needs from the replicated queue. Both methods may be called from
// the goroutine of Run at any time.
type Source interface {
	// Follow freezes the table as it is now and starts a feed of every change after it; at most
	// limit changes wait in it. stop ends the feed.
	Follow(limit int) (picture *queue.Frozen, feed *queue.Feed, stop func())
	// Now is cluster time in Unix milliseconds.
	Now() int64
}

// Config says what to show, and where. Source, Node and Cluster are needed unless Addr is empty.
type Config struct {
	Source  Source
	Node    string        // this node's name, for the marker
	Cluster func() string // the cluster's id; asked when a term begins and after every fault
	// Settle waits, for some milliseconds at most, until the other nodes have what the entry at index has
	// changed, so that Redis never shows what a node does not know yet. nil: nothing is waited for.
	Settle func(ctx context.Context, index uint64)

	Addr      string      // host:port; empty: no mirror. A host name is resolved at every dial
	Username  string      // both empty: no AUTH; a password alone is that of the default user
	Password  string      // never logged
	DB        int         // 0 to 2^20, as far as the server has them
	TLS       *tls.Config // nil: plain TCP
	KeyPrefix string      // empty: "wr:"

	PoolSize    int           // connections at most; 0: 2. More than 4 counts as 4: one is used at a time
	IdleTimeout time.Duration // an idle connection is closed after it; 0: the library's 30 minutes
	Timeout     time.Duration // to connect, for one write, for one answer; 0: 1 s
	Backlog     int           // changes that wait while Redis is slow; beyond it a full pass; 0: 262,144
	Redraw      time.Duration // how old a full pass may become; 0: 10 min

	Logger     *slog.Logger          // nil: nothing is logged
	Registerer prometheus.Registerer // nil: no metrics

	dial func(ctx context.Context, network, addr string) (net.Conn, error) // tests; nil: the library's
}

const (
	defaultTimeout = time.Second
	defaultRedraw  = 10 * time.Minute
	defaultBacklog = 1 << 18 // 16 MB when full; a pass over a million visitors takes a few seconds
	maxPool        = 4
	maxDB          = 1 << 20
)

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	if c.KeyPrefix == "" {
		c.KeyPrefix = "wr:"
	}
	if c.PoolSize <= 0 {
		c.PoolSize = 2
	}
	c.PoolSize = min(c.PoolSize, maxPool)
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Backlog <= 0 {
		c.Backlog = defaultBacklog
	}
	if c.Redraw <= 0 {
		c.Redraw = defaultRedraw
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate names what cannot be used. It does not ask Redis: one that is away is no reason not to start.
func (c Config) validate() error {
	if c.Addr == "" {
		return nil
	}
	if _, port, err := net.SplitHostPort(c.Addr); err != nil || port == "" {
		return fmt.Errorf("mirror: address %q is not host:port", c.Addr)
	}
	if c.DB < 0 || c.DB > maxDB {
		return fmt.Errorf("mirror: database %d is not between 0 and %d", c.DB, maxDB)
	}
	if strings.ContainsFunc(c.KeyPrefix, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("mirror: key prefix %q has a control character", c.KeyPrefix)
	}
	if c.Source == nil || c.Cluster == nil {
		return errors.New("mirror: no source to show")
	}
	return nil
}

// connect makes a client; it dials with the first command. Nothing is sent twice: the library
// would repeat what timed out, and the mirror has to know that it did.
func (c Config) connect() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: c.Addr, Username: c.Username, Password: c.Password, DB: c.DB, TLSConfig: c.TLS,
		Protocol: 2, DisableIdentity: true, // the commands that a narrow ACL allows are enough
		MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, PoolTimeout: c.Timeout,
		Dialer: c.dial, PoolSize: c.PoolSize, PipelinePoolSize: -1, ConnMaxIdleTime: c.IdleTimeout,
	})
}
