package proxy

import (
	"net"
	"sync/atomic"
	"time"
)

// maxSlack is how much later than asked for a deadline may fall.
const maxSlack = time.Second

// A deadline is one of a connection's, moved by every byte of progress. Moving the runtime's timer costs a good part
// of the read or write that it guards, so it is set a slack ahead and left alone until that is used up: it falls up
// to an eighth of the time-out later than asked for, and never earlier.
type deadline struct {
	at atomic.Int64 // what the connection has, Unix nanoseconds; 0: nothing is known
}

// move makes the deadline fall no earlier than d from now.
func (l *deadline) move(d time.Duration, set func(time.Time) error) error {
	now := time.Now()
	slack := min(d/8, maxSlack)
	if want := now.Add(d).UnixNano(); l.at.Load() >= want && l.at.Load() <= want+int64(slack) {
		return nil
	}
	at := now.Add(d + slack)
	l.at.Store(at.UnixNano())
	return set(at)
}

// forget says that somebody else has set the connection's deadline.
func (l *deadline) forget() { l.at.Store(0) }

// A lazyReadDeadline keeps what fasthttp asks for until the next read needs it: of the three deadlines that it sets for a
// request, a head that comes whole needs none.
type lazyReadDeadline struct {
	want atomic.Int64 // Unix nanoseconds; 0: none
	have atomic.Int64
}

// ask notes the wish. A time that has passed is meant for a read that is under way, so it is set at once.
func (l *lazyReadDeadline) ask(c net.Conn, t time.Time) error {
	if t.IsZero() {
		l.want.Store(0)
		return nil
	}
	at := t.UnixNano()
	l.want.Store(at)
	if t.Unix() > 1 {
		return nil
	}
	l.have.Store(at)
	return c.SetReadDeadline(t)
}

// apply is called before a read.
func (l *lazyReadDeadline) apply(c net.Conn) error {
	want, have := l.want.Load(), l.have.Load()
	switch {
	case want == have, want != 0 && have >= want && have <= want+int64(maxSlack):
		return nil
	case want == 0:
		l.have.Store(0)
		return c.SetReadDeadline(time.Time{})
	}
	at := time.Unix(0, want)
	at = at.Add(min(max(time.Until(at)/8, 0), maxSlack))
	l.have.Store(at.UnixNano())
	if err := c.SetReadDeadline(at); err != nil {
		return err
	}
	if l.want.Load() != want { // a read was to end meanwhile
		return c.SetReadDeadline(time.Unix(0, l.want.Load()))
	}
	return nil
}
