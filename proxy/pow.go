package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// With WR_POW=auto a newcomer gets a place in line for work, or for patience. Who finds a free slot needs neither, nor does who
// has a place or a slot.
//
// The work is a hashcash: /wr_check answers with a challenge, and takes the place with the first request that brings the challenge
// and a nonce whose hash begins with so many zero bits. The challenge is a seal over the visitor's token, its address
// prefix, the time and the number of bits, so nothing is kept to check it: for somebody else, from elsewhere, later than workFor
// or with fewer bits it is no challenge. Used twice it gives the one place that its token has.
//
// The patience is for browsers without scripts, and for pages and programs that know nothing of this: the visitor's cookie says
// when it was written (wide.go), and from WR_POW_WAIT later on, for patienceFor, a request with it takes the place. That costs a
// sender of many as little as it costs one, so an address prefix gets only so many places a minute in this way.
//
// What is refused gets no place, and the next challenge.
type pow struct {
	bits int
	wait time.Duration

	slow   *meter
	wrong  wrongs
	solved prometheus.Counter
	waited prometheus.Counter
	failed prometheus.Counter
}

const (
	workFor     = 5 * time.Minute // a challenge is good for
	patienceFor = 5 * time.Minute // after the wait, a cookie is good for
	powSkew     = time.Minute     // how far ahead of this node's another node's cluster time may be

	slowPerMinute  = 30 // places of one prefix by patience
	wrongPerMinute = 60 // refused solutions of one prefix, after which none is looked at

	minPowWait = 5 * time.Second
	maxPowWait = 10 * time.Minute

	challengeHead = 1 + 1 + 4 // key number, bits, Unix seconds of cluster time
	challengeSize = challengeHead + seal.Size
	maxNonce      = 16 // digits
)

const (
	powDomain  = "owr work 1\x00"
	minPowBits = 8
	maxPowBits = 26
	paramPow   = "pow"
)

// newPow answers nil, and no error, when no work is asked for.
func newPow(cfg Config) (*pow, error) {
	if !cfg.Pow {
		return nil, nil
	}
	places := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "owr_pow_total", Help: "Proofs of newcomers that want a place in line (WR_POW), by result: solved, waited, refused.",
	}, []string{"result"})
	p := &pow{
		bits: cfg.PowBits, wait: cfg.PowWait, slow: newMeter(slowPerMinute/60.0, slowPerMinute),
		wrong:  wrongs{seed: maphash.MakeSeed()},
		solved: places.WithLabelValues("solved"), waited: places.WithLabelValues("waited"), failed: places.WithLabelValues("refused"),
	}
	return p, cfg.Registerer.Register(places)
}

// workPrefix is what a challenge is bound to: the IPv4 /24 or IPv6 /64.
func workPrefix(a netip.Addr) (m [9]byte) {
	switch {
	case a.Is4():
		b := a.As4()
		m[0] = 24
		copy(m[1:], b[:3])
	case a.Is6():
		b := a.As16()
		m[0] = 64
		copy(m[1:], b[:8])
	}
	return m
}

func challengeMessage(head []byte, token queue.Token, client netip.Addr) []byte {
	prefix := workPrefix(client)
	return append(sealedMessage(powDomain, token, head), prefix[:]...)
}

// challenge makes the challenge of a visitor. now is cluster time in Unix milliseconds.
func (p *pow) challenge(key seal.Key, token queue.Token, client netip.Addr, now int64) []byte {
	var c [challengeSize]byte
	c[0], c[1] = key.ID, byte(p.bits)
	binary.BigEndian.PutUint32(c[2:], uint32(now/1000))
	sum := key.Sum(challengeMessage(c[:challengeHead], token, client))
	copy(c[challengeHead:], sum[:])
	return proofText.AppendEncode(nil, c[:])
}

var challengeLen = base64.RawURLEncoding.EncodedLen(challengeSize)

// verify reports whether solution, a challenge, a point and a nonce in decimal, is the work of that visitor, done in time.
func (p *pow) verify(solution []byte, keys seal.Ring, token queue.Token, client netip.Addr, now int64) bool {
	text, nonce, ok := bytes.Cut(solution, []byte{'.'})
	if !ok || len(text) != challengeLen || len(nonce) == 0 || len(nonce) > maxNonce || len(bytes.Trim(nonce, "0123456789")) > 0 {
		return false
	}
	var c [challengeSize]byte
	if n, err := proofText.Decode(c[:], text); err != nil || n != challengeSize {
		return false
	}
	key, ok := keys.Find(c[0])
	at := int64(binary.BigEndian.Uint32(c[2:])) * 1000
	if !ok || int(c[1]) < p.bits || now-at > workFor.Milliseconds() || at-now > powSkew.Milliseconds() {
		return false
	}
	return key.Verify(challengeMessage(c[:challengeHead], token, client), c[challengeHead:]) && zeroBits(sha256.Sum256(solution)) >= int(c[1])
}

func zeroBits(sum [sha256.Size]byte) int {
	n := 0
	for _, b := range sum {
		if b != 0 {
			return n + bits.LeadingZeros8(b)
		}
		n += 8
	}
	return n
}

// clear finds out whether a newcomer has done what a place in line takes.
func (p *pow) clear(c *caller, h *head, client netip.Addr, keys seal.Ring, now int64) {
	if c.view.State != queue.Unknown || !c.good {
		return // it has what it has, or no name to prove anything for
	}
	if wide, ok := readWide(c.value); ok {
		c.issued = wide.issued // the seal has been checked
	}
	if solution, ok := queryValue(h.target, paramPow); ok && string(h.path) == pathCheck && !p.wrong.tooMany(client, now) {
		if c.cleared = p.verify(solution, keys, c.token, client, now); c.cleared {
			p.solved.Inc()
			return
		}
		p.wrong.note(client, now)
		p.failed.Inc()
	}
	since := p.since(c.issued, now)
	if c.cleared = since >= p.wait && since <= p.wait+patienceFor && p.slow.allow(prefixOf(client).As16()); c.cleared {
		p.waited.Inc()
	}
}

// since is for how long a visitor has waited with that cookie. It is negative when the cookie does not say.
func (p *pow) since(issued uint32, now int64) time.Duration {
	if issued == 0 {
		return -powSkew - 1
	}
	return time.Duration(now-int64(issued)*1000) * time.Millisecond
}

// counts reports whether a cookie's time will yet get, or gets, its visitor a place.
func (p *pow) counts(issued uint32, now int64) bool {
	since := p.since(issued, now)
	return since >= -powSkew && since <= p.wait+patienceFor
}

// holdBack decides for a newcomer with a name that has not done what a place takes. A slot is another matter: a KindEnter for
// the verdict's token may get it one, and no place.
func (s *Server) holdBack(c *caller) (verdict, queue.Kind) {
	if s.room.HasRoom() {
		return verdict{token: c.token}, queue.KindEnter
	}
	v := verdict{outcome: waits, token: c.token, index: c.index, tell: c.renew}
	if s.pow.counts(c.issued, s.room.Now()) {
		v.papers = &papers{issued: c.issued}
	}
	return s.outside(v), settled
}

// ask makes v that of a visitor outside, who is to work or to wait.
func (p *pow) ask(v *verdict, now int64) {
	v.outcome = works
	if v.papers == nil {
		v.papers, v.tell = &papers{issued: uint32(now / 1000)}, true
	}
}

// left is how long a visitor still has to wait for the slow way, in whole seconds, at least one.
func (p *pow) left(issued uint32, now int64) int {
	return max(1, int((p.wait-p.since(issued, now)+time.Second-1)/time.Second))
}

// appendWork appends what the JSON of /wr_check says of the work to do.
func (p *pow) appendWork(dst []byte, v *verdict) []byte {
	dst = append(dst, `,"pow":{"challenge":"`...)
	dst = append(dst, v.papers.challenge...)
	dst = append(dst, `","bits":`...)
	dst = strconv.AppendInt(dst, int64(p.bits), 10)
	dst = append(dst, `,"wait":`...)
	dst = strconv.AppendInt(dst, int64(v.papers.wait), 10)
	return append(dst, '}')
}

// wrongs count refused solutions by address prefix, in as many cells as there are: prefixes that share one share a limit, which is
// far above what a visitor needs. Which prefixes those are cannot be guessed from outside, so nobody can use up another's limit on
// purpose. Any number of callers.
type wrongs struct {
	seed  maphash.Seed
	cells [4096]atomic.Uint64 // the minute, and how many there were in it
}

func (w *wrongs) cell(a netip.Addr) *atomic.Uint64 {
	prefix := workPrefix(a)
	return &w.cells[maphash.Bytes(w.seed, prefix[:])%uint64(len(w.cells))]
}

func (w *wrongs) tooMany(a netip.Addr, now int64) bool {
	n := w.cell(a).Load()
	return n>>32 == uint64(now/60_000) && n&(1<<32-1) >= wrongPerMinute
}

func (w *wrongs) note(a netip.Addr, now int64) {
	cell, minute := w.cell(a), uint64(now/60_000)
	for {
		n := cell.Load()
		next := n + 1
		if n>>32 != minute {
			next = minute<<32 + 1
		}
		if cell.CompareAndSwap(n, next) {
			return
		}
	}
}
