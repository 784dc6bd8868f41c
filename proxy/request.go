package proxy

import (
	"errors"
	"net"
	"os"
	"sync"

	"github.com/valyala/fasthttp"
)

// An exchange is one request while its handler runs. A connection has one at a time.
type exchange struct {
	head    head
	from    sender
	verdict verdict
	decided bool // verdict holds: the request was decided before its body was asked for
	counted bool // by the limits of its visitor, before it came here
}

// maxPooledFields keeps the memory of one request with thousands of headers from staying.
const maxPooledFields = 256

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// begin returns the request that fasthttp has found. Its head is the one that the connection's intake has read.
func (s *Server) begin(ctx *fasthttp.RequestCtx) (*exchange, *refusal) {
	c := clientOf(ctx)
	if c.intake.refusal != nil {
		return c.x, c.intake.refusal
	}
	if c.x == nil {
		return nil, &refusal{400, "two readings of a request"} // fasthttp has seen an end that is none
	}
	x := c.x
	x.counted, c.counted = c.counted, false
	x.from = s.senderOf(c.peer, x.head.fields)
	return x, nil
}

// end gives the exchange back. What it points to belongs to the next request from then on.
func (s *Server) end(ctx *fasthttp.RequestCtx) {
	c := clientOf(ctx)
	if c.x != nil && cap(c.x.head.fields) <= maxPooledFields {
		exchanges.Put(c.x)
	}
	c.x = nil
}

func exchangeOf(ctx *fasthttp.RequestCtx) *exchange { return clientOf(ctx).x }

// handle serves one request. fasthttp calls it once the head has been read.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	defer s.end(ctx)
	defer s.survive(ctx)
	x := exchangeOf(ctx)
	if x == nil || !x.decided {
		var r *refusal
		if x, r = s.begin(ctx); r != nil {
			s.refuse(ctx, r)
			return
		}
	}
	s.route(ctx, x)
}

// survive keeps a defect in one request from ending the process.
func (s *Server) survive(ctx *fasthttp.RequestCtx) {
	if r := recover(); r != nil {
		s.panicked(r)
		ctx.Response.ResetBody()
		s.send(ctx, answer{status: 500, kind: typeText, body: []byte("Internal Server Error\n"), closes: true})
	}
}

func (s *Server) route(ctx *fasthttp.RequestCtx, x *exchange) {
	h := &x.head
	if ownPath(h.path) {
		s.own(ctx, h)
		return
	}
	if !x.decided {
		x.verdict = s.decideCounted(h, x)
	}
	if x.verdict.outcome != letIn {
		s.send(ctx, s.holdAnswer(h, &x.verdict))
		return
	}
	s.forward(ctx, x)
}

func (s *Server) decideCounted(h *head, x *exchange) verdict {
	v := s.decide(h, &x.from, x.counted)
	s.count(&v)
	return v
}

// own serves owr's own endpoints.
func (s *Server) own(ctx *fasthttp.RequestCtx, h *head) {
	if m := string(h.method); m != "GET" && m != "HEAD" {
		s.send(ctx, answer{status: 405, kind: typeText, body: []byte("Method Not Allowed\n"), allow: "GET, HEAD"})
		return
	}
	switch string(h.path) {
	case pathHealth:
		s.sendText(ctx, 200, "OK", 0)
	case pathReady:
		s.ready(ctx)
	case pathQueue:
		s.send(ctx, s.queuePage(h))
	case pathCheck:
		s.check(ctx, h)
	}
}

func (s *Server) ready(ctx *fasthttp.RequestCtx) {
	if s.notReady.Load() {
		s.sendText(ctx, 503, "draining", retryFailed)
		return
	}
	if err := s.room.Ready(); err != nil {
		s.sendText(ctx, 503, err.Error(), retryFailed)
		return
	}
	s.sendText(ctx, 200, "OK", 0)
}

// expect decides a request that waits for our leave to send its body. One that is not let in
// gets its answer here, and its body is never sent; fasthttp then skips handle and closes.
func (s *Server) expect(ctx *fasthttp.RequestCtx) (status int) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(r)
			status = 500
		}
	}()
	x, r := s.begin(ctx)
	switch {
	case r != nil:
		s.refuse(ctx, r)
	case ownPath(x.head.path):
		return fasthttp.StatusContinue
	default:
		x.verdict, x.decided = s.decideCounted(&x.head, x), true
		if x.verdict.outcome == letIn {
			return fasthttp.StatusContinue
		}
		s.send(ctx, s.holdAnswer(&x.head, &x.verdict))
	}
	clientOf(ctx).lingers()
	s.end(ctx)
	return ctx.Response.StatusCode()
}

// headReceived gives a body the stall time for its first byte, in place of what is left of
// the time for the head. From then on upload sets the deadlines.
func (s *Server) headReceived(header *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if n := header.ContentLength(); n > 0 || n == -1 {
		return fasthttp.RequestConfig{ReadTimeout: s.cfg.StallTimeout}
	}
	return fasthttp.RequestConfig{}
}

// malformed answers what fasthttp could not read as a request.
func (s *Server) malformed(ctx *fasthttp.RequestCtx, err error) {
	status := fasthttp.StatusBadRequest
	var small *fasthttp.ErrSmallBuffer
	var timeout net.Error
	switch {
	case errors.As(err, &small):
		status = fasthttp.StatusRequestHeaderFieldsTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		status = fasthttp.StatusRequestTimeout
	}
	r := &refusal{status, err.Error()}
	if found := clientOf(ctx).intake.refusal; found != nil {
		r = found
	}
	s.refuse(ctx, r)
	s.end(ctx)
}
