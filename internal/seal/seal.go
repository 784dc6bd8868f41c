// Package seal makes short proofs that this cluster wrote something: HMAC-SHA256 (RFC 2104),
// cut to 128 bits, under one of a few keys.
package seal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
)

// Size is the length of a proof in bytes.
const Size = 16

// A Key is one secret and the number by which a proof names it.
type Key struct {
	ID     uint8
	Secret [32]byte
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

// Sum is the proof of message under the key.
func (k Key) Sum(message []byte) [Size]byte {
	mac := hmac.New(sha256.New, k.Secret[:])
	mac.Write(message)
	var full [sha256.Size]byte
	mac.Sum(full[:0])
	return [Size]byte(full[:Size])
}

// Verify reports whether proof is the key's proof of message, in constant time.
func (k Key) Verify(message, proof []byte) bool {
	want := k.Sum(message)
	return hmac.Equal(want[:], proof)
}
