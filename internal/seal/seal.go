// Package seal makes short proofs that this cluster wrote something: HMAC-SHA256 (RFC 2104),
// cut to 128 bits, under one of a few keys.
package seal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"hash"
	"sync"
	"time"
)

// Size is the length of a proof in bytes.
const Size = 16

// A Key is one secret and the number by which a proof names it.
type Key struct {
	ID     uint8
	Secret [32]byte
	Made   int64 // cluster time in Unix milliseconds; 0: not known
}

// NewKey makes a key from the system's randomness.
func NewKey(id uint8) Key {
	k := Key{ID: id}
	rand.Read(k.Secret[:])
	return k
}

// A Ring holds the keys that are valid, the newest first. It is never changed in place, so it
// may be shared.
type Ring []Key

// Find returns the key with that number.
func (r Ring) Find(id uint8) (Key, bool) {
	for _, k := range r {
		if k.ID == id {
			return k, true
		}
	}
	return Key{}, false
}

// Lead is for how long a new key only verifies. A node that has not heard of it yet would take a cookie under it for a stranger's, and
// its visitor would lose a place that it has just been told of; in this time every node that hears anything has heard of it.
const Lead = 5 * time.Second

// Signer is the key of new proofs at that cluster time: the newest that has been known for Lead, or else the oldest. The ring must
// not be empty.
func (r Ring) Signer(now int64) Key {
	for _, k := range r {
		if k.Made+Lead.Milliseconds() <= now {
			return k
		}
	}
	return r[len(r)-1]
}

// A mac is HMAC-SHA256 under one key. Making one hashes the key twice over, so it is kept for the next message: there are two
// keys at a time.
type mac struct {
	key  Key
	hash hash.Hash
	sum  [sha256.Size]byte
}

var macs = sync.Pool{New: func() any { return new(mac) }}

// Sum is the proof of message under the key. Any number of callers.
func (k Key) Sum(message []byte) [Size]byte {
	m := macs.Get().(*mac)
	defer macs.Put(m)
	if m.hash == nil || m.key != k {
		secret := k.Secret // it escapes, and k would with it, each time
		m.key, m.hash = k, hmac.New(sha256.New, secret[:])
	}
	m.hash.Reset()
	m.hash.Write(message)
	return [Size]byte(m.hash.Sum(m.sum[:0]))
}

// Verify reports whether proof is the key's proof of message, in constant time.
func (k Key) Verify(message, proof []byte) bool {
	want := k.Sum(message)
	return hmac.Equal(want[:], proof)
}
