//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	owr "github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// A filling says what a cluster is to hold before it starts.
type filling struct {
	Nodes    []fillNode
	Limits   queue.Limits
	Active   int  // arrive first, and get slots
	Waiting  int  // arrive then
	Snapshot bool // cut the log down to a snapshot at the end
}

type fillNode struct{ ID, Address, Data string }

// fill has a million visitors arrive in seconds: it runs the nodes without their HTTP, in one process, lets
// the visitors arrive in whole batches, and leaves disks from which owr starts as after any restart. What it
// prints is the key that seals the cluster's cookies.
func fill(args []string) error {
	var f filling
	if err := json.Unmarshal([]byte(args[0]), &f); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	var peers []owr.Peer
	if len(f.Nodes) > 1 {
		for _, n := range f.Nodes {
			peers = append(peers, owr.Peer{ID: n.ID, Address: n.Address})
		}
	}
	var nodes []*owr.Node
	for _, n := range f.Nodes {
		c := owr.Config{
			NodeID: n.ID, Listen: n.Address, Peers: peers, DataDir: n.Data, Limits: f.Limits, Logger: log,
			Registerer: prometheus.NewRegistry(), OnFailure: func(err error) { fmt.Fprintln(os.Stderr, err); os.Exit(1) },
		}
		if f.Snapshot {
			c.Compaction = owr.Compaction{Interval: 500 * time.Millisecond, Threshold: 2, Trailing: 2}
		}
		node, err := owr.Open(c)
		if err != nil {
			return err
		}
		nodes = append(nodes, node)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for _, n := range nodes {
		for n.Ready() != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("not ready: %w", n.Ready())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if err := arriveAll(ctx, nodes[0], 0, f.Active); err != nil {
		return err
	}
	if err := arriveAll(ctx, nodes[0], f.Active, f.Active+f.Waiting); err != nil {
		return err
	}
	index := nodes[0].Applied()
	for _, n := range nodes {
		if err := n.WaitApplied(ctx, index); err != nil {
			return err
		}
	}
	if f.Snapshot {
		for _, n := range f.Nodes {
			for list := []string{}; len(list) == 0; list, _ = filepath.Glob(filepath.Join(n.Data, "snapshots", "*", "state.bin")) {
				if ctx.Err() != nil {
					return errors.New("no snapshot")
				}
				time.Sleep(50 * time.Millisecond)
			}
		}
		time.Sleep(2 * time.Second) // the last one holds everything
	}
	key := nodes[0].Keys()[0]
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(key)
}

// arriveAll has the visitors with these numbers arrive, many at once and roughly in order.
func arriveAll(ctx context.Context, n *owr.Node, from, to int) error {
	const together = 2000
	var wg sync.WaitGroup
	errs := make(chan error, together)
	for first := from; first < to; first += together {
		for i := first; i < min(first+together, to); i++ {
			wg.Go(func() {
				if _, err := n.Submit(ctx, queue.Command{Kind: queue.KindArrive, Token: visitorToken(i)}); err != nil {
					errs <- err
				}
			})
		}
		wg.Wait()
		select {
		case err := <-errs:
			return err
		default:
		}
	}
	return nil
}

// fill fills the disks of c.
func (c *cluster) fill(at place) error {
	f := filling{Limits: at.limits(), Active: at.active, Waiting: at.waiting, Snapshot: at.snapshot}
	for _, n := range c.nodes {
		f.Nodes = append(f.Nodes, fillNode{n.id, n.cluster, n.data})
	}
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	p, err := c.l.startChild("fill", string(text))
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(4 * time.Minute):
		p.kill()
	case <-c.l.ctx.Done():
		p.kill()
		return context.Cause(c.l.ctx)
	}
	var key seal.Key
	if err := json.Unmarshal([]byte(p.tail()), &key); err != nil {
		return fmt.Errorf("fill: %w: %s", err, p.tail())
	}
	c.key = key
	return nil
}
