package proxy

import "github.com/prometheus/client_golang/prometheus"

// metrics are resolved once, so that counting costs one addition.
type metrics struct {
	decisions    [outcomes]prometheus.Counter
	originErrors map[originFault]prometheus.Counter
	handshakes   map[string]prometheus.Counter
	refused      prometheus.Counter
	limited      [limitReasons]prometheus.Counter
	inFlight     prometheus.Gauge
	connections  prometheus.Gauge
	tunnels      prometheus.Gauge
	originConns  *counted
	panics       prometheus.Counter
	apart        prometheus.Counter
	invalid      prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "owr_decisions_total", Help: "Requests decided, by what the visitor was told.",
	}, []string{"state"})
	originErrors := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "owr_origin_errors_total", Help: "Requests that the origin did not answer properly, by reason.",
	}, []string{"reason"})
	limits := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "owr_limited_total", Help: "Requests turned away and connections closed by a limit at the edge, by which.",
	}, []string{"reason"})
	handshakes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "owr_tls_handshakes_total", Help: "TLS handshakes of the public listener, by what became of them.",
	}, []string{"result"})
	m := &metrics{
		originErrors: make(map[originFault]prometheus.Counter),
		handshakes:   make(map[string]prometheus.Counter),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "owr_refused_requests_total", Help: "Requests refused as malformed, too large or too slow.",
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "owr_requests_in_flight", Help: "Requests that are being decided or forwarded.",
		}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "owr_connections", Help: "Open connections of clients, tunnels included.",
		}),
		tunnels: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "owr_tunnels", Help: "Open tunnels (WebSocket).",
		}),
		originConns: &counted{Gauge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "owr_origin_connections", Help: "Open connections to the origin, idle ones included.",
		})},
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "owr_panics_total", Help: "Requests ended by a defect in owr itself.",
		}),
	}
	m.apart = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "owr_no_quorum_admitted_total", Help: "Visitors let in without a slot while the cluster had no majority (WR_NO_QUORUM=admit).",
	})
	m.invalid = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "owr_invalid_cookies_total", Help: "Requests of visitors not inside whose cookie has owr's form and no good proof: forged, or under a key that is gone.",
	})
	for o, name := range outcomeNames {
		m.decisions[o] = decisions.WithLabelValues(name)
	}
	for r, name := range limitNames {
		m.limited[r] = limits.WithLabelValues(name)
	}
	for _, f := range originFaults {
		m.originErrors[f] = originErrors.WithLabelValues(string(f))
	}
	for _, r := range handshakeResults {
		m.handshakes[r] = handshakes.WithLabelValues(r)
	}
	for _, c := range []prometheus.Collector{
		decisions, originErrors, handshakes, limits, m.refused, m.inFlight, m.connections, m.tunnels, m.originConns, m.panics, m.apart, m.invalid,
	} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
