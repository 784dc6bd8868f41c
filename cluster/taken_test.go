package cluster

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// A silence is a future that the library never answers, until a test ends it.
type silence chan error

func (s silence) Error() error { return <-s }

func TestAProposalThatNobodyAnswersEndsWithTheNode(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := &Node{ctx: ctx}
	s := make(silence, 1)
	s <- errors.New("as the library says")
	if err := n.taken(s); err == nil || err.Error() != "as the library says" {
		t.Errorf("an answer: %v", err)
	}
	ended := make(chan error)
	go func() { ended <- n.taken(s) }()
	cancel()
	if err := <-ended; !errors.Is(err, raft.ErrRaftShutdown) {
		t.Errorf("no answer: %v, want %v", err, raft.ErrRaftShutdown)
	}
	s <- nil // lets the goroutine that waits go
}
