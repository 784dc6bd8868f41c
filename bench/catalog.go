//go:build linux

package main

// A benchRow is one line of the catalog: what it measures, and how.
type benchRow struct {
	name    string
	title   string
	quick   bool // part of -quick
	measure func(*lab) ([]*figure, error)
}

var catalog = []benchRow{
	{"client", "what the load generator itself costs, beside wrk", false, measureClient},
	{"allocs", "the hot path allocates nothing", true, measureAllocs},
	{"proxied", "a proxied request of an admitted visitor, one node", true, measureProxied},
	{"touching", "the same on three nodes, 100,000 active visitors touching", false, measureTouching},
	{"growth", "CPU per proxied request as the active visitors grow", true, measureGrowth},
	{"poll", "polls of waiting visitors as the queue grows", true, measurePoll},
	{"arrivals", "arrivals over HTTP on three nodes, fsync on", false, measureArrivals},
	{"commit", "commit of one arrival on an idle cluster", true, measureCommit},
	{"failover", "leader kill -9: until arrivals are answered again", false, measureFailover},
	{"handover", "leader SIGTERM: the longest an arrival elsewhere waits", false, measureHandover},
	{"restart", "a follower with a million rows: restart to ready", false, measureRestart},
	{"mirror", "the mirror at 20,000 changes a second", false, measureMirror},
	{"hung", "decisions while Redis hangs", false, measureHung},
	{"overload", "three times the peak's load", false, measureOverload},
}

func (r benchRow) wanted(o options) bool {
	if o.rows != nil {
		return o.rows.MatchString(r.name)
	}
	return !o.quick || r.quick
}
