package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/valyala/fasthttp"
)

// smallBody is the largest body that is copied instead of streamed, when all of it has come
// with the head: one write to the client, and the connection is free at once.
const smallBody = 16 << 10

// forward passes a request on and its response back.
func (s *Server) forward(ctx *fasthttp.RequestCtx, x *exchange) {
	h := &x.head
	p := s.enter(&x.verdict)
	if x.verdict.outcome != letIn {
		s.send(ctx, s.holdAnswer(h, &x.verdict))
		return
	}
	if len(h.upgrade) > 0 {
		if s.isWebSocket(h) {
			s.forwardUpgrade(ctx, x, p)
			return
		}
		h.upgrade = nil
	}
	out := buffers.get()
	defer buffers.put(out)
	out.data = s.appendOriginHead(out.data, h, &x.from)

	r := responses.Get().(*response)
	defer responses.Put(r)
	c, up, size, err := s.roundTrip(ctx, h, out.data, r, p)
	if err != nil {
		s.forwardFailed(ctx, x, err, up)
		p.end()
		return
	}
	s.relay(ctx, x, relayed{c, r, size, up, p})
}

var responses = sync.Pool{New: func() any { return new(response) }}

// roundTrip sends the head, starts the upload of the body if there is one, and reads the head
// of the response. It asks a second time only where that cannot do anything twice: a method
// that changes nothing, no body, and a connection that had been used before and ended
// without a single byte of an answer.
func (s *Server) roundTrip(ctx *fasthttp.RequestCtx, h *head, out []byte, r *response, p presence) (c *originConn, up *upload, size int, err error) {
	for attempt := 0; ; attempt++ {
		r.status = 0
		c, err = s.origin.get(s.base, attempt > 0)
		if err != nil {
			return nil, nil, 0, err
		}
		if h.hasBody() {
			c.wait()
		}
		if _, err = c.Write(out); err == nil {
			if h.hasBody() {
				up = s.startUpload(ctx, c, h.length, p)
			}
			if size, err = r.read(c.reader, h.method, len(h.upgrade) > 0); err == nil {
				return c, up, size, nil
			}
		}
		if up != nil {
			up.end()
			if up.clientErr != nil {
				err = up.clientErr
			}
		}
		nothing := r.status == 0 && c.reader.Buffered() == 0 && !errors.Is(err, os.ErrDeadlineExceeded)
		again := attempt == 0 && c.reused && nothing && !h.hasBody() && repeatable(h.method)
		s.origin.discard(c)
		if !again {
			return nil, up, 0, err
		}
	}
}

func repeatable(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS":
		return true
	}
	return false
}

// forwardFailed answers a request that got no response from the origin.
func (s *Server) forwardFailed(ctx *fasthttp.RequestCtx, x *exchange, err error, up *upload) {
	unread := x.head.hasBody() && (up == nil || !up.complete)
	if up != nil && up.clientErr != nil {
		status := 400
		switch {
		case errors.Is(err, errBodyTooLong):
			status = 413
		case errors.Is(err, os.ErrDeadlineExceeded):
			status = 408
		}
		s.refuse(ctx, &refusal{status, "body"})
		return
	}
	fault := asOriginError(err, faultClosed)
	s.metrics.originErrors[fault.fault].Inc()
	s.sendOriginError(ctx, &x.head, fault.status(), &x.verdict, unread)
}

// A relayed is a response on its way to the client.
type relayed struct {
	conn *originConn
	head *response
	size int     // of the head, still in the connection's reader
	up   *upload // nil without a request body
	presence
}

// relay makes the origin's response ctx's.
func (s *Server) relay(ctx *fasthttp.RequestCtx, x *exchange, r relayed) {
	c, h := r.conn, r.head
	early := r.up != nil && !r.up.soonDone()
	b := buffers.get()
	defer buffers.put(b)
	length := h.length
	toEnd := length < 0 && x.head.http10
	b.data = s.appendClientHead(b.data, x, h, toEnd)
	_, _ = c.reader.Discard(r.size)

	if toEnd {
		s.relayToEnd(ctx, r, append([]byte(nil), b.data...))
		return
	}
	if err := setHead(ctx, b.data); err != nil {
		// What we accept and what fasthttp accepts differ. The origin's answer is lost, its
		// connection with it.
		s.metrics.originErrors[faultAnswer].Inc()
		s.dropOrigin(r)
		s.sendOriginError(ctx, &x.head, 502, &x.verdict, early)
		r.end()
		return
	}
	ctx.Response.Header.ResetConnectionClose() // a HEAD without a length is not an end
	body := s.newOriginBody(r)
	switch {
	case length == 0:
		body.finish()
	case length > 0 && length <= smallBody && int64(c.reader.Buffered()) >= length:
		all, _ := c.reader.Peek(int(length))
		ctx.Response.SetBody(all)
		_, _ = c.reader.Discard(len(all))
		body.body.ended = true
		body.finish()
	default:
		body.streams()
		ctx.Response.ImmediateHeaderFlush = true
		ctx.Response.SetBodyStream(body, int(max(length, -1)))
	}
	if early {
		// Its client may still be sending. Nobody reads that to its end, so nothing can follow.
		ctx.SetConnectionClose()
		clientOf(ctx).lingers()
	}
	if s.draining.Load() {
		ctx.SetConnectionClose()
	}
}

// appendClientHead appends the head that the client gets. A response whose end is the end of
// the connection says neither length nor coding.
func (s *Server) appendClientHead(dst []byte, x *exchange, h *response, toEnd bool) []byte {
	dst = h.appendStatus(dst)
	cookie := buffers.get()
	defer buffers.put(cookie)
	gains := false
	cookie.data, gains = s.appendCookieLine(cookie.data, &x.verdict, x.from.https)
	dst = appendClientFields(dst, h, s.cfg.CookieName, gains)
	dst = append(dst, cookie.data...)
	switch {
	case toEnd:
		dst = append(dst, "Connection: close\r\n"...)
	case h.length > 0:
		dst = appendLength(dst, h.length)
	case h.length < 0:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case h.told >= 0:
		dst = appendLength(dst, h.told)
	}
	return append(dst, "\r\n"...)
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, "\r\n"...)
}

func (s *Server) dropOrigin(r relayed) {
	if r.up != nil {
		r.up.end()
	}
	s.origin.discard(r.conn)
}

// relayToEnd sends a body of unknown length to an HTTP/1.0 client, which knows no chunks: as
// it comes, until the connection ends.
func (s *Server) relayToEnd(ctx *fasthttp.RequestCtx, r relayed, head []byte) {
	client := clientOf(ctx)
	body := s.newOriginBody(r)
	body.streams()
	s.takeOver(ctx, func(net.Conn) {
		if _, err := client.Write(head); err == nil {
			_, _ = client.ReadFrom(struct{ io.Reader }{body})
		}
	}, body.finish)
}
