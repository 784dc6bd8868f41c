package proxy

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// A cookie's value is the token, a dot, and the proof that this cluster wrote it: key number
// (1 byte), index of the log at which the visitor was last told something (8 bytes), and the
// seal over both and the token, in base64url without padding. A proof of a visitor that is
// not stored yet has index 0.
const (
	proofSize  = 1 + 8 + seal.Size
	cookieSize = queue.TokenLen + 1 + (proofSize*8+5)/6
)

// proofDomain keeps a proof of the cookie apart from anything else the keys may seal one day.
const proofDomain = "owr cookie 1\x00"

// proofText is strict, so that a proof has one spelling.
var proofText = base64.RawURLEncoding.Strict()

// AppendCookie appends the cookie value of a visitor to dst: its token and, under key, the
// proof that it was told something as of index.
func AppendCookie(dst []byte, token queue.Token, key seal.Key, index uint64) []byte {
	var proof [proofSize]byte
	proof[0] = key.ID
	binary.BigEndian.PutUint64(proof[1:], index)
	sum := key.Sum(sealedMessage(proofDomain, token, proof[:9]))
	copy(proof[9:], sum[:])
	dst = token.AppendText(dst)
	dst = append(dst, '.')
	return proofText.AppendEncode(dst, proof[:])
}

func sealedMessage(domain string, token queue.Token, head []byte) []byte {
	message := make([]byte, 0, len(domain)+len(token)+len(head))
	message = append(message, domain...)
	message = append(message, token[:]...)
	return append(message, head...)
}

// ParseCookie reads the token of a cookie value, and reports whether there is one and
// whether a proof of the right form follows it. It does not check the proof: a token that
// the table holds needs none. It allocates nothing.
func ParseCookie(value []byte) (token queue.Token, proven, ok bool) {
	if len(value) < queue.TokenLen {
		return queue.Token{}, false, false
	}
	if token, ok = queue.ParseToken(value[:queue.TokenLen]); !ok {
		return queue.Token{}, false, false
	}
	return token, (len(value) == cookieSize || len(value) == wideCookieSize) && value[queue.TokenLen] == '.', true
}

// CheckCookie verifies the proof in a cookie value against the keys and returns the index in
// it.
func CheckCookie(value []byte, keys seal.Ring) (index uint64, ok bool) {
	token, proven, ok := ParseCookie(value)
	if !ok || !proven {
		return 0, false
	}
	if len(value) == wideCookieSize {
		wide, ok := checkWide(value, token, keys)
		return wide.index, ok
	}
	var proof [proofSize]byte
	if n, err := proofText.Decode(proof[:], value[queue.TokenLen+1:]); err != nil || n != proofSize {
		return 0, false
	}
	key, ok := keys.Find(proof[0])
	if !ok || !key.Verify(sealedMessage(proofDomain, token, proof[:9]), proof[9:]) {
		return 0, false
	}
	return binary.BigEndian.Uint64(proof[1:]), true
}

// keyOf is the number of the key that the proof in a value of the right form names. It costs next to nothing and is what the
// hot path knows of a proof.
func keyOf(value []byte) (id uint8, ok bool) {
	var first [3]byte
	if _, err := proofText.Decode(first[:], value[queue.TokenLen+1:queue.TokenLen+5]); err != nil {
		return 0, false
	}
	return first[0], true
}

// weigh says whether a key is one of the keys, and whether a proof under it is to be renewed: one under a key that was removed, or
// that a newer one has taken over from.
func (s *Server) weigh(id uint8, keys seal.Ring) (valid, renew bool) {
	for i := range keys {
		if keys[i].ID == id {
			return true, i > 0 && keys.Signer(s.room.Now()).ID != id
		}
	}
	return false, true
}

// newToken makes the token of a first visit.
func newToken() queue.Token {
	var random [16]byte
	rand.Read(random[:])
	return queue.MakeToken(random)
}

// nextCookie cuts the first cookie off the value of a Cookie header. pair is everything up to
// the semicolon, as it stands; value is its value without the white space around it when the
// cookie has the wanted name, byte for byte, and nil otherwise. rest is nil at the end.
//
// This reads the raw bytes because every cookie parser within reach drops or rewrites
// cookies of the site that it does not like: JSON, quotes, names with odd bytes.
func nextCookie(line []byte, name string) (pair, value, rest []byte) {
	end := bytes.IndexByte(line, ';')
	if end < 0 {
		end = len(line)
	}
	equals := bytes.IndexByte(line[:end], '=')
	if equals >= 0 {
		if quoted := quotedEnd(line, equals+1); quoted >= 0 {
			end = quoted
		}
		if got := trimSpace(line[:equals]); string(got) == name {
			value = trimSpace(line[equals+1 : end])
			if value == nil {
				value = line[end:end]
			}
		}
	}
	if end == len(line) {
		return line, value, nil
	}
	return line[:end], value, line[end+1:]
}

// quotedEnd returns where a value that is one quoted string ends, semicolons inside it
// included, or -1 when it is not: what looks like a cookie inside quotes is none.
func quotedEnd(line []byte, at int) int {
	for at < len(line) && (line[at] == ' ' || line[at] == '\t') {
		at++
	}
	if at == len(line) || line[at] != '"' {
		return -1
	}
	for at++; at < len(line) && line[at] != '"'; at++ {
		if line[at] == '\\' {
			at++
		}
	}
	for at++; at < len(line) && (line[at] == ' ' || line[at] == '\t'); at++ {
	}
	if at > len(line) || at < len(line) && line[at] != ';' {
		return -1
	}
	return at
}

// appendWithout appends the value of a Cookie header to dst without the cookies of one name.
// Every other byte stays, but for white space at the start.
func appendWithout(dst, line []byte, name string) []byte {
	first := true
	for rest := line; rest != nil; {
		var pair, value []byte
		pair, value, rest = nextCookie(rest, name)
		if value != nil {
			continue
		}
		if first {
			pair = bytes.TrimLeft(pair, " \t")
		} else {
			dst = append(dst, ';')
		}
		first = false
		dst = append(dst, pair...)
	}
	return dst
}

// setsCookie reports whether a Set-Cookie value makes browsers send a cookie of that name. One without a name they send as its value
// alone, and with an equals sign in that it reads as any other (RFC 6265bis, section 5.8.3). A value that is the name and
// no more is sent so too, and is nobody's cookie (see nextCookie).
func setsCookie(value []byte, name string) bool {
	if i := bytes.IndexByte(value, ';'); i >= 0 {
		value = value[:i]
	}
	got, value, ok := bytes.Cut(value, []byte{'='})
	if got = trimSpace(got); len(got) == 0 && ok {
		got, _, ok = bytes.Cut(value, []byte{'='})
		got = trimSpace(got)
	}
	return ok && string(got) == name
}

// appendSetCookie appends the value of the Set-Cookie header that gives the visitor of a verdict its cookie.
func appendSetCookie(dst []byte, name string, v *verdict, key seal.Key, maxAge time.Duration, secure bool) []byte {
	dst = append(dst, name...)
	dst = append(dst, '=')
	if v.papers != nil {
		dst = v.papers.appendCookie(dst, v, key)
	} else {
		dst = AppendCookie(dst, v.token, key, v.index)
	}
	dst = append(dst, "; Path=/; Max-Age="...)
	dst = strconv.AppendInt(dst, int64(maxAge/time.Second), 10)
	dst = append(dst, "; HttpOnly; SameSite=Lax"...)
	if secure {
		dst = append(dst, "; Secure"...)
	}
	return dst
}
