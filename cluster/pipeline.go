package cluster

import (
	"time"

	"github.com/hashicorp/raft"
)

// pipelineLimit is how many times the timeout of an RPC a pipeline may hold up its sender.
const pipelineLimit = 2

// AppendEntriesPipeline implements raft.Transport. The library's sender can wait for ever: when the other side refuses an entry, or is in
// a later term, the library's decoder of answers leaves while its sender waits for room that only the decoder makes. Nothing is sent to
// that follower any more for as long as this node leads, and Raft's Shutdown waits for that sender for good (seen in hashicorp/raft 1.7.3,
// net_transport.go and replication.go, by a soak). So a pipeline that holds its sender up for too long is closed, which the sender takes
// for the end of the pipeline: it goes on without one.
func (t transport) AppendEntriesPipeline(id raft.ServerID, address raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, address)
	if err != nil {
		return nil, err
	}
	return &pipeline{p, t.patience}, nil
}

// A pipeline is one that ends when it holds its sender up for longer than the limit.
type pipeline struct {
	raft.AppendPipeline
	limit time.Duration
}

// AppendEntries implements raft.AppendPipeline.
func (p *pipeline) AppendEntries(request *raft.AppendEntriesRequest, answer *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	stuck := time.AfterFunc(p.limit, func() { _ = p.Close() }) // it has no error to tell
	defer stuck.Stop()
	return p.AppendPipeline.AppendEntries(request, answer)
}
