package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/openwaitingroom/owr/internal/seal"
)

// The entries of the cluster itself. Numbers 1 and 2 are queue's; all of them share the first byte.
const (
	entryCluster byte = 3 // who we are: 16 random bytes, once, by the first leader
	entryKey     byte = 4 // a new proof key, and the last two are valid: how the first one is made
	entryKeys    byte = 6 // a change of the proof keys, from feature level 3 on: see changeKeys. 5 is queue's
)

// ringSize is how many proof keys are valid after an entryKey.
const ringSize = 2

var errBadEntry = errors.New("an entry that this version of owr does not know")

// A clusterID is made by the first leader and tells one cluster's picture in Redis from another's.
type clusterID [16]byte

func (id clusterID) String() string {
	if id == (clusterID{}) {
		return ""
	}
	return fmt.Sprintf("%x", id[:])
}

func appendCluster(dst []byte, id clusterID) []byte {
	return append(append(dst, entryCluster), id[:]...)
}

func decodeCluster(data []byte) (clusterID, error) {
	if len(data) != 17 || data[0] != entryCluster {
		return clusterID{}, fmt.Errorf("%w: cluster id of %d bytes", errBadEntry, len(data))
	}
	return clusterID(data[1:]), nil
}

func appendKey(dst []byte, k seal.Key) []byte {
	return append(append(dst, entryKey, k.ID), k.Secret[:]...)
}

func decodeKey(data []byte) (seal.Key, error) {
	if len(data) != 34 || data[0] != entryKey {
		return seal.Key{}, fmt.Errorf("%w: key of %d bytes", errBadEntry, len(data))
	}
	return seal.Key{ID: data[1], Secret: [32]byte(data[2:])}, nil
}

// appendRing and cutRing are the form of a key ring inside a snapshot. From format 3 on it says when each key was made.
func appendRing(dst []byte, ring seal.Ring, format int) []byte {
	dst = append(dst, byte(len(ring)))
	for _, k := range ring {
		dst = append(append(dst, k.ID), k.Secret[:]...)
		if format >= 3 {
			dst = appendUint64(dst, uint64(k.Made))
		}
	}
	return dst
}

// keyBytes is how many bytes a key takes in a snapshot of that format, and how many keys there may be.
func keyBytes(format int) (size, most int) {
	if format >= 3 {
		return 41, maxKeys
	}
	return 33, ringSize
}

func cutRing(data []byte, format int) (seal.Ring, []byte, error) {
	size, most := keyBytes(format)
	if len(data) < 1 || int(data[0]) > most || len(data) < 1+size*int(data[0]) {
		return nil, nil, fmt.Errorf("key ring of %d bytes", len(data))
	}
	count, data := int(data[0]), data[1:]
	ring := make(seal.Ring, count)
	for i := range ring {
		ring[i] = seal.Key{ID: data[0], Secret: [32]byte(data[1:33])}
		if format >= 3 {
			ring[i].Made = int64(binary.BigEndian.Uint64(data[33:]))
		}
		data = data[size:]
	}
	return ring, data, nil
}

func appendUint64(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }
