package proxy

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// With WR_BIND a cookie is good only where its visitor is: behind the same address prefix, in a browser of the same family on
// the same platform, or both. A cookie that was copied elsewhere is a stranger's there, and names nobody.
//
// The table knows nothing of this. The cookie carries a tie: a hash, under a proof key, of the token and of what it is bound to.
// Nobody without the key can make one for another place, so the tie alone is checked with each request, and the seal over
// the whole proof only where it always was. That is one HMAC for a request of a visitor inside, and no allocation.
//
// What a tie is bound to stands in its cookie, so a cookie written under another setting is good as it is, and is written anew.
// One without a tie is from before: its seal must hold, and the first request with it binds it. A bare id has no proof at all and is
// a stranger's.

// A bindMode says what a cookie is bound to.
type bindMode uint8

const (
	bindAddress bindMode = 1 << iota // the IPv4 /24 or IPv6 /48
	bindAgent                        // the family of the browser, and the platform
)

// The values of Config.Bind.
const (
	BindOff       = "off"
	BindIP        = "ip"
	BindUA        = "ua"
	BindIPAndUA   = "ip+ua"
	tieDomain     = "owr bind 1\x00"
	maxTieMessage = len(tieDomain) + len(queue.Token{}) + 1 + addressMark + 8
)

var bindModes = map[string]bindMode{BindOff: 0, BindIP: bindAddress, BindUA: bindAgent, BindIPAndUA: bindAddress | bindAgent}

// A binding is the setting, when it is on. Any number of callers.
type binding struct {
	mode    bindMode
	refused prometheus.Counter
}

// newBinding answers nil, and no error, when the setting is off.
func newBinding(setting string, registerer prometheus.Registerer) (*binding, error) {
	mode := bindModes[setting]
	if mode == 0 {
		return nil, nil
	}
	b := &binding{mode: mode, refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "owr_binding_refused_total", Help: "Requests with a cookie of a visitor that is bound to another place, or not proved (WR_BIND).",
	})}
	return b, registerer.Register(b.refused)
}

// A mark is what of a request a cookie can be bound to.
type mark struct {
	address [addressMark]byte
	agent   uint64
}

const addressMark = 1 + 6 // the length of the prefix, and the prefix

// markOf reads the mark of a request. from is the visitor's address.
func markOf(mode bindMode, fields []field, from netip.Addr) (m mark) {
	if mode&bindAddress != 0 {
		m.address = addressMarkOf(from)
	}
	if mode&bindAgent != 0 {
		for i := range fields {
			if fields[i].kind == fieldOther && equalFold(fields[i].name, "user-agent") {
				m.agent = agentOf(fields[i].value)
				break
			}
		}
	}
	return m
}

func addressMarkOf(a netip.Addr) (m [addressMark]byte) {
	switch {
	case a.Is4():
		b := a.As4()
		m[0] = 24
		copy(m[1:], b[:3])
	case a.Is6():
		b := a.As16()
		m[0] = 48
		copy(m[1:], b[:6])
	}
	return m
}

// families are the words that tell browsers apart, the most telling first: nearly all of them call themselves Chrome and Safari.
var families = words("Edg", "OPR/", "Opera", "SamsungBrowser", "Firefox", "FxiOS", "CriOS", "Chrom", "Safari")

// platforms are the words that tell platforms apart. An iPhone says Mac OS X too, and Android says Linux.
var platforms = words("Windows", "Android", "iPhone", "iPad", "iPod", "CrOS", "Mac OS X", "Macintosh", "Linux")

func words(all ...string) (out [][]byte) {
	for _, word := range all {
		out = append(out, []byte(word))
	}
	return out
}

// agentOf is a number for the family of a browser and its platform. It stays the same when the browser is updated. What is no
// browser is known by its product's name, up to the version. Zero is the agent that says nothing.
func agentOf(agent []byte) uint64 {
	if len(agent) == 0 {
		return 0
	}
	family, platform := wordIn(agent, families), wordIn(agent, platforms)
	if family > 0 {
		return uint64(family)<<8 | uint64(platform)
	}
	product, _, _ := bytes.Cut(agent, []byte{'/'})
	product, _, _ = bytes.Cut(product, []byte{' '})
	sum := fnv.New64a()
	_, _ = sum.Write(product)
	return sum.Sum64() | 1<<63 // none of the browsers'
}

// wordIn is one more than the place of the first word that text has, or 0.
func wordIn(text []byte, words [][]byte) int {
	for i, word := range words {
		if bytes.Contains(text, word) {
			return i + 1
		}
	}
	return 0
}

var tieMessages = sync.Pool{New: func() any { return new([maxTieMessage]byte) }}

// tie is what binds a token to the part of a mark that the mode names.
func (mode bindMode) tie(key seal.Key, token queue.Token, m mark) (out [tieSize]byte) {
	message := tieMessages.Get().(*[maxTieMessage]byte) // what is given to a hash escapes
	defer tieMessages.Put(message)
	b := append(message[:0], tieDomain...)
	b = append(b, token[:]...)
	b = append(b, byte(mode))
	if mode&bindAddress != 0 {
		b = append(b, m.address[:]...)
	}
	if mode&bindAgent != 0 {
		b = binary.BigEndian.AppendUint64(b, m.agent)
	}
	sum := key.Sum(b)
	copy(out[:], sum[:])
	return out
}

// takes reports whether a request may use the cookie that names c. Its cookie is written anew when it is bound otherwise than it
// would be now, or under a key that is on its way out: under one that is gone it would be nobody's.
func (b *binding) takes(c *caller, keys seal.Ring, fields []field, from netip.Addr) bool {
	if !c.form || len(keys) == 0 {
		return false
	}
	if p, wide := readWide(c.value); wide && p.bound != 0 {
		key, ok := keys.Find(p.key)
		if !ok || p.bound&^(bindAddress|bindAgent) != 0 {
			return false
		}
		tie := p.bound.tie(key, c.token, markOf(p.bound, fields, from))
		c.renew = c.renew || p.bound != b.mode
		return hmac.Equal(tie[:], p.tie[:])
	}
	if !c.good {
		c.index, c.good = CheckCookie(c.value, keys)
		c.bad = !c.good
	}
	c.renew = true
	return c.good
}
