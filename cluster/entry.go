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
	entryKey     byte = 4 // a new proof key; the last two are valid
)

// ringSize is how many proof keys are valid at a time.
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

// appendRing and cutRing are the form of a key ring inside a snapshot.
func appendRing(dst []byte, ring seal.Ring) []byte {
	dst = append(dst, byte(len(ring)))
	for _, k := range ring {
		dst = append(append(dst, k.ID), k.Secret[:]...)
	}
	return dst
}

func cutRing(data []byte) (seal.Ring, []byte, error) {
	if len(data) < 1 || int(data[0]) > ringSize || len(data) < 1+33*int(data[0]) {
		return nil, nil, fmt.Errorf("key ring of %d bytes", len(data))
	}
	count, data := int(data[0]), data[1:]
	ring := make(seal.Ring, count)
	for i := range ring {
		ring[i] = seal.Key{ID: data[0], Secret: [32]byte(data[1:33])}
		data = data[33:]
	}
	return ring, data, nil
}

func appendUint64(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }
