package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A clogged pipeline takes nothing until it is closed, as the library's does once nobody reads its answers.
type clogged struct {
	raft.AppendPipeline
	closed chan struct{}
}

func (c clogged) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	<-c.closed
	return nil, raft.ErrPipelineShutdown
}

func (c clogged) Close() error {
	close(c.closed)
	return nil
}

func TestAPipelineThatIsCloggedEnds(t *testing.T) {
	p := &pipeline{clogged{closed: make(chan struct{})}, 20 * time.Millisecond}
	if _, err := p.AppendEntries(nil, nil); !errors.Is(err, raft.ErrPipelineShutdown) {
		t.Errorf("error %v, want %v", err, raft.ErrPipelineShutdown)
	}
}

// The library's own pipeline, whose answers nobody reads, holds its sender up for no longer than that.
func TestALibraryPipelineWithoutAReaderEnds(t *testing.T) {
	network := func() *raft.NetworkTransport {
		n, err := raft.NewTCPTransport("127.0.0.1:0", nil, 2, time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		return n
	}
	to := network()
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	go func() { // a follower that answers everything
		for {
			select {
			case rpc := <-to.Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{Success: false}, nil)
			case <-ended:
				return
			}
		}
	}()
	p, err := transport{NetworkTransport: network(), patience: 300 * time.Millisecond}.AppendEntriesPipeline("n2", to.LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 { // without the limit the first few fill it, and the next one waits for ever
		if _, err = p.AppendEntries(&raft.AppendEntriesRequest{}, new(raft.AppendEntriesResponse)); err != nil {
			break
		}
	}
	if !errors.Is(err, raft.ErrPipelineShutdown) {
		t.Errorf("error %v, want %v", err, raft.ErrPipelineShutdown)
	}
}
