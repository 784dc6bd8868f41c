package admin

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Keys is the JSON of GET /v1/keys: which proof keys there are, the newest first, and never what they are.
type Keys struct {
	Keys []Key `json:"keys"`
}

// Key is one of them.
type Key struct {
	ID     uint8     `json:"id"`
	MadeAt time.Time `json:"made_at,omitzero"` // absent: not known
	Age    *float64  `json:"age"`              // seconds; null: not known
	Signs  bool      `json:"signs"`            // new cookies are under it
}

func (s *Server) keys(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, "application/json", Keys{s.cfg.Keys()})
}

// rotateKey is POST /v1/keys/rotate. It answers with the keys after it.
func (s *Server) rotateKey(w http.ResponseWriter, r *http.Request, who *caller) {
	s.changeKeys(w, r, who, "rotate", s.cfg.RotateKey)
}

// removeKey is DELETE /v1/keys/{id}. It answers with the keys after it.
func (s *Server) removeKey(w http.ResponseWriter, r *http.Request, who *caller) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 8)
	if err != nil {
		s.log.Info("proof keys not changed", who.attrs("status", http.StatusBadRequest)...)
		problem(w, http.StatusBadRequest, "the id of a key is a number from 1 to 255")
		return
	}
	s.changeKeys(w, r, who, "remove "+strconv.Itoa(int(id)), func(ctx context.Context) error { return s.cfg.RemoveKey(ctx, uint8(id)) })
}

func (s *Server) changeKeys(w http.ResponseWriter, r *http.Request, who *caller, what string, change func(context.Context) error) {
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	attrs := who.attrs("change", what)
	err := change(ctx)
	switch refused := (*RefusedError)(nil); {
	case err == nil:
		s.log.Info("proof keys changed", append(attrs, "status", http.StatusOK, "applied_index", s.cfg.Status().AppliedIndex)...)
		s.keys(w, r)
	case errors.As(err, &refused):
		status := http.StatusConflict
		if refused.Unknown {
			status = http.StatusNotFound
		}
		s.log.Info("proof keys not changed", append(attrs, "status", status, "err", err)...)
		problem(w, status, refused.Reason)
	default:
		s.log.Warn("proof keys perhaps not changed", append(attrs, "status", http.StatusServiceUnavailable, "err", err)...)
		unavailable(w, err)
	}
}
