package proxy

import "time"

// A parked is a request of somebody who is not inside, for a turn that has time for it. The client's request buffer keeps it.
type parked struct {
	client *loopClient // whose parked is this, or it has gone
	since  time.Time
}

func (l *loop) park(c *loopClient, in []byte) {
	c.request = append(l.buffer(), in...)
	if len(l.parked) >= loopParks {
		l.turnAway(c)
		return
	}
	c.parked = &parked{c, l.now}
	c.deadline = l.now.Add(l.s.cfg.DecisionTimeout)
	l.parked = append(l.parked, c.parked)
}

// unpark serves as many of the parked as this turn has time for.
func (l *loop) unpark() {
	n := 0
	for ; n < len(l.parked) && l.budget > 0; n++ {
		if c := l.parked[n].client; c.parked == l.parked[n] {
			l.budget--
			l.lag = l.now.Sub(c.parked.since)
			l.resume(c)
		}
	}
	rest := copy(l.parked, l.parked[n:])
	clear(l.parked[rest:])
	l.parked = l.parked[:rest]
}

// resume serves a parked request.
func (l *loop) resume(c *loopClient) {
	defer l.rescue(c)
	in := c.request
	c.parked, c.request = nil, nil
	l.again(in)
	who := l.s.identify(l.head.fields, c.peer)
	if v, inside := l.pass(&who); inside {
		from := l.s.senderOf(c.peer, l.head.fields)
		l.conclude(c, &l.head, &from, v)
	} else {
		l.settle(c, in, &who)
	}
	if cap(in) <= laneHead && len(l.spare) < loopTurn {
		l.spare = append(l.spare, in)
	}
}

// again reads a request that has been read before into l.head.
func (l *loop) again(in []byte) {
	if !laneParse(in, &l.head) {
		panic("owr: a request reads otherwise the second time")
	}
}

// turnAway answers a parked request for which no time was found. Who has a place hears it, as far as this replica may say so, and who
// has a slot by now passes.
func (l *loop) turnAway(c *loopClient) {
	c.parked = nil
	l.again(c.request)
	from, v := l.s.senderOf(c.peer, l.head.fields), shedVerdict
	who := l.s.identify(l.head.fields, c.peer)
	passed, inside := l.pass(&who)
	switch {
	case string(l.head.path) == pathQueue:
		l.reply(c, l.s.queuePage(&l.head), false)
		return
	case inside:
		v = passed
	case l.s.holds(&who):
		v = l.s.inside(&who)
	case who.view.State.Waits() && !l.s.behind(&who):
		l.s.room.Asked(who.token)
		v = l.s.inLine(&who)
	}
	l.conclude(c, &l.head, &from, v)
}
