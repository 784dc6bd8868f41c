package cluster

import (
	"errors"
	"fmt"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// A data directory is one node's memory of what it has promised. Under another node's name its votes would count twice in one term: once
// for each name. So the directory holds the name of the node that first started in it. Data directories without one are older than
// this, or made by a restore or a recovery for whoever starts there first.
var keyOwner = []byte("owr node")

// claim makes an unclaimed data directory this node's, and refuses another node's. A node alone promises nothing to anybody: it goes
// on under the name that it had, since its own is often that of a container, which is another one each time.
func (n *Node) claim() error {
	owner, err := n.store.Get(keyOwner)
	switch {
	case err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound):
		return fmt.Errorf("read %s: %w", n.store.path, err)
	case len(owner) == 0:
		if err := n.store.Set(keyOwner, []byte(n.self.ID)); err != nil {
			return fmt.Errorf("write %s: %w", n.store.path, err)
		}
	case string(owner) == n.self.ID:
	case n.cfg.alone():
		n.log.Info("this node goes on under the name that its data directory has", "name", string(owner), "dir", n.cfg.DataDir)
		n.self.ID = string(owner)
	default:
		return fmt.Errorf("%s is the data directory of the node %s, and this node is %s: give it the directory that was its own, or an empty one", n.cfg.DataDir, owner, n.self.ID)
	}
	return nil
}

// disown leaves a data directory to whoever starts there first.
func (s *store) disown() error { return s.Set(keyOwner, nil) }
