package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// transfer hands leadership over: to the node named, or to whichever is furthest when to is "". It returns nil when this node no
// longer leads. It gives up when ctx ends or after transferTime, since the library may block for ever (hashicorp/raft issue 696).
func (n *Node) transfer(ctx context.Context, to string) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.Transfer)
	defer cancel()
	done := make(chan error, 1)
	go func() { // ends with Raft at the latest
		if to == "" {
			done <- n.raft.LeadershipTransfer().Error()
			return
		}
		address := ""
		for _, s := range n.members() {
			if string(s.ID) == to {
				address = n.addressOf(to, string(s.Address))
			}
		}
		done <- n.raft.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(address)).Error()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("no answer: %w", ctx.Err())
	}
}

// A transferWatch ends a node that leads and can not: a transfer of leadership that never ends makes the library refuse every proposal,
// in later terms too, and nothing but a new process helps (hashicorp/raft issue 696). Any number of callers.
type transferWatch struct {
	limit time.Duration
	fail  func(error)

	mu    sync.Mutex
	since time.Time // of the first refusal after which nothing was taken; zero: none
}

// proposed takes in how a proposal to Raft has ended.
func (w *transferWatch) proposed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !errors.Is(err, raft.ErrLeadershipTransferInProgress):
		w.since = time.Time{}
	case w.since.IsZero():
		w.since = time.Now()
	case time.Since(w.since) > w.limit:
		w.fail(fmt.Errorf("this node leads, and a transfer of leadership that does not end has kept it from working for %v: start the node again; "+
			"nothing that was told to a visitor is lost", w.limit))
	}
}
