package proxy

import (
	"errors"
	"io"
)

// An originBody is the body of a response, which fasthttp reads after the handler has
// returned, and closes in any case.
type originBody struct {
	s    *Server
	conn *originConn
	up   *upload
	keep bool // the connection may serve another request when both bodies are over
	body bodyReader
	presence
	counted bool // as a request in flight
	over    bool
}

func (s *Server) newOriginBody(r relayed) *originBody {
	return &originBody{
		s: s, conn: r.conn, up: r.up, keep: r.head.keep, body: newBodyReader(r.conn.reader, r.head.length), presence: r.presence,
	}
}

// streams counts the request as in flight beyond its handler.
func (b *originBody) streams() {
	b.counted = true
	b.s.metrics.inFlight.Inc()
}

// Read reads from the origin.
func (b *originBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if n > 0 {
		b.beat()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.s.metrics.originErrors[asOriginError(err, faultCut).fault].Inc()
	}
	return n, err
}

// SupportsBodyWriteTo tells fasthttp to use WriteTo.
func (b *originBody) SupportsBodyWriteTo() bool { return true }

// WriteTo copies the body to w in pieces as they come.
func (b *originBody) WriteTo(w io.Writer) (int64, error) {
	if rf, ok := w.(io.ReaderFrom); ok {
		return rf.ReadFrom(struct{ io.Reader }{b})
	}
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	total := int64(0)
	for {
		n, err := b.Read(buf[:])
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return total, werr
			}
			total += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// Close ends the exchange with the origin.
func (b *originBody) Close() error {
	b.finish()
	return nil
}

// finish gives the origin's connection back when both bodies are over, and ends it otherwise.
func (b *originBody) finish() {
	if b.over {
		return
	}
	b.over = true
	whole := true
	if b.up != nil {
		b.up.end()
		whole = b.up.complete
	}
	if whole && b.body.ended && b.keep {
		b.s.origin.put(b.conn)
	} else {
		b.s.origin.discard(b.conn)
	}
	if b.counted {
		b.s.metrics.inFlight.Dec()
	}
	b.presence.end()
}
