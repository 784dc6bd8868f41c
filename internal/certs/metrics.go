package certs

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are those of all the Reloaders of a process. A nil *Metrics counts nothing.
type Metrics struct {
	failures *prometheus.CounterVec
	expiry   *prometheus.Desc

	mu        sync.Mutex
	reloaders []*Reloader // mu; those that have a certificate
}

// NewMetrics registers them. registerer must not have others already.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "owr_tls_reload_failures_total", Help: "New certificate files that could not be used, so that the old ones stayed in use.",
		}, []string{"use"}),
		expiry: prometheus.NewDesc("owr_tls_certificate_expiry_seconds",
			"How long the certificate in use is still valid; negative once it has expired.", []string{"use"}, nil),
	}
	for _, c := range []prometheus.Collector{m.failures, m} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("certs: register metrics: %w", err)
		}
	}
	return m, nil
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.expiry }

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.reloaders {
		left := time.Until(r.Certificate().Leaf.NotAfter).Seconds()
		ch <- prometheus.MustNewConstMetric(m.expiry, prometheus.GaugeValue, left, r.cfg.Use)
	}
}

// follow shows a Reloader's certificate, and its failures from the first on as a rise from zero. Two of the same use would be
// one series twice, so the later one takes the place of the earlier.
func (m *Metrics) follow(r *Reloader) {
	if m == nil {
		return
	}
	m.failures.WithLabelValues(r.cfg.Use)
	if r.cfg.Cert == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, other := range m.reloaders {
		if other.cfg.Use == r.cfg.Use {
			m.reloaders[i] = r
			return
		}
	}
	m.reloaders = append(m.reloaders, r)
}

func (m *Metrics) failed(use string) {
	if m != nil {
		m.failures.WithLabelValues(use).Inc()
	}
}
