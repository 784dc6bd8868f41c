package queue

import "encoding/hex"

// A Token names a visitor: the 128 bits of the version 4 UUID that its cookie begins with.
// It is a value without pointers, so it may be copied out of a request and kept.
type Token [16]byte

// TokenLen is the length of a token as text.
const TokenLen = 36

// textGroups are the byte ranges of a token between the dashes of its text form.
var textGroups = [5][2]int{{0, 4}, {4, 6}, {6, 8}, {8, 10}, {10, 16}}

// MakeToken turns 16 random bytes into a token by setting the version and variant bits of
// RFC 9562, section 5.4. The caller brings the randomness; package queue has none.
func MakeToken(random [16]byte) Token {
	random[6] = random[6]&0x0f | 0x40
	random[8] = random[8]&0x3f | 0x80
	return random
}

// ParseToken reads a version 4 UUID in lower case. It reports false for anything else,
// other lengths and upper case included, and allocates nothing.
func ParseToken(text []byte) (Token, bool) {
	var t Token
	if len(text) != TokenLen || text[14] != '4' {
		return Token{}, false
	}
	at := 0
	for i, g := range textGroups {
		if i > 0 {
			if text[at] != '-' {
				return Token{}, false
			}
			at++
		}
		for b := g[0]; b < g[1]; b++ {
			hi, lo := nibbles[text[at]], nibbles[text[at+1]]
			if hi|lo > 0x0f {
				return Token{}, false
			}
			t[b] = hi<<4 | lo
			at += 2
		}
	}
	return t, t[8]&0xc0 == 0x80
}

// nibbles maps a lower-case hexadecimal digit to its value and every other byte to 0xff.
var nibbles = func() (table [256]byte) {
	for i := range table {
		table[i] = 0xff
	}
	for i := range byte(10) {
		table['0'+i] = i
	}
	for i := range byte(6) {
		table['a'+i] = 10 + i
	}
	return table
}()

// AppendText appends the 36 characters of the token to dst.
func (t Token) AppendText(dst []byte) []byte {
	for i, g := range textGroups {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, t[g[0]:g[1]])
	}
	return dst
}

// String is a fingerprint for logs: the first eight digits. The whole token admits whoever
// shows it, so it has no place in a log line; use AppendText where it is needed.
func (t Token) String() string {
	return hex.EncodeToString(t[:4]) + "…"
}
