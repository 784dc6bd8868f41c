// Package admin is the listener for operators and machines: health, metrics, the status of the
// cluster and the calls that change it. It is never the public one. There are two roles: who reads,
// which is whoever reaches the listener unless it is protected, and who operates, which is proved by a
// token, by a client's certificate, or by calling over loopback where there is neither (guard.go).
package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/openwaitingroom/owr/queue"
)

// Config is what the listener needs from the rest of the node. All functions are needed, and
// may be called by any number of requests at once.
type Config struct {
	// Token is the bearer token of every changing call. Empty: such calls are taken over
	// loopback only. Never logged.
	Token string
	// ReadToken is a bearer token that is good for reading alone. With one, the reading calls of /v1 need
	// it or Token. Never logged.
	ReadToken string
	// ProtectReads has the reading calls of /v1 and the metrics need a token, a certificate, or loopback
	// where there is neither. Health is open in any case.
	ProtectReads bool
	// ClientCertificates says that callers may prove themselves by a certificate, whose organizational unit
	// is their role, "read" or "operate". The listener given to Serve has to verify it. Loopback
	// alone proves nothing then.
	ClientCertificates bool

	Logger   *slog.Logger        // nil: nothing is logged
	Registry prometheus.Gatherer // what /metrics shows

	Live   func() error // nil while the process does its work; otherwise why not
	Ready  func() error // nil while this node can serve visitors; otherwise why not
	Status func() Status
	// SetLimits submits a change of the override layer and answers with the limits in force once
	// it has committed, and the index of its entry. A *RefusedError says that nothing was done; any other error leaves open whether the
	// change comes into force.
	SetLimits func(context.Context, queue.LimitsChange) (limits queue.Limits, index uint64, err error)
	// Leave takes a visitor out by the entry at index; found is false when the table does not hold it.
	Leave func(context.Context, queue.Token) (found bool, index uint64, err error)
	// Members is who belongs to the cluster, and ChangeMembers carries out one change: a *RefusedError says that nothing was
	// done, any other error leaves it open.
	Members       func(context.Context) Members
	ChangeMembers func(context.Context, MemberChange) error
	// Keys are the proof keys, the newest first; RotateKey makes another one, and RemoveKey ends one. A *RefusedError says that nothing
	// was done. Keys nil: there are no such calls.
	Keys      func() []Key
	RotateKey func(context.Context) error
	RemoveKey func(ctx context.Context, id uint8) error
	// Backup makes a backup of this node's replica. Nil: there is no such call.
	Backup func() (*Backup, error)
}

const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second // for a whole request
	writeTimeout  = 30 * time.Second
	idleTimeout   = 60 * time.Second
	maxHeader     = 16 << 10
	maxBody       = 64 << 10
	// changeTimeout bounds the wait for the cluster: an operator gets an answer while the majority is away.
	changeTimeout = 5 * time.Second
	retryAfter    = "1" // seconds
)

// A Server is the admin listener of one node.
type Server struct {
	cfg    Config
	log    *slog.Logger
	guard  *guard
	server *http.Server
}

// New makes a server that listens nowhere yet.
func New(cfg Config) (*Server, error) {
	if cfg.Registry == nil || cfg.Live == nil || cfg.Ready == nil || cfg.Status == nil || cfg.SetLimits == nil || cfg.Leave == nil ||
		cfg.Members == nil || cfg.ChangeMembers == nil {
		return nil, errors.New("admin: config lacks a function or the registry")
	}
	if cfg.Token != "" && cfg.Token == cfg.ReadToken {
		return nil, errors.New("admin: the token for reading is the one for changes")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, guard: newGuard(&cfg)}
	s.server = &http.Server{
		Handler: s.Handler(), MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Handler answers every path of the listener. The mux answers 404, and 405 with Allow.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", health(s.cfg.Live))
	mux.HandleFunc("GET /readyz", health(s.cfg.Ready))
	mux.Handle("GET /metrics", s.guard.scraping(promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
	})))
	mux.Handle("GET /v1/status", s.guard.reading(s.status))
	mux.Handle("PUT /v1/limits", s.guard.changing(s.setLimits))
	mux.Handle("DELETE /v1/visitors/{id}", s.guard.changing(s.leave))
	mux.Handle("GET /v1/cluster", s.guard.reading(s.members))
	for _, op := range []string{OpJoin, OpPromote, OpRemove, OpTransfer} {
		mux.Handle("POST /v1/cluster/"+op, s.guard.changing(s.changeMembers(op)))
	}
	if s.cfg.Keys != nil {
		mux.Handle("GET /v1/keys", s.guard.reading(s.keys))
		mux.Handle("POST /v1/keys/rotate", s.guard.changing(s.rotateKey))
		mux.Handle("DELETE /v1/keys/{id}", s.guard.changing(s.removeKey))
	}
	if s.cfg.Backup != nil {
		mux.Handle("GET /v1/backup", s.guard.changing(s.backup)) // the keys are in it
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// Serve answers on l until Shutdown, and closes l. Several listeners may be served at once.
func (s *Server) Serve(l net.Listener) error {
	if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops listening and waits for the requests under way; when ctx ends it cuts them off
// and returns its error. Serve returns at the beginning of it.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.server.Shutdown(ctx)
	if err != nil {
		_ = s.server.Close()
	}
	return err
}

// health answers 200, or 503 and the reason.
func health(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		text := "ok"
		if err := check(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			text = err.Error()
		}
		_, _ = w.Write([]byte(text + "\n"))
	}
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, "application/json", s.cfg.Status())
}
