package cluster

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A leader whose proposals are refused for longer than a transfer may take ends; one that has had another answer meanwhile does not.
func TestTransferThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failure error
		w := transferWatch{limit: 5 * time.Second, fail: func(err error) { failure = err }}
		refused := fmt.Errorf("apply: %w", raft.ErrLeadershipTransferInProgress)
		for range 20 {
			w.proposed(refused)
			time.Sleep(4 * time.Second)
			w.proposed(refused)
			for _, other := range []error{nil, raft.ErrNotLeader, errors.New("any other")} {
				w.proposed(other)
			}
		}
		if failure != nil {
			t.Fatalf("refused for 4 s at a time: %v", failure)
		}
		w.proposed(refused)
		time.Sleep(6 * time.Second)
		if failure != nil {
			t.Fatalf("nothing was proposed, and it failed: %v", failure)
		}
		w.proposed(refused)
		if failure == nil {
			t.Error("refused for 6 s: the node goes on")
		}
	})
}
