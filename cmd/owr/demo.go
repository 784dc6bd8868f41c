package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

const (
	demoNodes     = 3
	demoAdminPort = 9090 // of the first node; the others follow
	demoRedisPort = 6379
	demoLoopback  = "127.0.0.1"
	portsTried    = 200 // from the wanted one upwards
)

// demo runs a whole cluster on loopback in this process until ctx ends: three nodes, a site behind them
// and a Redis to look into. What the nodes keep on disk goes with it.
func demo(ctx context.Context, cfg demoConfig, stdout io.Writer, log *slog.Logger) (err error) {
	dir, err := os.MkdirTemp("", "owr-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	site, err := listenFrom(0)
	if err != nil {
		return err
	}
	siteEnded := make(chan error, 1)
	siteCtx, stopSite := context.WithCancel(context.WithoutCancel(ctx))
	go func() { siteEnded <- serveOrigin(siteCtx, site) }()
	defer func() {
		stopSite()
		err = errors.Join(err, <-siteEnded)
	}()

	if cfg.EmbeddedRedis {
		stop, address, err := embedRedis()
		if err != nil {
			return err
		}
		defer stop()
		cfg.Redis.Host, cfg.Redis.Port = demoLoopback, address.Port
	}
	nodes, err := startDemo(cfg, dir, site.Addr(), log)
	defer func() { err = errors.Join(err, stopAll(nodes)) }()
	if err != nil {
		return err
	}
	introduce(stdout, cfg, nodes, site.Addr())
	if err := allReady(ctx, nodes); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(stdout, "\nending")
		return nil
	case err := <-firstEnded(nodes):
		return err
	}
}

// startDemo starts the nodes. What it returns has to be stopped, also with an error.
func startDemo(cfg demoConfig, dir string, site net.Addr, log *slog.Logger) ([]*instance, error) {
	ids := []string{"n1", "n2", "n3"}
	clusterPorts, err := freePorts(demoNodes)
	if err != nil {
		return nil, err
	}
	var peers []peer
	for i, id := range ids {
		peers = append(peers, peer{ID: id, Address: net.JoinHostPort(demoLoopback, strconv.Itoa(clusterPorts[i]))})
	}
	var nodes []*instance
	publicPort, adminPort := cfg.Port, demoAdminPort
	for i, id := range ids {
		public, err := listenFrom(publicPort)
		if err != nil {
			return nodes, err
		}
		private, err := listenFrom(adminPort)
		if err != nil {
			public.Close()
			return nodes, err
		}
		publicPort, adminPort = portOf(public)+1, portOf(private)+1
		node, err := startInstance(serveConfig{
			Loops:   max(1, processors()/3), // three nodes are in this process
			Backend: &url.URL{Scheme: "http", Host: site.String()}, MainURL: "/", Limits: cfg.Limits, ReleaseInterval: cfg.ReleaseInterval,
			Redis: cfg.Redis, NodeID: id, ClusterListen: peers[i].Address, Peers: peers, DataDir: filepath.Join(dir, id),
		}, public, private, log)
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

func allReady(ctx context.Context, nodes []*instance) error {
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, n := range nodes {
		for err := n.node.Ready(); err != nil; err = n.node.Ready() {
			select {
			case <-limit.Done():
				if ctx.Err() != nil {
					return nil // Ctrl-C while starting
				}
				return fmt.Errorf("the cluster did not come up: %w", err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

func introduce(w io.Writer, cfg demoConfig, nodes []*instance, site net.Addr) {
	fmt.Fprintf(w, "owr demo: three nodes, one line, room for %d\n\n", cfg.Limits.MaxActive)
	for _, n := range nodes {
		fmt.Fprintf(w, "  node %s  http://%s/   admin http://%s/v1/status   cluster %s\n", n.id, n.public.Addr(), n.private.Addr(), n.clusterAddress)
	}
	fmt.Fprintf(w, "  site     http://%s/   what the nodes stand in front of\n", site)
	if cfg.Redis.Enabled() {
		fmt.Fprintf(w, "  redis    %s   redis-cli -p %d lrange %squeue 0 -1\n", cfg.Redis.Address(), cfg.Redis.Port, cfg.Redis.KeyPrefix)
	} else {
		fmt.Fprintln(w, "  redis    none: WR_REDIS_HOST is off")
	}
	fmt.Fprintf(w, `
Open a node in a browser: you are in. Open any of them in %d more private windows: the last one waits,
and sees its place. Make room for one more, and the first in line is let in:

  curl -X PUT -H 'Content-Type: application/json' http://%s/v1/limits -d '{"max_active": %d}'

Ctrl-C ends it.
`, cfg.Limits.MaxActive, nodes[0].private.Addr(), cfg.Limits.MaxActive+1)
}

// stopAll stops the nodes together. Nobody is left to hand leadership to, so nothing is handed over.
func stopAll(nodes []*instance) error {
	limit, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = errors.Join(n.drain(limit), n.close()) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// firstEnded tells of the first node that ends by itself.
func firstEnded(nodes []*instance) <-chan error {
	first := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() { first <- <-n.ended }()
	}
	return first
}

func embedRedis() (stop func(), address *net.TCPAddr, err error) {
	for port := demoRedisPort; port < demoRedisPort+portsTried; port++ {
		m := miniredis.NewMiniRedis()
		if err = m.StartAddr(net.JoinHostPort(demoLoopback, strconv.Itoa(port))); err == nil {
			return m.Close, &net.TCPAddr{IP: net.ParseIP(demoLoopback), Port: port}, nil
		}
	}
	return nil, nil, fmt.Errorf("no free port for the Redis: %w", err)
}

// listenFrom listens on the port, or on the next free one above it; 0 is any.
func listenFrom(port int) (net.Listener, error) {
	var err error
	for p := port; p < port+portsTried && p <= 65535; p++ {
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort(demoLoopback, strconv.Itoa(p))); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no free port from %d on: %w", port, err)
}

// freePorts finds so many ports that nobody listens on. Another process may take one before we do; then
// opening it fails and says so.
func freePorts(count int) ([]int, error) {
	var ports []int
	for range count {
		l, err := listenFrom(0)
		if err != nil {
			return nil, err
		}
		defer l.Close() // at the end, so that no port is given twice
		ports = append(ports, portOf(l))
	}
	return ports, nil
}

func portOf(l net.Listener) int {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}
