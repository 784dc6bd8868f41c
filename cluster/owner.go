package cluster

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// A data directory is one node's memory of what it has promised. Under another node's name its votes would count twice in one term: once
// for each name. So the directory holds the name of the node that first started in it. Data directories without one are older than
// this, or made by a restore or a recovery for whoever starts there first.
var keyOwner = []byte("owr node")

// identify refuses another node's data directory. A node alone promises nothing to anybody: it goes on under the name that it had, since its own is
// often that of a container, which is another one each time.
func (n *Node) identify(known bool) error {
	name, err := n.store.Get(keyOwner)
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return fmt.Errorf("read %s: %w", n.store.path, err)
	}
	owner := string(name)
	if owner == "" && known && n.cfg.alone() {
		members, err := n.store.newestMembers()
		if err != nil {
			return fmt.Errorf("read the members in %s: %w", n.cfg.DataDir, err)
		}
		if len(members.Servers) == 1 {
			owner = string(members.Servers[0].ID)
		}
	}
	switch {
	case owner == "" || owner == n.self.ID:
	case n.cfg.alone():
		n.log.Info("this node goes on under the name that its data directory has", "name", owner, "dir", n.cfg.DataDir)
		n.self.ID = owner
	default:
		return fmt.Errorf("%s is the data directory of the node %s, and this node is %s: set WR_NODE_ID=%s if that is this node, or give it the directory that was its own, or an empty one",
			n.cfg.DataDir, owner, n.self.ID, owner)
	}
	return nil
}

// claim makes the directory this node's. It comes last of all that may refuse a start: a wrong setting must not leave a name there. known says whether
// there was anything in the directory; what is there has to be this node's by its members, too.
func (n *Node) claim(known bool) error {
	if known && !holds(n.members(), n.self.ID) {
		return nil
	}
	if name, err := n.store.Get(keyOwner); err == nil && string(name) == n.self.ID {
		return nil
	}
	if err := n.store.Set(keyOwner, []byte(n.self.ID)); err != nil {
		return fmt.Errorf("write %s: %w", n.store.path, err)
	}
	return nil
}

// newestMembers are those of the newest entry that says who is a member, or of the newest snapshot; none where neither is there.
func (s *store) newestMembers() (members raft.Configuration, err error) {
	first, err := s.FirstIndex()
	if err != nil {
		return members, err
	}
	last, err := s.LastIndex()
	if err != nil {
		return members, err
	}
	for index := last; index >= first && index > 0; index-- {
		var entry raft.Log
		if err := s.GetLog(index, &entry); err != nil {
			return members, err
		}
		if entry.Type == raft.LogConfiguration {
			return raft.DecodeConfiguration(entry.Data), nil
		}
	}
	list, err := s.snapshots.List() // the newest first
	if err == nil && len(list) > 0 {
		members = list[0].Configuration
	}
	return members, err
}

// disown leaves a data directory to whoever starts there first.
func (s *store) disown() error { return s.Set(keyOwner, nil) }
