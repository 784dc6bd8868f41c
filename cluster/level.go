package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// FeatureLevel is the highest feature level that this version of owr knows. A level stands for what may be in the
// log and in a snapshot:
//
//   - 1: the entries 1 to 4, and snapshots of format 1
//   - 2: the entry that raises the level, and snapshots of format 2
//   - 3: limits with first_hit_ttl, visitors that are unconfirmed, the command KindStay, changes of the proof keys, and snapshots
//     of format 3
//   - 4: the commands KindReserve and KindAsk, and what they make of a table in a snapshot
//
// The level of a cluster is part of the replicated state. It is the lowest of what its voters have announced, it is
// raised once all of them have, and it never falls: whoever could not read an entry must never meet it.
const FeatureLevel = 4

// reserveLevel is the level from which KindReserve and KindAsk may be in an entry.
const reserveLevel = 4

// The first byte of an entry is its kind. A kind with the bit ignorable is one that a version which does not know
// it passes over: it may not change what any other entry does to a table. Every other unknown kind ends the node.
const (
	ignorable  byte = 0x80
	entryLevel byte = ignorable | 1 // the cluster's feature level
)

// frameLevel asks another node for the level that it announces, in two bytes. A version from before the levels refuses it.
const frameLevel byte = 16

// levelEvery is how often a leader asks for the levels of the voters while the cluster's may yet rise.
const levelEvery = time.Second

var errLevel = errors.New("the cluster's feature level is too low for it")

func appendLevel(dst []byte, level int) []byte {
	return binary.BigEndian.AppendUint16(append(dst, entryLevel), uint16(level))
}

func decodeLevel(data []byte) (int, error) {
	if len(data) != 3 || data[0] != entryLevel {
		return 0, fmt.Errorf("%w: feature level of %d bytes", errBadEntry, len(data))
	}
	level := int(binary.BigEndian.Uint16(data[1:]))
	if level > FeatureLevel {
		return 0, fmt.Errorf("%w: it raises the feature level to %d, this version knows levels up to %d", errBadEntry, level, FeatureLevel)
	}
	return level, nil
}

// featureLevel is the replicated level; a cluster that has never raised it is at 1.
func (id *identity) featureLevel() int { return max(id.level, 1) }

// since is the level that brought a kind of entry. The first four are as old as the log; a new kind gets a line here.
func since(kind byte) int {
	switch {
	case kind <= entryKey:
		return 1
	case kind == entryLevel:
		return 2
	}
	return 3
}

// mayPropose refuses an entry that some voter may not be able to read. The level itself is different: who proposes it
// has just asked every voter.
func (n *Node) mayPropose(kind byte) error {
	level := n.fsm.identity.Load().featureLevel()
	if need := since(kind); kind != entryLevel && need > level {
		return fmt.Errorf("%w: an entry of kind %d needs level %d, it is %d", errLevel, kind, need, level)
	}
	return nil
}

// announced is the level that this node tells the leader: what it knows, unless an operator holds it lower.
func (n *Node) announced() int {
	if held := n.cfg.FeatureLevel; held > 0 {
		return min(held, FeatureLevel)
	}
	return FeatureLevel
}

// raiseLevel raises the cluster's level to what all voters announce. It is the leader's work for one term, and is
// done when this node's own level is reached.
func (n *Node) raiseLevel(ctx context.Context) {
	clients := map[raft.ServerID]*client{}
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	timer := time.NewTicker(levelEvery)
	defer timer.Stop()
	told := ""
	owed := false // what a limit of the new level has as its base is not set yet
	for owed || n.fsm.identity.Load().featureLevel() < n.announced() {
		level, behind := n.lowestLevel(ctx, clients)
		switch {
		case level > n.fsm.identity.Load().featureLevel():
			if _, err := n.propose(appendLevel(nil, level)); err != nil {
				n.log.Debug("the feature level was not raised", "level", level, "err", err)
				break
			}
			n.log.Info("feature level raised: a version that does not know it can no longer take part", "level", level)
			owed = true
		case level > 0 && behind != told:
			told = behind
			n.log.Info("the feature level waits for a node to be upgraded", "level", level, "peer", behind)
		}
		if owed {
			if err := n.setBase(); err != nil {
				n.log.Debug("the limits of the new level were not set", "err", err)
			} else {
				owed = false
				continue
			}
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// lowestLevel is the lowest level of all voters and who announces it; 0 while one of them does not answer.
func (n *Node) lowestLevel(ctx context.Context, clients map[raft.ServerID]*client) (level int, behind string) {
	future := n.raft.GetConfiguration()
	if future.Error() != nil {
		return 0, ""
	}
	level, behind = n.announced(), n.self.ID
	for _, s := range future.Configuration().Servers {
		if s.Suffrage != raft.Voter || string(s.ID) == n.self.ID {
			continue
		}
		if clients[s.ID] == nil {
			clients[s.ID] = n.newClient()
		}
		theirs, err := askLevel(ctx, clients[s.ID], n.addressOf(string(s.ID), string(s.Address)))
		if err != nil {
			return 0, ""
		}
		if theirs < level {
			level, behind = theirs, string(s.ID)
		}
	}
	return level, behind
}

// askLevel asks one node for its level. A version that does not know the question says so, and is at level 1.
func askLevel(ctx context.Context, c *client, address string) (int, error) {
	reply, err := c.call(ctx, address, frameLevel, nil)
	if refused := answered(""); errors.As(err, &refused) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	if len(reply) != 2 {
		return 0, fmt.Errorf("%w: level of %d bytes", errBadFrame, len(reply))
	}
	return int(binary.BigEndian.Uint16(reply)), nil
}

// answerLevel is the answer to frameLevel.
func (n *Node) answerLevel() []byte { return binary.BigEndian.AppendUint16(nil, uint16(n.announced())) }
