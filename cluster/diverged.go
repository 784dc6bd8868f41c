package cluster

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// dropDivergedLog deletes the log when it is a branch that the cluster has left. A follower with entries that never committed
// may be sent a snapshot instead of what it lacks. The library installs it and keeps the entries, goes by their index as
// its last one, refuses what follows, and is sent the snapshot again, for ever (hashicorp/raft issue 697). Before Raft
// starts the branch can be told and taken away:
//
//   - The entry at the snapshot's index has another term: the log differs there from what was committed, and whatever is
//     behind it differs too, since every entry continues the one before.
//   - The last entry is of an older term than the snapshot: what was committed behind the snapshot has its term or a newer
//     one, so nothing in the log behind it was.
//
// What the log holds up to the snapshot's index is in the snapshot, so nothing is lost with it. It reports whether it did.
func (s *store) dropDivergedLog() (dropped bool, err error) {
	last, err := s.LastIndex()
	if err != nil || last == 0 || s.newest == nil {
		return false, err
	}
	var entry raft.Log
	if err := s.GetLog(last, &entry); err != nil {
		return false, err
	}
	diverged := entry.Term < s.newest.Term
	if !diverged {
		switch err := s.GetLog(s.newest.Index, &entry); {
		case errors.Is(err, raft.ErrLogNotFound): // the log begins behind the snapshot
		case err != nil:
			return false, err
		default:
			diverged = entry.Term != s.newest.Term
		}
	}
	if !diverged {
		return false, nil
	}
	first, err := s.FirstIndex()
	if err != nil {
		return false, err
	}
	return true, s.DeleteRange(first, last)
}

// vainRestores is how many snapshots in a row may bring nothing new. One may: the leader sends it again when an answer was lost.
const vainRestores = 2

// restores counts snapshots that bring this replica no further: the same fault, in a running node. Only a start heals it.
// Raft's goroutine only.
type restores struct {
	index uint64 // of the last one
	moved bool   // an entry was applied since
	vain  int    // in a row
}

// restored takes in one snapshot and says whether the node has to start again.
func (r *restores) restored(index uint64) error {
	if r.moved || index > r.index {
		r.vain = 0
	} else {
		r.vain++
	}
	r.index, r.moved = index, false
	if r.vain < vainRestores {
		return nil
	}
	return fmt.Errorf("the leader has sent the snapshot at entry %d %d times and no entry after it could be taken: the log has left the cluster's; "+
		"start the node again, it mends this when it starts", index, r.vain+1)
}
