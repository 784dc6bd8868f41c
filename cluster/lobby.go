package cluster

import (
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// maxWaiting is how many connections may be in the lobby. A node that means to talk is out of it within milliseconds.
const maxWaiting = 256

// A lobby holds the connections that have not shown yet that they are a node's. When it is full, one leaves for each that comes: of those
// that have said nothing, or of all when none is silent, the oldest from the address that has the most. So a stranger with
// any number of connections pushes out its own, and costs no more descriptors than there is room here.
type lobby struct {
	mu      sync.Mutex
	waiting []*tracked // in the order of their coming
}

// enter takes a connection in and returns the one that has to go, nil when there is room.
func (l *lobby) enter(conn *tracked) (out *tracked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= maxWaiting {
		at := l.lastLocked()
		out = l.waiting[at]
		l.waiting = slices.Delete(l.waiting, at, at+1)
	}
	conn.host = hostOf(conn)
	l.waiting = append(l.waiting, conn)
	return out
}

// leave forgets a connection, if it is still there.
func (l *lobby) leave(conn *tracked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := slices.Index(l.waiting, conn); at >= 0 {
		l.waiting = slices.Delete(l.waiting, at, at+1)
	}
}

// lastLocked is the place of the one that is missed least.
func (l *lobby) lastLocked() int {
	silent, from := false, map[string]int{}
	for _, c := range l.waiting {
		if !c.heard.Load() && !silent {
			silent = true
			clear(from)
		}
		if !silent || !c.heard.Load() {
			from[c.host]++
		}
	}
	last, most := 0, 0
	for at, c := range l.waiting {
		if n := from[c.host]; n > most && (!silent || !c.heard.Load()) {
			last, most = at, n
		}
	}
	return last
}

func hostOf(conn net.Conn) string {
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}

// --- who was refused ------------------------------------------------------------------------

var (
	errNotOurs = errors.New("this is not a node of ours, or one of another version")
	errCrowded = errors.New("too many connections that have not shown yet whose they are")
)

// A refusal is why a connection to the cluster port was not taken: the word is that of the metric.
type refusal string

const (
	refusedGone      refusal = "hung_up"
	refusedSilent    refusal = "too_slow"
	refusedCrowd     refusal = "too_many"
	refusedStranger  refusal = "stranger"
	refusedSecret    refusal = "wrong_secret"
	refusedForeign   refusal = "other_cluster"
	refusedPlain     refusal = "no_tls"
	refusedTLS       refusal = "tls_unwanted"
	refusedAuthority refusal = "wrong_authority"
	refusedName      refusal = "wrong_name"
	refusedByThem    refusal = "refuses_us"
	refusedHandshake refusal = "tls_failed"
)

var refusals = []struct {
	err error
	is  refusal
}{
	{errCrowded, refusedCrowd},
	{errNotOurs, refusedStranger},
	{errStranger, refusedSecret},
	{errForeign, refusedForeign},
	{errPlain, refusedPlain},
	{errTLSHello, refusedTLS},
	{errAuthority, refusedAuthority},
	{errWrongName, refusedName},
	{errNoName, refusedName},
	{errRefusesUs, refusedByThem},
}

func refusalOf(err error) refusal {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return r.is
		}
	}
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return refusedSilent
	case hungUp(err):
		return refusedGone
	}
	return refusedHandshake
}

// newRefusals makes the metric, with every reason at zero.
func newRefusals() *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "owr_cluster_refused_connections_total", Help: "Connections to the cluster port that were not taken, by reason.",
	}, []string{"reason"})
	for _, r := range refusals {
		v.WithLabelValues(string(r.is))
	}
	for _, r := range []refusal{refusedGone, refusedSilent, refusedHandshake} {
		v.WithLabelValues(string(r))
	}
	return v
}

// refuse ends a connection and says why: once every repeatEvery for each reason, whoever comes how often. Who hangs up by itself is a
// look at the port, or a node that just ends, and no news.
func (p *port) refuse(conn *tracked, err error) {
	why := refusalOf(err)
	p.card.refused.WithLabelValues(string(why)).Inc()
	switch {
	case why == refusedGone:
		p.log.Debug("connection to the cluster port refused", "reason", string(why), "from", conn.RemoteAddr().String(), "err", err)
	case !p.card.told.lately("refused: " + string(why)):
		p.log.Warn("connection to the cluster port refused", "reason", string(why), "from", conn.RemoteAddr().String(), "err", err)
	}
	conn.Close()
}
