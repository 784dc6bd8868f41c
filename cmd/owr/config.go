package main

import (
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/queue"
)

// serveConfig is everything that a node was told, checked and in its own type.
type serveConfig struct {
	Listen                string
	TLS                   keyPair  // of the public listener
	Backend               *url.URL // scheme and host; the host may be a name
	BackendTLS            clientTLS
	BackendConnectTimeout time.Duration
	BackendTimeout        time.Duration
	MainURL               string
	CookieName            string
	QueueMode             string        // "redirect" or "inline"
	QueueStatus           int           // 200, 202, 429 or 503
	FrameAncestors        string        // sources of a Content-Security-Policy
	PageFile              string        // empty: the built-in page
	linesLost             func() uint64 // of the log; nil: nobody counts
	TrustedProxies        []netip.Prefix
	ProxyProtocol         bool
	Loops                 int // of the proxy; not a setting

	Limits          queue.Limits
	ReleaseInterval time.Duration

	MaxHeader         int // bytes
	HeaderTimeout     time.Duration
	StallTimeout      time.Duration
	MinRate           int // bytes a second; 0: no limit
	MaxBody           int // bytes; 0: no limit
	IdleTimeout       time.Duration
	DrainDelay        time.Duration
	PollMin           time.Duration
	PollMax           time.Duration
	NoQuorum          string  // "hold" or "admit"
	NoQuorumPerMinute int     // with admit
	VisitorRPS        float64 // a whole number; 0: no limit, here and in the next three
	PollRPS           int
	NewPerIPPerMinute int
	MaxConnsPerIP     int
	MaxConns          int // 0: what the limit of open files leaves

	Pow                string // "off" or "auto"
	PowBits            int
	PowWait            time.Duration
	VisitorConcurrency int
	Bind               string // "off", "ip", "ua" or "ip+ua"

	Redis redisConfig

	NodeID           string
	ClusterListen    string
	ClusterAdvertise string // host:port as the others dial it; a name stays a name
	Peers            []peer // empty: one node
	Join             string // host:port of a member; empty: this node joins nobody
	Edge             bool   // it joins and never votes
	DataDir          string
	ClusterSecret    secret
	ClusterTLS       *cluster.TLS // nil: none
	FeatureLevel     int          // the highest to announce; 0: all that this version knows

	AdminListen       string
	AdminToken        secret
	AdminReadToken    secret
	AdminProtectReads bool

	AdminTLS      keyPair // of the admin listener
	AdminClientCA string  // whose certificates callers may show; empty: none are asked for

	Log logConfig
}

// demoConfig is what the demonstration was told.
type demoConfig struct {
	Port            int // of the first of three proxies
	Limits          queue.Limits
	ReleaseInterval time.Duration
	Redis           redisConfig // of a Redis outside, when EmbeddedRedis is not set
	EmbeddedRedis   bool        // bring one in this process
	Log             logConfig
}

// redisConfig is the Redis to mirror into.
type redisConfig struct {
	Host            string // empty: no mirror
	Port            int
	User            string
	Pass            secret
	DB              int
	TLS             bool
	Trust           clientTLS // with TLS
	KeyPrefix       string
	PoolSize        int
	PoolIdleTimeout time.Duration
}

// Enabled reports whether there is a Redis to mirror into.
func (c redisConfig) Enabled() bool { return c.Host != "" }

// Address is host:port; an IPv6 host gets its brackets.
func (c redisConfig) Address() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }

// The ranges that are the edge's and not the room's; those are in package queue.
const (
	minTimeout   = time.Millisecond
	maxTimeout   = 24 * time.Hour
	minMaxHeader = 1 << 10
	maxMaxHeader = 1 << 20
	maxPageFile  = 1 << 20
	maxCertFile  = 1 << 20

	// maxDrainDelay leaves some of the time that a node has to stop for the requests under way.
	maxDrainDelay = 20 * time.Second
	maxRate       = 1_000_000
	maxMinRate    = 1_000_000_000
	maxMaxBody    = 1 << 40
)

func (l *commandLine) serveConfig() (serveConfig, error) {
	f := &l.flags.Serve
	r := &reader{env: l.env}
	cfg := serveConfig{
		Listen:                r.listen("listen", f.Listen),
		Backend:               r.origin("backend-url", f.BackendURL),
		BackendConnectTimeout: r.seconds("backend-connect-timeout", f.BackendConnectTimeout, minTimeout, maxTimeout),
		BackendTimeout:        r.seconds("backend-timeout", f.BackendTimeout, minTimeout, maxTimeout),
		MainURL:               r.place("main-url", f.MainURL),
		CookieName:            r.cookieName("cookie-name", f.CookieName),
		QueueMode:             r.oneOf("queue-mode", f.QueueMode, "redirect", "inline"),
		FrameAncestors:        r.sources("frame-ancestors", f.FrameAncestors),
		PageFile:              r.readable("page-file", f.PageFile, maxPageFile),
		TrustedProxies:        r.networks("trusted-proxies", f.TrustedProxies),
		ProxyProtocol:         r.onOff("proxy-protocol", f.ProxyProtocol),
		Limits:                r.limits(f.MaxActive, &f.roomFlags),
		ReleaseInterval:       r.seconds("release-interval", f.ReleaseInterval, queue.MinDuration, queue.MaxDuration),
		MaxHeader:             r.count("max-header", f.MaxHeader, minMaxHeader, maxMaxHeader),
		HeaderTimeout:         r.seconds("header-timeout", f.HeaderTimeout, minTimeout, maxTimeout),
		StallTimeout:          r.seconds("stall-timeout", f.StallTimeout, minTimeout, maxTimeout),
		MinRate:               r.count("min-rate", f.MinRate, 0, maxMinRate),
		MaxBody:               r.count("max-body", f.MaxBody, 0, maxMaxBody),
		IdleTimeout:           r.seconds("idle-timeout", f.IdleTimeout, minTimeout, maxTimeout),
		DrainDelay:            r.seconds("drain-delay", f.DrainDelay, 0, maxDrainDelay),
		PollMin:               r.seconds("poll-min", f.PollMin, queue.MinDuration, time.Hour),
		PollMax:               r.seconds("poll-max", f.PollMax, queue.MinDuration, time.Hour),
		NoQuorum:              r.oneOf("no-quorum", f.NoQuorum, "hold", "admit"),
		NoQuorumPerMinute:     r.count("no-quorum-per-minute", f.NoQuorumPerMinute, 1, maxRate),
		VisitorRPS:            float64(r.count("visitor-rps", f.VisitorRPS, 0, maxRate)),
		PollRPS:               r.count("poll-rps", f.PollRPS, 0, maxRate),
		NewPerIPPerMinute:     r.count("new-per-ip-per-minute", f.NewPerIPPerMinute, 0, queue.MaxCount),
		MaxConns:              r.count("max-conns", f.MaxConns, 0, queue.MaxCount),
		MaxConnsPerIP:         r.count("max-conns-per-ip", f.MaxConnsPerIP, 0, queue.MaxCount),
		Pow:                   r.oneOf("pow", f.Pow, "off", "auto"),
		PowBits:               r.count("pow-bits", f.PowBits, 8, 26),
		PowWait:               r.seconds("pow-wait", f.PowWait, 5*time.Second, 10*time.Minute),
		VisitorConcurrency:    r.count("visitor-concurrency", f.VisitorConcurrency, 0, queue.MaxCount),
		Bind:                  r.oneOf("bind", f.Bind, "off", "ip", "ua", "ip+ua"),
		Redis:                 r.redis(f.RedisHost, &f.redisFlags),
		DataDir:               f.DataDir,
		AdminListen:           r.listen("admin-listen", f.AdminListen),
		AdminToken:            r.bearer("admin-token", f.AdminToken, f.AdminTokenFile),
		AdminReadToken:        r.bearer("admin-read-token", f.AdminReadToken, f.AdminReadTokenFile),
		AdminProtectReads:     r.onOff("admin-protect-reads", f.AdminProtectReads),
		Log:                   r.log(&f.logFlags),

		TLS: r.keyPair("tls-cert", f.TLSCert, "tls-key", f.TLSKey),
		BackendTLS: clientTLS{
			CA: r.roots("backend-ca", f.BackendCA), ServerName: r.serverName("backend-server-name", f.BackendServerName),
			Pair: r.keyPair("backend-cert", f.BackendCert, "backend-key", f.BackendKey),
		},
		AdminTLS:      r.keyPair("admin-tls-cert", f.AdminTLSCert, "admin-tls-key", f.AdminTLSKey),
		AdminClientCA: r.roots("admin-client-ca", f.AdminClientCA),
	}
	if r.err == nil && cfg.BackendTLS.isSet() && cfg.Backend.Scheme != "https" {
		r.fail("backend-url", "%q is not https, so there is no certificate to check or to show: %s", cfg.Backend.Redacted(),
			r.anySet("backend-ca", f.BackendCA, "backend-server-name", f.BackendServerName, "backend-cert", f.BackendCert))
	}
	if cfg.AdminClientCA != "" && cfg.AdminTLS == (keyPair{}) {
		r.fail("admin-client-ca", "%q is for a listener with TLS: set %s too", cfg.AdminClientCA, r.env.describe("admin-tls-cert"))
	}
	if cfg.PollMax < cfg.PollMin {
		r.fail("poll-max", "%s is below %s", f.PollMax, r.env.describe("poll-min"))
	}
	if cfg.ProxyProtocol && len(cfg.TrustedProxies) == 0 {
		r.fail("proxy-protocol", "\"on\" believes what trusted proxies say, and there are none: set %s", r.env.describe("trusted-proxies"))
	}
	if cfg.AdminReadToken != "" && cfg.AdminReadToken == cfg.AdminToken {
		r.fail("admin-read-token", "it is the token of %s: whoever reads could change", r.env.describe("admin-token"))
	}
	cfg.QueueStatus, _ = strconv.Atoi(r.oneOf("queue-status", f.QueueStatus, "200", "202", "429", "503"))
	if f.DataDir == "" {
		r.fail("data-dir", `"" is not a directory`)
	}
	if f.FeatureLevel != "" {
		cfg.FeatureLevel = r.count("feature-level", f.FeatureLevel, 1, cluster.FeatureLevel)
	}
	r.cluster(&cfg, &f.clusterFlags)
	return cfg, r.err
}

func (l *commandLine) demoConfig() (demoConfig, error) {
	f := &l.flags.Demo
	r := &reader{env: l.env}
	cfg := demoConfig{
		Port:            r.count("port", f.Port, 1, 65533),
		Limits:          r.limits(f.MaxActive, &f.roomFlags),
		ReleaseInterval: r.seconds("release-interval", f.ReleaseInterval, queue.MinDuration, queue.MaxDuration),
		Redis:           r.redis(f.RedisHost, &f.redisFlags),
		EmbeddedRedis:   f.RedisHost == "",
		Log:             r.log(&f.logFlags),
	}
	return cfg, r.err
}

// limits reads the room's limits.
func (r *reader) limits(maxActive string, f *roomFlags) queue.Limits {
	return queue.Limits{
		MaxActive:   r.count("max-active", maxActive, 0, queue.MaxCount),
		ActiveTTL:   r.seconds("active-ttl", f.ActiveTTL, queue.MinDuration, queue.MaxDuration),
		ClaimTTL:    r.seconds("claim-ttl", f.ClaimTTL, queue.MinDuration, queue.MaxDuration),
		QueueAbsent: r.seconds("queue-absent", f.QueueAbsent, queue.MinDuration, queue.MaxDuration),
		QueueTTL:    r.seconds("queue-ttl", f.QueueTTL, queue.MinDuration, queue.MaxDuration),
		QueueMax:    r.count("queue-max", f.QueueMax, 0, queue.MaxCount),
		FirstHitTTL: r.offOrSeconds("first-hit-ttl", f.FirstHitTTL, queue.MinDuration, queue.MaxDuration),
	}
}

// redis reads the mirror's settings. They are checked even when there is no mirror.
func (r *reader) redis(host string, f *redisFlags) redisConfig {
	if strings.EqualFold(host, "off") {
		host = ""
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.ContainsAny(host, ":/@ \t") {
		r.fail("redis-host", "%q is not a host name or an address; the port is in %s", host, r.env.describe("redis-port"))
	}
	cfg := redisConfig{
		Host: host,
		Port: r.count("redis-port", f.RedisPort, 1, 65535),
		User: r.textOrFile("redis-user", f.RedisUser, f.RedisUserFile),
		Pass: r.secret("redis-pass", f.RedisPass, f.RedisPassFile),
		DB:   r.count("redis-db", f.RedisDB, 0, 1<<20),
		TLS:  r.onOff("redis-tls", f.RedisTLS),
		Trust: clientTLS{
			CA: r.roots("redis-ca", f.RedisCA), ServerName: r.serverName("redis-server-name", f.RedisServerName),
			Pair: r.keyPair("redis-cert", f.RedisCert, "redis-key", f.RedisKey),
		},
		KeyPrefix:       r.visible("redis-key-prefix", f.RedisKeyPrefix),
		PoolSize:        r.count("redis-pool-size", f.RedisPoolSize, 1, 1<<20),
		PoolIdleTimeout: r.span("redis-pool-idle-timeout", f.RedisPoolIdleTimeout, time.Millisecond, 0, maxTimeout),
	}
	if r.err == nil && cfg.Trust.isSet() && !cfg.TLS { // else who sets them would believe that nobody listens
		r.fail("redis-tls", "it is off, so there is no certificate to check or to show: set it, or leave out %s",
			r.anySet("redis-ca", f.RedisCA, "redis-server-name", f.RedisServerName, "redis-cert", f.RedisCert))
	}
	return cfg
}

// cluster reads what a node has to know of the others.
func (r *reader) cluster(cfg *serveConfig, f *clusterFlags) {
	id := f.NodeID
	if id == "" {
		name, err := os.Hostname()
		if err != nil {
			r.fail("node-id", "it is not set, and the host has no name: %v", err)
			return
		}
		id = name
	}
	cfg.NodeID = r.nodeName("node-id", id)
	cfg.ClusterListen = r.listen("cluster-listen", f.ClusterListen)
	cfg.ClusterSecret = r.secret("cluster-secret", f.ClusterSecret, f.ClusterSecretFile)
	cfg.ClusterTLS = r.clusterTLS(cfg.NodeID, f)
	cfg.Peers = r.peers("peers", f.Peers)
	if f.ClusterAdvertise != "" {
		cfg.ClusterAdvertise = r.dial("cluster-advertise", f.ClusterAdvertise)
	}
	if f.Join != "" {
		cfg.Join = r.dial("join", f.Join)
	}
	cfg.Edge = r.oneOf("role", f.Role, "voter", "edge") == "edge"
	insecure := r.onOff("insecure-cluster", f.InsecureCluster)
	if r.err != nil {
		return
	}

	if len(cfg.Peers) > 0 {
		r.checkPeers(cfg, f.Peers)
	}
	r.checkJoin(cfg)
	if len(cfg.Peers) > 0 || cfg.Join != "" {
		host, _, _ := splitAddress(cfg.ClusterListen, 0)
		// Where connections without TLS are taken too, TLS keeps nobody out.
		secured := cfg.ClusterSecret != "" || cfg.ClusterTLS != nil && !cfg.ClusterTLS.Prefer
		if !secured && !insecure && !isLoopback(host) {
			r.fail("cluster-secret", "the cluster port %s is not on loopback, so the nodes need a secret that they share, or TLS: %s, which is then to be required (or WR_INSECURE_CLUSTER=1)",
				cfg.ClusterListen, r.env.describe("cluster-tls-cert"))
		}
	}
	if cfg.ClusterAdvertise == "" {
		cfg.ClusterAdvertise = cfg.ClusterListen
	}
}

// clusterTLS reads the files with which the nodes speak TLS, nil when there are none.
func (r *reader) clusterTLS(node string, f *clusterFlags) *cluster.TLS {
	mode := r.oneOf("cluster-tls-mode", f.ClusterTLSMode, "require", "prefer")
	set, missing := "", ""
	for _, file := range []struct{ flag, path string }{
		{"cluster-tls-cert", f.ClusterTLSCert}, {"cluster-tls-key", f.ClusterTLSKey}, {"cluster-tls-ca", f.ClusterTLSCA},
	} {
		switch {
		case file.path != "":
			set = file.flag
			r.readable(file.flag, file.path, maxCertFile)
		case missing == "":
			missing = file.flag
		}
	}
	switch {
	case set == "" && mode == "prefer":
		r.fail("cluster-tls-mode", `"prefer" is for a node with a certificate: set %s`, r.env.describe("cluster-tls-cert"))
	case set != "" && missing != "":
		r.fail(missing, "it is not set, and %s is: a certificate, its key and the authority belong together", r.env.describe(set))
	}
	if set == "" || r.err != nil || !r.privateKey("cluster-tls-key", f.ClusterTLSKey) {
		return nil
	}
	t := &cluster.TLS{Cert: f.ClusterTLSCert, Key: f.ClusterTLSKey, CA: f.ClusterTLSCA, Prefer: mode == "prefer"}
	if err := t.Check(node); err != nil {
		r.fail("cluster-tls-cert", "it can not be used: %v", err)
	}
	return t
}

// checkPeers finds this node in the list and takes its address from there.
func (r *reader) checkPeers(cfg *serveConfig, text string) {
	for _, p := range cfg.Peers {
		if p.ID != cfg.NodeID {
			continue
		}
		if cfg.ClusterAdvertise != "" && cfg.ClusterAdvertise != p.Address {
			r.fail("cluster-advertise", "%q is not the address of %s in %s, %s", cfg.ClusterAdvertise, p.ID, r.env.describe("peers"), p.Address)
		}
		cfg.ClusterAdvertise = p.Address
		return
	}
	r.fail("peers", "%q does not hold this node, %s, which is %s", text, cfg.NodeID, r.env.describe("node-id"))
}

// checkJoin refuses what contradicts joining, or makes the others dial nobody.
func (r *reader) checkJoin(cfg *serveConfig) {
	host, _, _ := splitAddress(cfg.ClusterListen, 0)
	switch {
	case cfg.Join != "" && len(cfg.Peers) > 0:
		r.fail("join", "%q is a member to join, and %s names the nodes of a new cluster: set one of them", cfg.Join, r.env.describe("peers"))
	case cfg.Edge && cfg.Join == "":
		r.fail("role", "\"edge\" is for a node that joins: set %s", r.env.describe("join"))
	case cfg.Join != "" && cfg.ClusterAdvertise == "" && isWildcard(host):
		r.fail("cluster-advertise", "it is not set, and the cluster port %s says nothing of where the others reach this node: give host:port", cfg.ClusterListen)
	}
}

// readerToken is the secret of a command that only looks: the one for reading where it is given, else the one for everything.
func (l *commandLine) readerToken(f *readerFlags) (secret, error) {
	r := &reader{env: l.env}
	token := r.secret("admin-read-token", f.AdminReadToken, f.AdminReadTokenFile)
	if token == "" {
		token = r.secret("admin-token", f.AdminToken, f.AdminTokenFile)
	}
	return token, r.err
}

// listenAddress reads an address to listen on, for commands that have no configuration.
func (l *commandLine) listenAddress(flag, text string) (string, error) {
	r := &reader{env: l.env}
	return r.listen(flag, text), r.err
}

// dialAddress reads the address of a listener of this machine, to connect to it: where it
// listens on every address, loopback is one of them.
func (l *commandLine) dialAddress(flag, text string) (string, error) {
	r := &reader{env: l.env}
	host, port, err := net.SplitHostPort(r.listen(flag, text))
	if r.err == nil && err == nil && isWildcard(host) {
		text = net.JoinHostPort("127.0.0.1", port)
	}
	return text, r.err
}
