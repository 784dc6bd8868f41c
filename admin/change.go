package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"github.com/openwaitingroom/owr/queue"
)

// setLimits is PUT /v1/limits. The whole body is read and checked before anything is submitted,
// and all of it is one entry.
func (s *Server) setLimits(w http.ResponseWriter, r *http.Request, who *caller) {
	body, status, err := readJSON(w, r)
	var change queue.LimitsChange
	if err == nil {
		status = http.StatusBadRequest
		change, err = decodeLimits(body)
	}
	if err != nil {
		s.log.Info("limits not changed", who.attrs("status", status, "err", err)...)
		problem(w, status, err.Error())
		return
	}
	if change.Set|change.Clear == 0 {
		writeJSON(w, http.StatusOK, "application/json", s.cfg.Status().Room.Limits)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	limits, index, err := s.cfg.SetLimits(ctx, change)
	attrs := who.attrs("set", describeSet(change), "cleared", describeClear(change))
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		s.log.Info("limits not changed", append(attrs, "status", http.StatusConflict, "err", err)...)
		problem(w, http.StatusConflict, refused.Reason)
		return
	}
	if err != nil {
		s.log.Warn("limits perhaps not changed", append(attrs, "status", http.StatusServiceUnavailable, "err", err)...)
		unavailable(w, err)
		return
	}
	s.log.Info("limits changed", append(attrs, "status", http.StatusOK, "index", index)...)
	writeJSON(w, http.StatusOK, "application/json", newLimits(limits))
}

// leave is DELETE /v1/visitors/{id}.
func (s *Server) leave(w http.ResponseWriter, r *http.Request, who *caller) {
	token, ok := queue.ParseToken([]byte(r.PathValue("id")))
	if !ok {
		s.log.Info("visitor not removed", who.attrs("status", http.StatusBadRequest)...)
		problem(w, http.StatusBadRequest, "the id of a visitor is a version 4 UUID in lower case")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	found, index, err := s.cfg.Leave(ctx, token)
	attrs := who.attrs("visitor", token.String())
	switch {
	case err != nil:
		s.log.Warn("visitor perhaps not removed", append(attrs, "status", http.StatusServiceUnavailable, "err", err)...)
		unavailable(w, err)
	case !found:
		s.log.Info("visitor not removed", append(attrs, "status", http.StatusNotFound, "index", index)...)
		problem(w, http.StatusNotFound, "no such visitor")
	default:
		s.log.Info("visitor removed", append(attrs, "status", http.StatusNoContent, "index", index)...)
		w.WriteHeader(http.StatusNoContent)
	}
}

// readJSON reads a body that says it is JSON. One that says something else, or nothing, may have been sent
// by a form of another site's page, which cannot say that. The status belongs to the error.
func readJSON(w http.ResponseWriter, r *http.Request) (body []byte, status int, err error) {
	kinds := r.Header.Values("Content-Type")
	if len(kinds) != 1 || !isJSON(kinds[0]) {
		return nil, http.StatusUnsupportedMediaType, errors.New("the body has to be sent with Content-Type: application/json")
	}
	body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, http.StatusRequestEntityTooLarge, errors.New("the body is longer than 64 KiB")
	}
	if err != nil {
		return nil, http.StatusBadRequest, errors.New("the body ended too soon")
	}
	return body, http.StatusOK, nil
}

func isJSON(kind string) bool {
	media, _, err := mime.ParseMediaType(kind)
	return err == nil && media == "application/json"
}

func describeSet(c queue.LimitsChange) map[string]float64 {
	return NewRoom(queue.Counts{}, c.Values, c.Set).Overrides
}

func describeClear(c queue.LimitsChange) []string {
	var names []string
	for _, f := range queue.Fields {
		if c.Clear&f.Field != 0 {
			names = append(names, f.Name)
		}
	}
	return names
}

// unavailable answers for the cluster. What was submitted may still commit; sending it again is
// harmless.
func unavailable(w http.ResponseWriter, err error) {
	w.Header().Set("Retry-After", retryAfter)
	problem(w, http.StatusServiceUnavailable, err.Error()+"; the change may still take effect, and may be sent again")
}

// problem answers with the error as RFC 9457 has it.
func problem(w http.ResponseWriter, status int, detail string) {
	writeJSON(w, status, "application/problem+json", struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{http.StatusText(status), status, detail})
}

func writeJSON(w http.ResponseWriter, status int, kind string, value any) {
	body, err := json.Marshal(value)
	if err != nil { // a NaN where a number should be: our own mistake
		status, kind, body = http.StatusInternalServerError, "application/problem+json", []byte(`{"status":500}`)
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
