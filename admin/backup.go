package admin

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// A Backup is one backup on its way.
type Backup struct {
	Name string // for a file
	Size int64  // bytes
	Body io.ReadCloser
}

// backupChunk is how many bytes have to get through within writeTimeout.
const backupChunk = 64 << 10

// backup is GET /v1/backup. The keys are in it, so it needs what a changing call needs.
func (s *Server) backup(w http.ResponseWriter, _ *http.Request, who *caller) {
	b, err := s.cfg.Backup()
	if err != nil {
		s.log.Warn("no backup made", who.attrs("err", err)...)
		w.Header().Set("Retry-After", retryAfter)
		problem(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer b.Body.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(b.Size, 10))
	w.Header().Set("Content-Disposition", `attachment; filename="`+b.Name+`"`)
	if err := send(w, b.Body); err != nil {
		s.log.Warn("a backup was not sent to its end", who.attrs("err", err)...)
		return // fewer bytes than promised: the server cuts the connection
	}
	s.log.Info("backup sent", who.attrs("name", b.Name, "bytes", b.Size)...)
}

// send copies body. A table takes the time it takes; what may not happen is that nothing moves.
func send(w http.ResponseWriter, body io.Reader) error {
	control := http.NewResponseController(w)
	for {
		if err := control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		switch _, err := io.CopyN(w, body, backupChunk); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}
