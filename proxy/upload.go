package proxy

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/valyala/fasthttp"
)

// An upload is a request body on its way to the origin, in a goroutine of its own, so that an
// origin may answer before it has read everything.
type upload struct {
	s      *Server
	client *clientConn
	conn   *originConn
	length int64 // -1: chunked
	presence

	done    chan struct{} // closed when run has returned; the fields below are settled then
	stopped chan struct{}

	complete  bool
	clientErr error // the client's side failed
}

func (s *Server) startUpload(ctx *fasthttp.RequestCtx, c *originConn, length int64, p presence) *upload {
	u := &upload{
		s: s, client: clientOf(ctx), conn: c, length: length, presence: p,
		done: make(chan struct{}), stopped: make(chan struct{}),
	}
	body := ctx.RequestBodyStream()
	go u.run(body)
	return u
}

// errDefect is what went wrong where a goroutine met a defect of ours.
var errDefect = errors.New("a defect in owr")

var errBodyTooLong = errors.New("the body is longer than WR_MAX_BODY")

// answerGrace is how long the origin gets to say why after it has stopped reading.
const answerGrace = 2 * time.Second

func (u *upload) run(body io.Reader) {
	defer close(u.done)
	defer func() {
		if r := recover(); r != nil {
			u.s.panicked(r)
			u.clientErr = errDefect
			_ = u.conn.raw.Close()
		}
	}()
	clientErr, originErr := u.copy(body)
	switch {
	case clientErr != nil:
		// What the origin has of the body must not look like all of it.
		u.clientErr = clientErr
		_ = u.conn.raw.Close()
	case originErr != nil:
		u.conn.hurry(min(u.conn.timeout, answerGrace))
	default:
		u.complete = true
		u.conn.hurry(u.conn.timeout)
	}
}

func (u *upload) copy(body io.Reader) (clientErr, originErr error) {
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	u.client.received.restart()
	total := int64(0)
	for {
		_ = u.client.SetReadDeadline(time.Now().Add(u.client.stall))
		if u.isStopped() { // after the deadline, so that end's own deadline is the last
			return nil, context.Canceled
		}
		begun := u.client.received.begin()
		n, err := body.Read(buf[chunkRoom : copySize-2])
		if slow := u.client.received.end(begun, n); slow != nil && err == nil {
			err = slow
		}
		if n > 0 {
			if total += int64(n); u.s.cfg.MaxBody > 0 && total > u.s.cfg.MaxBody {
				return errBodyTooLong, nil // a length would have been refused with the head
			}
			u.beat()
			if _, werr := u.conn.Write(u.frame(buf, n)); werr != nil {
				return nil, werr
			}
		}
		switch {
		case err == nil:
		case u.isStopped(): // it is we who have cut it short, and not the client
			return nil, context.Canceled
		case !errors.Is(err, io.EOF):
			u.client.metrics.tooSlow(err)
			return err, nil
		case u.length >= 0 && total != u.length, !u.client.intake.whole():
			// fasthttp takes the end of the connection for the end of a chunked body.
			return io.ErrUnexpectedEOF, nil
		case u.length < 0:
			_, werr := u.conn.Write(lastChunk)
			return nil, werr
		default:
			return nil, nil
		}
	}
}

func (u *upload) isStopped() bool {
	select {
	case <-u.stopped:
		return true
	default:
		return false
	}
}

// frame turns the n bytes at chunkRoom into what goes to the origin.
func (u *upload) frame(buf *[copySize]byte, n int) []byte {
	if u.length >= 0 {
		return buf[chunkRoom : chunkRoom+n]
	}
	return frameChunk(buf, n)
}

// soonDone reports whether the upload is over, or will be in a moment: most origins answer
// right after the last byte.
func (u *upload) soonDone() bool {
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-u.done:
		return u.complete
	case <-timer.C:
		return false
	}
}

// end stops the upload where it is and returns when it has stopped.
func (u *upload) end() {
	select {
	case <-u.done:
		return
	default:
	}
	select {
	case <-u.stopped:
	default:
		close(u.stopped)
	}
	_ = u.client.SetReadDeadline(time.Unix(1, 0))
	_ = u.conn.raw.Close() // the request is not complete, so the connection is of no more use
	<-u.done
}
