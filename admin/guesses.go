package admin

import (
	"net/netip"
	"sync"
	"time"
)

// How many wrong tokens one address may show: a burst, then one each second. Whoever shows a right
// one is not counted, so an address that somebody with an old token shares works for the others but
// for a moment now and then, and nobody learns a token by trying: a year is 3·10^7 seconds.
const (
	guessBurst = 10
	guessEvery = time.Second

	// maxGuessers bounds the memory. Past it addresses are forgotten before they are due: that many
	// work together, and what each may try is no limit for all.
	maxGuessers = 4096
)

// guesses count the wrong tokens of each address, an IPv6 /64 being one. Any number of callers.
type guesses struct {
	now func() time.Time

	mu sync.Mutex
	of map[netip.Addr]time.Time // when all is forgiven: guessEvery later with each guess
}

func newGuesses() *guesses {
	return &guesses{now: time.Now, of: make(map[netip.Addr]time.Time)}
}

// wait is how long an address has to be silent before it may show a token; 0: it may now.
func (g *guesses) wait(address netip.Addr) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	due, known := g.of[address]
	if !known {
		return 0
	}
	return max(0, due.Sub(g.now())-(guessBurst-1)*guessEvery)
}

// wrong counts one.
func (g *guesses) wrong(address netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	due := g.of[address]
	if due.Before(now) {
		due = now
	}
	if _, known := g.of[address]; !known && len(g.of) >= maxGuessers {
		g.forgetLocked(now)
	}
	g.of[address] = due.Add(guessEvery)
}

// forgetLocked makes room for one: those who are forgiven go, or else anybody.
func (g *guesses) forgetLocked(now time.Time) {
	for address, due := range g.of {
		if due.Before(now) {
			delete(g.of, address)
		}
	}
	for address := range g.of {
		if len(g.of) < maxGuessers {
			return
		}
		delete(g.of, address)
	}
}

// guesserOf is what counts as one address. An address that cannot be read is one like any other.
func guesserOf(remote string) netip.Addr {
	peer, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	a := peer.Addr().Unmap().WithZone("")
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}
