package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// serve runs one node until ctx ends, then stops it in good order. An error means that it could not
// start, or could not go on.
func serve(ctx context.Context, cfg serveConfig, log *slog.Logger) error {
	// Both ports first: one that is taken is found out before anything is written to disk.
	public, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("WR_LISTEN: %w", err)
	}
	private, err := net.Listen("tcp", cfg.AdminListen)
	if err != nil {
		public.Close()
		return fmt.Errorf("WR_ADMIN_LISTEN: %w", err)
	}
	cfg.Loops = processors()
	i, err := startInstance(cfg, public, private, log)
	if err != nil {
		return err
	}
	i.log.Info("serving", "listen", public.Addr().String(), "admin", private.Addr().String(), "backend", cfg.Backend.Redacted(),
		"peers", len(cfg.Peers), "data", cfg.DataDir)
	again := make(chan os.Signal, 1)
	if len(i.certs.all) > 0 || cfg.ClusterTLS != nil { // whose files are read again by themselves; without any SIGHUP has its usual effect
		signal.Notify(again, syscall.SIGHUP)
		defer signal.Stop(again)
	}
	for {
		select {
		case <-again:
			i.certs.reload()
		case <-ctx.Done():
			i.log.Info("stopping")
			return i.stop()
		case err := <-i.ended:
			return i.fail(err)
		}
	}
}

// fail closes a node that cannot go on, and answers why it cannot.
func (i *instance) fail(err error) error {
	if err == nil {
		err = fmt.Errorf("a listener ended by itself")
	}
	// The disk may be what has failed, so closing must not be waited for.
	closed := make(chan struct{})
	go func() {
		_ = i.close() // the error that ended the node is the one to tell
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(2 * closeTime):
	}
	return err
}
