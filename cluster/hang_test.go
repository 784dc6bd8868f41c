package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/cluster/clustertest"
	"github.com/openwaitingroom/owr/queue"
)

// silent takes connections at the address and never says a word, like a node whose process is stopped.
func silent(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var conns []net.Conn
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
}

// A transfer of leadership that takes too long ends the node: as long as it lasts a leader takes nothing.
func TestTransferToANodeThatHangs(t *testing.T) {
	c := clustertest.New(t, 3, limits(1))
	var failed []<-chan error
	for i := range c.Configs {
		c.Configs[i].Timing.Transfer = 50 * time.Millisecond // the library gives up after an election timeout
		failed = append(failed, failures(c, i))
	}
	c.StartAll()
	leader := c.Leader()
	hung := (leader + 1) % 3
	clustertest.Submit(t, c.Nodes[leader], queue.KindArrive, token(1))
	sameTables(t, c)
	c.Stop(hung)
	silent(t, c.Configs[hung].Listen)
	// The connections from before end the first attempts at once.
	clustertest.Eventually(t, "a transfer that hangs", func() error {
		begun := time.Now()
		err := c.Nodes[leader].HandTo(t.Context(), c.Configs[hung].NodeID)
		if took := time.Since(begun); took > 2*time.Second {
			t.Fatalf("given up after %v, want 50 ms", took)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("it ended: %w", err)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Nodes[leader].Submit(ctx, queue.Command{Kind: queue.KindArrive, Token: token(2)}); err != nil {
		t.Log(err) // its fate is open: the leader ends
	}
	select {
	case err := <-failed[leader]:
		if !strings.Contains(err.Error(), "transfer of leadership") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the node goes on")
	}
}
