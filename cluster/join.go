package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// joinPause is how long a node that could not join waits before it asks again.
const joinPause = time.Second

// outside reports whether this node's disk knows of no cluster, and the node was told of one. A node that was removed knows of one, so
// it does not come back by itself.
func (n *Node) outside() bool { return n.cfg.Join != "" && len(n.members()) == 0 }

// join asks the member in Config.Join to take this node in, until it has been.
func (n *Node) join() {
	told := newSaid()
	n.log.Info("asking to join", "member", n.cfg.Join, "as", n.self.ID, "address", n.self.Address, "edge", n.cfg.Edge)
	for {
		ctx, cancel := context.WithTimeout(n.ctx, n.changeTime())
		err := n.ask(ctx, n.cfg.Join, change{Op: opJoin, ID: n.self.ID, Address: n.self.Address, Edge: n.cfg.Edge})
		if err == nil {
			err = n.welcomed(ctx, n.cfg.Join)
		}
		cancel()
		if n.ctx.Err() != nil {
			return
		}
		switch {
		case err == nil && !told.lately(""):
			n.log.Info("joined; what the cluster holds is on its way", "member", n.cfg.Join)
		case err != nil && !told.lately(err.Error()):
			n.log.Warn("could not join yet", "member", n.cfg.Join, "err", cause(err))
		}
		select {
		case <-time.After(joinPause):
		case <-n.ctx.Done():
			return
		}
		if !n.outside() {
			return
		}
	}
}

// --- between nodes --------------------------------------------------------------------------

// An answered change. Refused is why nothing was done, when it is not empty.
type changeOutcome struct {
	Refused string `json:"refused,omitempty"`
	Unknown bool   `json:"unknown,omitempty"`
}

// ask has another node carry out a change, or have it carried out.
func (n *Node) ask(ctx context.Context, address string, c change) error {
	payload, err := json.Marshal(c)
	if err != nil {
		return err
	}
	client := n.newClient()
	defer client.close()
	client.timeout = n.changeTime()
	reply, err := client.call(ctx, address, frameChange, payload)
	if err != nil {
		return err
	}
	var outcome changeOutcome
	if err := json.Unmarshal(reply, &outcome); err != nil {
		return fmt.Errorf("%w: %w", errBadFrame, err)
	}
	if outcome.Refused != "" {
		return &RefusedError{Reason: outcome.Refused, Unknown: outcome.Unknown}
	}
	return nil
}

// answerMembership answers the frames of this file and of Members.
func (n *Node) answerMembership(kind byte, payload []byte) ([]byte, error) {
	if kind == frameMembers {
		if n.leading.Load() == 0 {
			return nil, errNotLeader
		}
		return json.Marshal(n.membership())
	}
	var c change
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadFrame, err)
	}
	ctx, cancel := context.WithTimeout(n.ctx, n.changeTime()*9/10) // the asker should hear of it
	defer cancel()
	var err error
	if c.Forwarded {
		err = n.changeOnce(ctx, c)
		if errors.Is(err, errOvertaken) {
			err = errNotLeader // nothing was done: it is sent again
		}
	} else {
		err = n.change(ctx, c)
	}
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		return json.Marshal(changeOutcome{Refused: refused.Reason, Unknown: refused.Unknown})
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(changeOutcome{})
}

// --- who is there, as the leader sees it -----------------------------------------------------

// A Membership is who belongs to the cluster, as one node sees it.
type Membership struct {
	By      string   // the node whose view it is
	Leader  string   // "": none is known
	Members []Member // by id
}

// Members returns the leader's view, or this node's own when no leader can be asked: then By is not Leader.
func (n *Node) Members(ctx context.Context) Membership {
	address, _ := n.leader()
	if n.leading.Load() == 0 && address != "" && !n.cfg.alone() {
		c := n.newClient()
		defer c.close()
		var m Membership
		if reply, err := c.call(ctx, address, frameMembers, nil); err == nil && json.Unmarshal(reply, &m) == nil {
			return m
		}
	}
	return n.membership()
}

// membership is this node's own view.
func (n *Node) membership() Membership {
	s := n.Status()
	m := Membership{By: s.Node, Leader: s.Leader, Members: s.Members}
	for i := range m.Members {
		member := &m.Members[i]
		member.Leader = member.ID == s.Leader
		if member.ID == n.self.ID {
			member.Edge = n.cfg.Edge && !member.Voter
			continue
		}
		heard := n.pings.of(member.ID)
		member.LastContact = -1
		if !heard.at.IsZero() {
			member.LastContact = time.Since(heard.at)
			member.Behind = heard.behind
			member.Edge = !heard.wants && !member.Voter
		}
	}
	return m
}

var _ raft.ConfigurationStore = (*roster)(nil)
