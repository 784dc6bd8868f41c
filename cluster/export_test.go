package cluster

import "time"

// TakeSnapshot has Raft write a snapshot and cut the log now.
func (n *Node) TakeSnapshot() error { return n.raft.Snapshot().Error() }

// ElectionTimeout is for how long, and at most twice, this node waits for votes before it stands again.
func (n *Node) ElectionTimeout() time.Duration { return n.raft.ReloadableConfig().ElectionTimeout }
