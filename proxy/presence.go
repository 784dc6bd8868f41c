package proxy

import "github.com/openwaitingroom/owr/queue"

// A presence keeps a visitor's slot while one of its requests lasts: a touch about once a
// second as long as bytes move, and one at the end when it took longer than that.
type presence struct {
	room   Room
	token  queue.Token
	begun  int64 // cluster time, Unix milliseconds
	lastAt int64
	first  bool    // the request is a first visit: it did not bring the cookie
	stay   *stay   // nil: nobody counts how many requests of the visitor there are
	apart  *outage // nil: the visitor was let in with a slot
}

const touchEvery = 1000 // milliseconds

func newPresence(room Room, v *verdict) presence {
	now := room.Now()
	return presence{room: room, token: v.token, begun: now, lastAt: now, first: v.first}
}

// beat says that bytes have moved. One goroutine.
func (p *presence) beat() {
	if now := p.room.Now(); now-p.lastAt >= touchEvery {
		p.lastAt = now
		p.touch()
	}
}

func (p *presence) end() {
	p.stay.end()
	if p.room.Now()-p.begun >= touchEvery {
		p.touch()
	}
}

func (p *presence) touch() {
	if p.apart != nil {
		p.apart.renew(p.token) // and it may have a slot by now
	}
	if p.first {
		p.room.Stay(p.token)
		return
	}
	p.room.Touch(p.token)
}
