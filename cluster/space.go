package cluster

import (
	"context"
	"fmt"
	"math"
	"time"
)

const (
	// minFree is how much of its file system a node must find free to lead, in bytes. Every node stores what the leader takes, but the
	// leader's full disk costs an election as well.
	minFree = 256 << 20
	// spaceEvery is how often a leader looks.
	spaceEvery = time.Minute
)

// shortOfSpace reports whether the data directory's file system is nearly full. One that can not be asked is not.
func (n *Node) shortOfSpace() bool {
	free, err := n.cfg.free(n.cfg.DataDir)
	return err == nil && free < minFree
}

// freeSpace is how many bytes of the directory's file system a process without privileges may still write.
func freeSpace(dir string) (uint64, error) {
	free, err := statfs(dir)
	if err != nil {
		return math.MaxUint64, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return free, nil
}

// yieldForSpace hands leadership to a peer whose disk has room when this node's has not. When there is none, this node leads on: a
// cluster whose disks are all nearly full serves as long as it can. It reports whether another node leads now.
func (n *Node) yieldForSpace(ctx context.Context) bool {
	if !n.shortOfSpace() {
		return false
	}
	for id, a := range n.askPeers(ctx) {
		if a.short || !a.memory {
			continue
		}
		err := n.transfer(ctx, id)
		if err == nil {
			n.log.Warn("the disk is nearly full: another node leads", "dir", n.cfg.DataDir, "needs_bytes", minFree, "leader", id)
			return true
		}
		n.log.Warn("the disk is nearly full, and leadership was not handed over", "dir", n.cfg.DataDir, "to", id, "err", err)
	}
	n.log.Warn("the disk is nearly full: free some space; this node leads on, no other one in reach can", "dir", n.cfg.DataDir, "needs_bytes", minFree)
	return false
}

// watchSpace looks at the disk while this node leads. It returns when ctx ends or when leadership has gone elsewhere.
func (n *Node) watchSpace(ctx context.Context) error {
	tick := time.NewTicker(spaceEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if n.yieldForSpace(ctx) {
				<-ctx.Done()
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}
