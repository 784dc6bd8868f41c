package queue

import "encoding/binary"

// An index leads from a token to its slot in one shard: open addressing with linear probing (Knuth, The
// Art of Computer Programming 6.4, algorithm L; deletion without tombstones by algorithm R). An entry is
// eight bytes, the low half of the token's hash and the slot plus one, so a lookup reads one line of the
// index and one of the rows, and neither holds a pointer. A Go map holds the token a second time: 28 bytes
// an entry instead of 8 to 21, and one cache line more.
//
// The shard's lock guards it: one writer, or any number of readers.
type index struct {
	entries []uint64 // hash << 32 | slot + 1; zero: free. The length is a power of two
	used    int
}

const minIndex = 16

// hash spreads a token over 32 bits. Tokens are random already; those that people choose (tests, ids
// carried over from elsewhere) need not be.
func (t *Token) hash() uint32 {
	return uint32(mix(binary.LittleEndian.Uint64(t[:8])+0x9e3779b97f4a7c15) ^ mix(binary.LittleEndian.Uint64(t[8:])))
}

// find returns the slot of the token among the rows of the shard.
func (x *index) find(token *Token, s *shard) (slot uint32, ok bool) {
	if len(x.entries) == 0 {
		return 0, false
	}
	mask, hash := uint32(len(x.entries)-1), token.hash()
	for i := hash & mask; ; i = (i + 1) & mask {
		e := x.entries[i]
		if e == 0 {
			return 0, false
		}
		if uint32(e>>32) == hash && s.at(uint32(e)-1).token == *token {
			return uint32(e) - 1, true
		}
	}
}

// add files a token that is not there yet.
func (x *index) add(token *Token, slot uint32) {
	if 4*(x.used+1) > 3*len(x.entries) {
		x.grow()
	}
	x.put(uint64(token.hash())<<32 | uint64(slot+1))
	x.used++
}

func (x *index) put(e uint64) {
	mask := uint32(len(x.entries) - 1)
	i := uint32(e>>32) & mask
	for x.entries[i] != 0 {
		i = (i + 1) & mask
	}
	x.entries[i] = e
}

func (x *index) grow() {
	old := x.entries
	x.entries = make([]uint64, max(2*len(old), minIndex))
	for _, e := range old {
		if e != 0 {
			x.put(e)
		}
	}
}

// remove forgets the token of a slot, and moves up what only stood further down because of it.
func (x *index) remove(token *Token, slot uint32) {
	mask, want := uint32(len(x.entries)-1), uint64(token.hash())<<32|uint64(slot+1)
	hole := uint32(want>>32) & mask
	for x.entries[hole] != want {
		hole = (hole + 1) & mask
	}
	for i := (hole + 1) & mask; x.entries[i] != 0; i = (i + 1) & mask {
		home := uint32(x.entries[i]>>32) & mask
		if (i-home)&mask >= (i-hole)&mask { // its home is not between the hole and itself
			x.entries[hole], hole = x.entries[i], i
		}
	}
	x.entries[hole] = 0
	x.used--
}
