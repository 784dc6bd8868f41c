package mirror

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Status is what the mirror says of itself.
type Status struct {
	Enabled bool          // there is a Redis to write to
	Leading bool          // Run is under way: this node is the one that writes
	Healthy bool          // Redis holds the picture, but for what Behind says
	Behind  time.Duration // how long Redis has not been equal to the table; scores excepted
	// LastError says why the mirror is not healthy; empty when it is, and on a node that does not lead.
	LastError string
}

// health keeps what Status tells, and says each change of it once: in the log and in the metrics.
// Run's goroutine writes; anybody reads.
type health struct {
	log     *slog.Logger
	enabled bool

	mu        sync.Mutex
	leading   bool
	healthy   bool
	behind    time.Time // since when; zero: Redis is equal to the table
	seenGood  time.Time // when Redis was last equal to the table
	lastError string
	told      trouble   // what the log was last told; zero: all is well
	lostAt    time.Time // when told was set

	changes prometheus.Counter
	passes  *prometheus.CounterVec
	fenced  prometheus.Counter
	errors  *prometheus.CounterVec
	script  prometheus.Histogram
}

// trouble is a kind of fault: the label of the metric, and what is logged once until it is over.
type trouble string

const (
	troubleNone     trouble = ""
	troubleRedis    trouble = "redis"    // it does not answer, or with an error
	troubleChanged  trouble = "changed"  // somebody else wrote to the keys, or Redis lost them
	troubleFenced   trouble = "fenced"   // a later term of this cluster writes there
	troubleForeign  trouble = "foreign"  // another cluster writes there
	troubleWatching trouble = "watching" // another cluster wrote there once; it is given time to show itself
	troubleBacklog  trouble = "backlog"  // Redis is slower than the changes come
	troubleRewrite  trouble = "rewrite"  // the line is cheaper to write again than to change
	troubleOld      trouble = "old"      // the full pass is old: a hand that leaves the counts as they were is seen by nothing else
	troubleCluster  trouble = "cluster"  // the cluster has no id to write yet
)

var troubles = []trouble{
	troubleRedis, troubleChanged, troubleFenced, troubleForeign, troubleWatching, troubleBacklog, troubleRewrite, troubleOld, troubleCluster,
}

// reasonTerm is what makes the first full pass of a term necessary; the others are troubles.
const reasonTerm = "term"

func troubleOf(err error) trouble {
	switch {
	case errors.Is(err, errFenced):
		return troubleFenced
	case errors.Is(err, errForeign):
		return troubleForeign
	case errors.Is(err, errWatching):
		return troubleWatching
	case errors.Is(err, errChanged):
		return troubleChanged
	case errors.Is(err, errOverflow):
		return troubleBacklog
	case errors.Is(err, errOld):
		return troubleOld
	case errors.Is(err, errRewrite):
		return troubleRewrite
	case errors.Is(err, errNoCluster):
		return troubleCluster
	}
	return troubleRedis
}

// routine reports whether this is the mirror at work rather than something wrong: a full pass
// follows, and nobody has to know.
func (t trouble) routine() bool {
	return t == troubleBacklog || t == troubleRewrite || t == troubleOld || t == troubleWatching || t == troubleCluster
}

func newHealth(cfg Config) *health {
	h := &health{
		log: cfg.Logger, enabled: cfg.Addr != "",
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "owr_mirror_changes_total", Help: "Changes of the table that were shown in Redis one by one.",
		}),
		passes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "owr_mirror_passes_total", Help: "Full passes: the whole picture written to Redis, by what made it necessary.",
		}, []string{"reason"}),
		fenced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "owr_mirror_fenced_total", Help: "Writes that Redis refused because a later term of this cluster has written there.",
		}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "owr_mirror_errors_total", Help: "Times the mirror had to begin again, by kind.",
		}, []string{"kind"}),
		script: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "owr_mirror_script_seconds", Help: "Time Redis took for one group of changes.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
	}
	h.passes.WithLabelValues(reasonTerm)
	for _, t := range troubles { // so that a rate can be taken from the first one on
		h.passes.WithLabelValues(string(t))
		h.errors.WithLabelValues(string(t))
	}
	if cfg.Registerer != nil && h.enabled {
		cfg.Registerer.MustRegister(h.changes, h.passes, h.fenced, h.errors, h.script,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "owr_mirror_behind_seconds", Help: "How long Redis has not been equal to the table; 0 on a node that does not lead.",
			}, func() float64 { return h.status().Behind.Seconds() }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "owr_mirror_healthy", Help: "1 on the node that keeps the picture in Redis right, else 0.",
			}, func() float64 {
				if h.status().Healthy {
					return 1
				}
				return 0
			}))
	}
	return h
}

func (h *health) status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Status{Enabled: h.enabled, Leading: h.leading, Healthy: h.healthy, LastError: h.lastError}
	if !h.behind.IsZero() {
		s.Behind = time.Since(h.behind)
	}
	return s
}

// begin is called when a term begins: Redis is what another one left there.
func (h *health) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leading, h.healthy, h.behind, h.lastError = true, false, time.Now(), ""
}

// end is called when the term is over: what Redis holds is the next leader's business.
func (h *health) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leading, h.healthy, h.behind, h.lastError = false, false, time.Time{}, ""
	h.told = troubleNone
}

// pending says that the table has changed, at the latest at that time.
func (h *health) pending(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.behind.IsZero() {
		h.behind = at
	}
}

// shown says that Redis holds all that was taken from the feed at that time; since is the zero
// time when nothing waits there now, otherwise the time since which something may.
func (h *health) shown(at, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.behind, h.seenGood = since, at
}

// drawn says that a full pass is complete.
func (h *health) drawn(reason string, visitors int, took time.Duration) {
	h.passes.WithLabelValues(reason).Inc()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.healthy, h.lastError = true, ""
	level := slog.LevelDebug
	if reason == reasonTerm {
		level = slog.LevelInfo
	}
	h.log.Log(context.Background(), level, "mirror drawn", "reason", reason, "visitors", visitors, "took", took)
}

// steady says that the mirror has looked again after a full pass, and all was as it should be.
// Only now a fault counts as over: one that comes back at once is told of once.
func (h *health) steady() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.told != troubleNone {
		h.log.Info("mirror back", "away", time.Since(h.lostAt).Round(time.Millisecond))
		h.told = troubleNone
	}
}

// failed says that the picture is not right any more, and why.
func (h *health) failed(t trouble, err error) {
	h.errors.WithLabelValues(string(t)).Inc()
	if t == troubleFenced {
		h.fenced.Inc()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.behind.IsZero() {
		h.behind = h.seenGood
	}
	if t == troubleBacklog || t == troubleRewrite || t == troubleOld {
		return // Redis is well, and shows what it showed a moment ago
	}
	h.healthy, h.lastError = false, err.Error()
	if t.routine() || t == h.told {
		return
	}
	if h.told == troubleNone {
		h.lostAt = time.Now()
	}
	h.told = t
	switch t {
	case troubleForeign:
		h.log.Error("mirror left alone: another cluster writes to the same keys; give each its own database or key prefix", "err", err)
	case troubleFenced:
		h.log.Warn("mirror left alone: a later leader of this cluster has written there", "err", err)
	case troubleChanged:
		h.log.Warn("mirror is not what was written, writing it again", "err", err)
	default:
		h.log.Warn("mirror lost; the waiting room goes on without it", "err", err)
	}
}
