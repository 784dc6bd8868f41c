package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/openwaitingroom/owr/admin"
	"github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/internal/certs"
	"github.com/openwaitingroom/owr/mirror"
	"github.com/openwaitingroom/owr/proxy"
	"github.com/openwaitingroom/owr/queue"
)

const (
	stopTime     = 27 * time.Second // from the signal until what is left is cut off
	handOverTime = 3 * time.Second  // of it, to give leadership away
	closeTime    = 2 * time.Second  // after it, for what is left then

	lookEvery = 50 * time.Millisecond // for deadlines that have passed, unless WR_RELEASE_INTERVAL is shorter
)

// An instance is one node, wired: the member of the cluster at the bottom, the mirror, the proxy and the
// admin listener on top of it. It is built bottom to top and stopped in reverse.
type instance struct {
	id             string
	clusterAddress string
	log            *slog.Logger

	node   *cluster.Node
	mirror *mirror.Writer
	proxy  *proxy.Server
	admin  *admin.Server
	certs  *certFiles
	wired  chan struct{} // closed once node and mirror are both there

	drainDelay      time.Duration
	public, private net.Listener
	ended           chan error // one from each listener, and one from a node that can not go on
}

// startInstance starts a node. The listeners are its own from here on, also when it fails.
func startInstance(cfg serveConfig, public, private net.Listener, log *slog.Logger) (i *instance, err error) {
	log = log.With("node", cfg.NodeID)
	i = &instance{id: cfg.NodeID, clusterAddress: cfg.ClusterListen, log: log, drainDelay: cfg.DrainDelay, public: public, private: private, wired: make(chan struct{}), ended: make(chan error, 4)}
	started := i // a return with an error leaves i empty
	defer func() {
		if err != nil {
			err = errors.Join(err, started.close())
		}
	}()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if cfg.linesLost != nil {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "owr_log_lines_lost_total", Help: "Lines of the log that nobody took in time, or that could not be written.",
		}, func() float64 { return float64(cfg.linesLost()) }))
	}

	certMetrics, err := certs.NewMetrics(registry)
	if err != nil {
		return nil, err
	}
	i.certs = newCertFiles(log, certMetrics)
	if cfg.ClusterTLS != nil {
		cfg.ClusterTLS.Metrics = certMetrics
	}
	if i.node, err = cluster.Open(i.clusterConfig(cfg, registry)); err != nil {
		return nil, err
	}
	mirrorConfig, err := i.mirrorConfig(cfg, registry)
	if err != nil {
		return nil, err
	}
	if i.mirror, err = mirror.New(mirrorConfig); err != nil {
		return nil, err
	}
	close(i.wired)
	proxyConfig, err := i.proxyConfig(cfg, registry)
	if err != nil {
		return nil, err
	}
	if i.proxy, err = proxy.New(proxyConfig); err != nil {
		return nil, err
	}
	i.admin, err = admin.New(admin.Config{
		Token: string(cfg.AdminToken), ReadToken: string(cfg.AdminReadToken), ProtectReads: cfg.AdminProtectReads, ClientCertificates: cfg.AdminClientCA != "",
		Logger: log, Registry: registry,
		Live:  func() error { return nil },
		Ready: i.node.Ready, Status: i.status, SetLimits: i.setLimits, Leave: i.leave,
		Members: i.members, ChangeMembers: i.changeMembers, Backup: i.backup,
		Keys: i.keys, RotateKey: i.rotateKey, RemoveKey: i.removeKey,
	})
	if err != nil {
		return nil, err
	}
	if cfg.AdminTLS != (keyPair{}) {
		config, err := i.certs.listener("admin", cfg.AdminTLS, cfg.AdminClientCA)
		if err != nil {
			return nil, fmt.Errorf("WR_ADMIN_TLS_CERT: %w", err)
		}
		private = tls.NewListener(private, config) // each handshake in its connection's own goroutine
	}
	go func() { i.ended <- i.proxy.Serve(public) }()
	go func() {
		err := i.admin.Serve(private)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		i.ended <- err
	}()
	return i, nil
}

func (i *instance) clusterConfig(cfg serveConfig, registry *prometheus.Registry) cluster.Config {
	c := cluster.Config{
		NodeID: cfg.NodeID, Listen: cfg.ClusterListen, Advertise: cfg.ClusterAdvertise, DataDir: cfg.DataDir,
		Join: cfg.Join, Edge: cfg.Edge, Secret: string(cfg.ClusterSecret), TLS: cfg.ClusterTLS, Version: versionHere(), FeatureLevel: cfg.FeatureLevel,
		Limits: cfg.Limits, Logger: i.log, Registerer: registry,
		// A slot is given on in the very entry that frees it. Only a slot that expires waits, for the next look.
		Timing:    cluster.Timing{Tick: min(cfg.ReleaseInterval, lookEvery)},
		OnFailure: func(err error) { i.ended <- err },
		Jobs: []cluster.Job{func(ctx context.Context, term uint64) error {
			select {
			case <-i.wired:
				return i.mirror.Run(ctx, term)
			case <-ctx.Done():
				return nil
			}
		}},
	}
	for _, p := range cfg.Peers {
		c.Peers = append(c.Peers, cluster.Peer{ID: p.ID, Address: p.Address})
	}
	return c
}

func (i *instance) mirrorConfig(cfg serveConfig, registry *prometheus.Registry) (mirror.Config, error) {
	c := mirror.Config{
		Source: i.node, Node: i.node.Status().Node, Cluster: i.node.Cluster, Settle: i.node.Spread,
		Username: cfg.Redis.User, Password: string(cfg.Redis.Pass), DB: cfg.Redis.DB, KeyPrefix: cfg.Redis.KeyPrefix,
		PoolSize: cfg.Redis.PoolSize, IdleTimeout: cfg.Redis.PoolIdleTimeout, Logger: i.log, Registerer: registry,
	}
	if cfg.Redis.Host != "" {
		c.Addr = net.JoinHostPort(cfg.Redis.Host, strconv.Itoa(cfg.Redis.Port))
	}
	if !cfg.Redis.TLS {
		return c, nil
	}
	var err error
	if c.TLS, err = i.certs.dialer("redis", cfg.Redis.Trust); err != nil {
		return c, fmt.Errorf("WR_REDIS_TLS: %w", err)
	}
	if c.TLS.ServerName == "" {
		c.TLS.ServerName = cfg.Redis.Host
	}
	return c, nil
}

func (i *instance) proxyConfig(cfg serveConfig, registry *prometheus.Registry) (proxy.Config, error) {
	c := proxy.Config{
		Room: i.node, Logger: i.log, Registerer: registry,
		Backend: cfg.Backend, BackendConnectTimeout: cfg.BackendConnectTimeout, BackendTimeout: cfg.BackendTimeout,
		MainURL: cfg.MainURL, CookieName: cfg.CookieName, QueueMode: cfg.QueueMode, QueueStatus: cfg.QueueStatus,
		TrustedProxies: cfg.TrustedProxies, ProxyProtocol: cfg.ProxyProtocol, MaxHeader: cfg.MaxHeader,
		HeaderTimeout: cfg.HeaderTimeout, StallTimeout: cfg.StallTimeout, IdleTimeout: cfg.IdleTimeout, MinRate: cfg.MinRate, MaxBody: int64(cfg.MaxBody),
		PollMin: cfg.PollMin, PollMax: cfg.PollMax,
		Loops: cfg.Loops, MaxConnsPerIP: cfg.MaxConnsPerIP, VisitorRPS: int(math.Ceil(cfg.VisitorRPS)), PollRPS: cfg.PollRPS, NewPerIPPerMinute: cfg.NewPerIPPerMinute,
		VisitorConcurrency: cfg.VisitorConcurrency, Bind: cfg.Bind, FrameAncestors: cfg.FrameAncestors,
		Pow: cfg.Pow == "auto", PowBits: cfg.PowBits, PowWait: cfg.PowWait,
	}
	files := descriptorsHere()
	c.MaxDescriptors, c.MaxConns = shareDescriptors(files, cfg.MaxConns)
	if c.MaxConns < cfg.MaxConns {
		i.log.Warn("WR_MAX_CONNS is more than the limit of open files leaves", "max_conns", cfg.MaxConns, "open_files", files, "in_force", c.MaxConns)
	}
	if cfg.NoQuorum == "admit" {
		c.NoQuorumPerMinute = cfg.NoQuorumPerMinute
	}
	var err error
	if cfg.TLS != (keyPair{}) {
		if c.TLS, err = i.certs.listener("public", cfg.TLS, ""); err != nil {
			return c, fmt.Errorf("WR_TLS_CERT: %w", err)
		}
	}
	if cfg.Backend.Scheme == "https" {
		if c.BackendTLS, err = i.certs.dialer("backend", cfg.BackendTLS); err != nil {
			return c, fmt.Errorf("WR_BACKEND_CA: %w", err)
		}
	}
	if cfg.PageFile == "" {
		return c, nil
	}
	page, err := os.ReadFile(cfg.PageFile)
	if err != nil {
		return c, fmt.Errorf("WR_PAGE_FILE: %w", err)
	}
	c.Page = page
	return c, nil
}

// status is the node's state in the words of the admin API.
func (i *instance) status() admin.Status {
	s := i.node.Status()
	out := admin.Status{
		Node: s.Node, Role: s.Role, Leader: s.Leader, Term: s.Term,
		AppliedIndex: s.Table.Index, FeatureLevel: s.FeatureLevel, TableSum: fmt.Sprintf("%016x", s.Table.Sum),
		Room: admin.NewRoom(s.Table.Counts, s.Table.Limits, s.Table.Overridden),
	}
	for _, m := range s.Members {
		out.Peers = append(out.Peers, admin.Peer{ID: m.ID, Address: m.Address, Voter: m.Voter, Healthy: m.Healthy})
	}
	if m := i.mirror.Status(); m.Leading {
		out.Mirror = &admin.Mirror{Enabled: m.Enabled, Healthy: m.Healthy, BehindMS: m.Behind.Milliseconds(), Error: m.LastError}
	}
	return out
}

// members is who belongs to the cluster, in the words of the admin API.
func (i *instance) members(ctx context.Context) admin.Members {
	m := i.node.Members(ctx)
	out := admin.Members{By: m.By, Leader: m.Leader}
	for _, v := range m.Members {
		out.Members = append(out.Members, admin.Member{
			ID: v.ID, Address: v.Address, Voter: v.Voter, Edge: v.Edge, Leader: v.Leader, Reachable: v.Healthy,
			LastContactMS: max(v.LastContact.Milliseconds(), -1), Behind: v.Behind,
		})
	}
	return out
}

// changeMembers carries out one change, in the words of the admin API.
func (i *instance) changeMembers(ctx context.Context, c admin.MemberChange) error {
	var err error
	switch c.Op {
	case admin.OpJoin:
		err = i.node.Join(ctx, c.ID, c.Address, c.Edge)
	case admin.OpPromote:
		err = i.node.Promote(ctx, c.ID)
	case admin.OpRemove:
		err = i.node.Remove(ctx, c.ID)
	case admin.OpTransfer:
		err = i.node.Transfer(ctx, c.ID)
	default:
		err = fmt.Errorf("change of members %q", c.Op)
	}
	return refusal(err)
}

// refusal is an error of the cluster's in the words of the admin API.
func refusal(err error) error {
	if refused := (*cluster.RefusedError)(nil); errors.As(err, &refused) {
		return &admin.RefusedError{Reason: refused.Reason, Unknown: refused.Unknown}
	}
	return err
}

func (i *instance) setLimits(ctx context.Context, change queue.LimitsChange) (limits queue.Limits, index uint64, err error) {
	limits, index, err = i.node.SetLimits(ctx, change)
	return limits, index, refusal(err)
}

// leave takes a visitor out, and waits a moment for the replicas, so that who asks next, here or at another
// node, sees what was done.
func (i *instance) leave(ctx context.Context, token queue.Token) (found bool, index uint64, err error) {
	d, err := i.node.Submit(ctx, queue.Command{Kind: queue.KindLeave, Token: token})
	if err != nil {
		return false, 0, err
	}
	limit, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_ = i.node.WaitApplied(limit, d.Index) // it is done either way
	i.node.Spread(limit, d.Index)
	return d.Refusal == queue.Granted, d.Index, nil
}

// stop ends the node in good order. It says that it is not ready, and goes on serving for as long as a load balancer may need to
// hear of that; meanwhile leadership is handed over. Then it takes no new connections and lets requests under way and tunnels
// finish. It takes at most stopTime + closeTime; what has not ended by then is named and left.
func (i *instance) stop() error {
	return inTime(stopTime+closeTime, i.unwind, i.log, os.Stderr)
}

// inTime returns what end does. When that takes longer than limit, it tells dump which goroutines are left, and leaves them.
func inTime(limit time.Duration, end func() error, log *slog.Logger, dump io.Writer) error {
	ended := make(chan error, 1)
	go func() { ended <- end() }() // the process ends with it where it does not return
	select {
	case err := <-ended:
		return err
	case <-time.After(limit):
		log.Error("not everything has ended in time; the goroutines that are left follow")
		err := fmt.Errorf("the node has not ended %v after it was told to", limit)
		return errors.Join(err, pprof.Lookup("goroutine").WriteTo(dump, 1))
	}
}

// unwind is stop without an end of its own.
func (i *instance) unwind() error {
	i.proxy.Drain()
	limit, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	heard := time.After(i.drainDelay)
	handOver, done := context.WithTimeout(limit, handOverTime)
	if err := i.node.HandOver(handOver); err != nil {
		i.log.Warn("leadership was not handed over", "err", err)
	}
	done()
	<-heard
	return errors.Join(i.drain(limit), i.close())
}

// drain ends the public listener once the requests under way have ended, or limit has.
func (i *instance) drain(limit context.Context) error {
	err := i.proxy.Shutdown(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		i.log.Warn("requests were cut off", "after", stopTime)
		return nil
	}
	return err
}

// close ends what was started, the newest first, without waiting for visitors.
func (i *instance) close() error {
	var errs []error
	limit, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if i.certs != nil {
		i.certs.close()
	}
	if i.admin != nil {
		errs = append(errs, i.admin.Shutdown(limit))
	}
	if i.node != nil {
		errs = append(errs, i.node.Close())
	}
	if i.mirror != nil {
		errs = append(errs, i.mirror.Close())
	}
	i.public.Close()
	i.private.Close()
	return errors.Join(errs...)
}
