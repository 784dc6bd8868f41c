package cluster

// TakeSnapshot has Raft write a snapshot and cut the log now.
func (n *Node) TakeSnapshot() error { return n.raft.Snapshot().Error() }
