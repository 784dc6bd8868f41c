package proxy

import "github.com/openwaitingroom/owr/queue"

// A presence keeps a visitor's slot while one of its requests lasts: a touch about once a
// second as long as bytes move, and one at the end when it took longer than that.
type presence struct {
	room   Room
	token  queue.Token
	begun  int64 // cluster time, Unix milliseconds
	lastAt int64
}

const touchEvery = 1000 // milliseconds

func newPresence(room Room, token queue.Token) presence {
	now := room.Now()
	return presence{room, token, now, now}
}

// beat says that bytes have moved. One goroutine.
func (p *presence) beat() {
	if now := p.room.Now(); now-p.lastAt >= touchEvery {
		p.lastAt = now
		p.room.Touch(p.token)
	}
}

func (p *presence) end() {
	if p.room.Now()-p.begun >= touchEvery {
		p.room.Touch(p.token)
	}
}
