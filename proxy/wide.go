package proxy

import (
	"encoding/binary"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// A wide proof says more than the plain one of cookie.go. It is written only where WR_BIND or WR_POW needs it, and its length tells
// the two apart; both are taken everywhere. Key number (1 byte), index (8), when it was written (4, Unix seconds of cluster
// time), how it is bound (1), its tie (8, see bind.go), and the seal over all of that and the token.
type wideProof struct {
	key    uint8
	index  uint64
	issued uint32 // 0: the visitor was in the table then
	bound  bindMode
	tie    [tieSize]byte
}

const (
	tieSize        = 8
	wideHead       = 1 + 8 + 4 + 1 + tieSize
	wideSize       = wideHead + seal.Size
	wideCookieSize = queue.TokenLen + 1 + (wideSize*8+5)/6
)

const wideDomain = "owr cookie 2\x00"

// appendWideCookie is AppendCookie for a wide proof. The key is the proof's.
func appendWideCookie(dst []byte, token queue.Token, key seal.Key, p wideProof) []byte {
	var proof [wideSize]byte
	proof[0] = key.ID
	binary.BigEndian.PutUint64(proof[1:], p.index)
	binary.BigEndian.PutUint32(proof[9:], p.issued)
	proof[13] = byte(p.bound)
	copy(proof[14:], p.tie[:])
	sum := key.Sum(sealedMessage(wideDomain, token, proof[:wideHead]))
	copy(proof[wideHead:], sum[:])
	dst = token.AppendText(dst)
	dst = append(dst, '.')
	return proofText.AppendEncode(dst, proof[:])
}

// readWide reads the wide proof in a cookie value without checking it. It reports false where there is none, and allocates nothing.
func readWide(value []byte) (p wideProof, ok bool) {
	if len(value) != wideCookieSize || value[queue.TokenLen] != '.' {
		return wideProof{}, false
	}
	var proof [wideSize]byte
	if n, err := proofText.Decode(proof[:], value[queue.TokenLen+1:]); err != nil || n != wideSize {
		return wideProof{}, false
	}
	p = wideProof{
		key: proof[0], index: binary.BigEndian.Uint64(proof[1:]), issued: binary.BigEndian.Uint32(proof[9:]), bound: bindMode(proof[13]),
	}
	copy(p.tie[:], proof[14:])
	return p, true
}

// checkWide verifies the seal of a wide proof.
func checkWide(value []byte, token queue.Token, keys seal.Ring) (p wideProof, ok bool) {
	if p, ok = readWide(value); !ok {
		return wideProof{}, false
	}
	key, ok := keys.Find(p.key)
	if !ok {
		return wideProof{}, false
	}
	var proof [wideSize]byte
	_, _ = proofText.Decode(proof[:], value[queue.TokenLen+1:])
	if !key.Verify(sealedMessage(wideDomain, token, proof[:wideHead]), proof[wideHead:]) {
		return wideProof{}, false
	}
	return p, true
}

// papers are what a visitor's new cookie says beside its index.
type papers struct {
	bound bindMode
	mark  mark

	issued    uint32 // since when the visitor waits for a place; 0: it has one
	challenge []byte // what it may do instead
	wait      int    // and for how long it has to wait otherwise, in seconds
}

func (p *papers) appendCookie(dst []byte, v *verdict, key seal.Key) []byte {
	proof := wideProof{index: v.index, issued: p.issued, bound: p.bound}
	if p.bound != 0 {
		proof.tie = p.bound.tie(key, v.token, p.mark)
	}
	return appendWideCookie(dst, v.token, key, proof)
}

// equip completes the verdict of a request where a plain cookie does not say enough.
func (s *Server) equip(v *verdict, h *head, from *sender) {
	if v.papers != nil {
		if keys := s.room.Keys(); len(keys) > 0 {
			now := s.room.Now()
			v.papers.challenge = s.pow.challenge(keys.Signer(now), v.token, from.client, now)
			v.papers.wait = s.pow.left(v.papers.issued, now)
		}
	}
	if s.bind == nil || !v.tell {
		return
	}
	if v.papers == nil {
		v.papers = &papers{}
	}
	v.papers.bound, v.papers.mark = s.bind.mode, markOf(s.bind.mode, h.fields, from.client)
}
