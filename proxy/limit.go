package proxy

import (
	"net/netip"

	"github.com/openwaitingroom/owr/queue"
)

// A limitReason is a limit at the edge that turned somebody away, as the metrics name it.
type limitReason uint8

const (
	limitVisitor     limitReason = iota // WR_VISITOR_RPS
	limitPolls                          // WR_POLL_RPS
	limitNewcomers                      // WR_NEW_PER_IP_PER_MINUTE
	limitAddress                        // WR_MAX_CONNS_PER_IP
	limitConns                          // WR_MAX_CONNS, and no idle connection could make room
	limitIdle                           // WR_MAX_CONNS, and an idle connection has made room
	limitDescriptors                    // open files
	limitRate                           // WR_MIN_RATE
	limitStall                          // WR_STALL_TIMEOUT
	limitReasons
)

var limitNames = [limitReasons]string{"visitor_rps", "poll_rps", "new_per_ip", "conns_per_ip", "max_conns", "idle_closed", "open_files", "min_rate", "stall_timeout"}

// edgeLimits are the limits that one node keeps for itself; nil fields are off. Any number of callers.
type edgeLimits struct {
	visitors  *meter
	polls     *meter
	newcomers *meter
	places    *meter
}

func newEdgeLimits(cfg *Config) *edgeLimits {
	return &edgeLimits{
		visitors:  newMeter(float64(cfg.VisitorRPS), 2*cfg.VisitorRPS),
		polls:     newMeter(float64(cfg.PollRPS), 4*cfg.PollRPS),
		newcomers: newMeter(float64(cfg.NewPerIPPerMinute)/60, cfg.NewPerIPPerMinute),
		places:    newMeter(float64(cfg.NewPerIPPerMinute)/60, cfg.NewPerIPPerMinute),
	}
}

// newcomer counts a first visit and reports whether its address may make another one.
func (l *edgeLimits) newcomer(from netip.Addr) bool {
	return l.newcomers == nil || l.newcomers.allow(prefixOf(from).As16())
}

// place counts a place in line that is taken with a name from a first visit, and reports whether its address may take another one. Names
// can be gathered over hours, or by many, so counting those who get one is not enough.
func (l *edgeLimits) place(from netip.Addr) bool {
	return l.places == nil || l.places.allow(prefixOf(from).As16())
}

// visitor counts a request and reports whether its visitor may make another one.
func (l *edgeLimits) visitor(token queue.Token) bool {
	return l.visitors == nil || l.visitors.allow(token)
}

// poll counts a poll of a visitor that waits and reports whether it may make another one.
func (l *edgeLimits) poll(token queue.Token) bool {
	return l.polls == nil || l.polls.allow(token)
}

// prefixOf is what counts as one address: an IPv4 address, or the /64 that one IPv6
// subscriber has to itself.
func prefixOf(a netip.Addr) netip.Addr {
	if a.Is4() || !a.IsValid() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}
