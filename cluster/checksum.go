package cluster

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// On disk each log entry carries a checksum over what it says and where it stands, in the field that Raft leaves to
// applications. bbolt checks none but its own two first pages, so without this a bit that a disk has turned would be applied as it is, and
// this node's table would differ from the others' for good (I7). The checksum never leaves the disk: entries that go to
// other nodes and to the table are as they came.

var errWrongBits = errors.New("an entry of the log is not what was written")

const checksumSize = 4

// stamped are copies of the entries with their checksums.
func stamped(logs []*raft.Log) []*raft.Log {
	out := make([]*raft.Log, len(logs))
	entries := make([]raft.Log, len(logs))
	for i, l := range logs {
		entries[i] = *l
		entries[i].Extensions = binary.BigEndian.AppendUint32(nil, checksum(l))
		out[i] = &entries[i]
	}
	return out
}

// check reports whether an entry is what was written, and takes the checksum off it. One without is of a version that wrote none.
func check(l *raft.Log) error {
	sum := l.Extensions
	l.Extensions = nil
	if len(sum) != 0 && (len(sum) != checksumSize || binary.BigEndian.Uint32(sum) != checksum(l)) {
		return errWrongBits
	}
	return nil
}

func checksum(l *raft.Log) uint32 {
	head := binary.BigEndian.AppendUint64(nil, l.Index)
	head = binary.BigEndian.AppendUint64(head, l.Term)
	head = append(head, byte(l.Type))
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, l.Data)
}

// whole reads every entry of the log, so that a node with wrong bits refuses to start rather than stop in the middle.
func (s *store) whole() error {
	first, err := s.bolt.FirstIndex()
	if err != nil {
		return damaged(s.path, err)
	}
	last, err := s.bolt.LastIndex()
	if err != nil {
		return damaged(s.path, err)
	}
	for index := first; index != 0 && index <= last; index++ {
		var l raft.Log
		if err := s.bolt.GetLog(index, &l); err != nil && !errors.Is(err, raft.ErrLogNotFound) {
			return damaged(s.path, err)
		}
		if err := check(&l); err != nil {
			return damaged(s.path, err)
		}
	}
	return nil
}
