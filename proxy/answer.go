package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/openwaitingroom/owr/queue"
)

const (
	typeHTML    = "text/html; charset=utf-8"
	typeText    = "text/plain; charset=utf-8"
	typeJSON    = "application/json"
	typeProblem = "application/problem+json"
)

// How long somebody is asked to stay away, in seconds, when no position says it better.
const (
	retryFull   = 30
	retryFailed = 2
	retryShed   = 5 // at least; up to three times as long
)

// An answer is one response that owr makes itself. Every one of them is no-store and varies
// with the cookie: what one visitor is told must not reach another through a cache.
type answer struct {
	status     int
	kind       string // Content-Type; empty: no body
	body       []byte // not changed after it is sent; may be shared
	location   []byte
	policy     string // Content-Security-Policy of a page
	retryAfter int    // seconds; 0: none
	allow      string
	tell       *verdict // whose cookie goes along, when it needs one
	closes     bool     // the connection ends with it
}

// send makes a the response to ctx. The request's body, if any, is left to the server, which
// reads a little of it or closes the connection.
func (s *Server) send(ctx *fasthttp.RequestCtx, a answer) {
	b := buffers.get()
	defer buffers.put(b)
	https := a.tell != nil && exchangeOf(ctx).from.https // what could not be read has no exchange, and no cookie to get
	b.data = append(s.appendAnswerHead(b.data, &a, https), "\r\n"...)
	if err := setHead(ctx, b.data); err != nil {
		panic("owr: own answer: " + err.Error())
	}
	ctx.Response.SetBodyRaw(a.body)
	if a.closes || s.draining.Load() {
		ctx.SetConnectionClose()
	}
	if ctx.Request.IsBodyStream() || a.closes {
		clientOf(ctx).lingers()
	}
}

// appendAnswerHead appends the head of a, but for the empty line at its end.
func (s *Server) appendAnswerHead(dst []byte, a *answer, https bool) []byte {
	b := buffer{appendStatusLine(dst, a.status, "")}
	b.line("Date", time.Now().UTC().AppendFormat(nil, http.TimeFormat))
	if a.kind != "" {
		b.line("Content-Type", []byte(a.kind))
	}
	b.line("Content-Length", strconv.AppendInt(nil, int64(len(a.body)), 10))
	b.data = append(b.data, "Cache-Control: no-store\r\nVary: Cookie\r\nX-Content-Type-Options: nosniff\r\n"...)
	if len(a.location) > 0 {
		b.line("Location", a.location)
	}
	if a.policy != "" {
		b.line("Content-Security-Policy", []byte(a.policy))
		b.line("Referrer-Policy", []byte("same-origin"))
	}
	if a.retryAfter > 0 {
		b.line("Retry-After", strconv.AppendInt(nil, int64(a.retryAfter), 10))
	}
	if a.allow != "" {
		b.line("Allow", []byte(a.allow))
	}
	if a.tell != nil {
		b.data, _ = s.appendCookieLine(b.data, a.tell, https)
	}
	return b.data
}

// appendCookieLine appends the Set-Cookie line of a verdict that needs one, and reports
// whether it did.
func (s *Server) appendCookieLine(dst []byte, v *verdict, https bool) ([]byte, bool) {
	keys := s.room.Keys()
	if !v.tell || len(keys) == 0 {
		return dst, false
	}
	maxAge := max(24*time.Hour, s.room.Limits().QueueTTL)
	dst = append(dst, "Set-Cookie: "...)
	dst = appendSetCookie(dst, s.cfg.CookieName, v, keys.Signer(s.room.Now()), maxAge, s.secureCookie || https)
	return append(dst, "\r\n"...), true
}

// appendAnswer appends a whole answer as it goes over the wire.
func (s *Server) appendAnswer(dst []byte, a *answer, https bool) []byte {
	dst = s.appendAnswerHead(dst, a, https)
	if a.closes {
		dst = append(dst, "Connection: close\r\n"...)
	}
	return append(append(dst, "\r\n"...), a.body...)
}

// A problem is an RFC 9457 answer: what a script gets where a browser would get a page.
type problem struct {
	Type       string `json:"type"`
	Title      string `json:"title"`
	Status     int    `json:"status"`
	Detail     string `json:"detail"`
	Position   int    `json:"position,omitempty"`
	RetryAfter int    `json:"retry_after,omitempty"`
}

func problemBody(status, position, retryAfter int, detail string) []byte {
	body, err := json.Marshal(problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Position: position, RetryAfter: retryAfter,
	})
	if err != nil {
		panic("owr: " + err.Error()) // numbers and our own words always have a form in JSON
	}
	return body
}

// holdAnswer is the answer to a request that is not let in.
func (s *Server) holdAnswer(h *head, v *verdict) answer {
	if h.navigation() {
		return s.holdPage(h, v)
	}
	a := answer{kind: typeProblem, tell: v}
	detail := ""
	switch v.outcome {
	case full:
		a.status, a.retryAfter, detail = 503, retryFull, "The waiting line is full."
	case failed:
		a.status, a.retryAfter, detail = 503, retryFailed, "The waiting room cannot decide at the moment."
	case shed:
		a.status, a.retryAfter, detail = 503, s.retryShed(), "Too many visitors are arriving at the moment."
	case limited:
		a.status, a.retryAfter, detail = 429, retryFailed, "Too many requests."
	case works:
		a.status, a.retryAfter, detail = 429, min(s.retryAfter(v.position), v.papers.wait), "You have no place in the waiting line yet."
	default:
		a.status, a.retryAfter, detail = 429, s.retryAfter(v.position), "You are in the waiting line."
		if v.still {
			detail += " " + standsStill
		}
	}
	a.body = problemBody(a.status, v.position, a.retryAfter, detail)
	return a
}

func (s *Server) holdPage(h *head, v *verdict) answer {
	switch {
	case v.outcome == full:
		return answer{status: 503, kind: typeHTML, body: s.pages.full, policy: s.pages.noticePolicy, retryAfter: retryFull, tell: v}
	case v.outcome == shed:
		return answer{status: 503, kind: typeHTML, body: s.pages.busy, policy: s.pages.noticePolicy, retryAfter: s.retryShed()}
	case v.outcome == limited:
		return answer{status: 429, kind: typeHTML, body: s.pages.limited, policy: s.pages.noticePolicy, retryAfter: retryFailed, tell: v}
	case v.outcome == failed && v.token == queue.Token{}:
		// There is no cookie to give yet, so the visitor could not be known on another page.
		return s.waitingPage(h, v, 503)
	case s.cfg.QueueMode == ModeInline:
		return s.waitingPage(h, v, s.cfg.QueueStatus)
	}
	return answer{status: 302, location: appendQueuePage(nil, h.target, v.position), tell: v}
}

// waitingPage is the waiting page at the address asked for.
func (s *Server) waitingPage(h *head, v *verdict, status int) answer {
	seconds := s.retryAfter(v.position)
	target := h.target
	if !safeTarget(target) {
		target = []byte(s.mainPath)
	}
	return answer{
		status: status, kind: typeHTML, body: s.pages.waiting.render(target, v.position, seconds, v.still), policy: s.pages.waiting.policy,
		retryAfter: seconds, tell: v,
	}
}

// queuePage is the answer to GET /queue.html. It reads no state: the position is the one that the
// redirect has put into the query, and the page's own poll brings the next one.
func (s *Server) queuePage(h *head) answer {
	target, ok := queryValue(h.target, "r")
	if !ok || !safeTarget(target) {
		target = []byte(s.mainPath)
	}
	position := queryPosition(h.target)
	return answer{
		status: 200, kind: typeHTML, body: s.pages.waiting.render(target, position, pageRefresh, false), policy: s.pages.waiting.policy,
	}
}

// sendText answers with one line of plain text.
func (s *Server) sendText(ctx *fasthttp.RequestCtx, status int, text string, retryAfter int) {
	s.send(ctx, answer{status: status, kind: typeText, body: []byte(text + "\n"), retryAfter: retryAfter})
}

// refuse answers a request that is malformed or too large, and closes: nobody can say where
// the next one would begin.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, r *refusal) {
	s.metrics.refused.Inc()
	s.send(ctx, refusalAnswer(r.status))
}

func refusalAnswer(status int) answer {
	a := answer{status: status, kind: typeText, body: []byte(http.StatusText(status) + "\n"), closes: true}
	if status == 405 {
		a.allow = usualMethods
	}
	return a
}

// usualMethods is what Allow says where only TRACE and CONNECT are refused (RFC 9110, section 15.5.6 demands it). Others go to the site,
// whose they are to allow.
const usualMethods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

// sendOriginError answers for an origin that did not.
func (s *Server) sendOriginError(ctx *fasthttp.RequestCtx, h *head, status int, v *verdict, closes bool) {
	s.send(ctx, s.originErrorAnswer(h.navigation(), status, v, closes))
}

// originErrorAnswer is what a visitor is told when the origin did not answer. The reason stays in the metrics.
func (s *Server) originErrorAnswer(page bool, status int, v *verdict, closes bool) answer {
	a := answer{status: status, closes: closes, tell: v}
	if page {
		a.kind, a.body, a.policy = typeHTML, s.pages.unavailable, s.pages.noticePolicy
		if status == 504 {
			a.body = s.pages.slow
		}
	} else {
		detail := "The site could not be reached."
		if status == 504 {
			detail = "The site did not answer in time."
		}
		a.kind, a.body = typeProblem, problemBody(status, 0, 0, detail)
	}
	return a
}

func appendStatusLine(dst []byte, status int, reason string) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	if reason == "" {
		reason = http.StatusText(status)
	}
	dst = append(dst, reason...)
	return append(dst, "\r\n"...)
}

func appendInt(dst []byte, n int) []byte { return strconv.AppendInt(dst, int64(n), 10) }

// A buffer is a head in the making.
type buffer struct{ data []byte }

func (b *buffer) line(name string, value []byte) {
	b.data = append(b.data, name...)
	b.data = append(b.data, ": "...)
	b.data = append(b.data, value...)
	b.data = append(b.data, "\r\n"...)
}

type bufferPool struct{ pool sync.Pool }

var buffers = bufferPool{sync.Pool{New: func() any { return &buffer{data: make([]byte, 0, 2<<10)} }}}

func (p *bufferPool) get() *buffer {
	b := p.pool.Get().(*buffer)
	b.data = b.data[:0]
	return b
}

func (p *bufferPool) put(b *buffer) {
	if cap(b.data) <= 64<<10 {
		p.pool.Put(b)
	}
}

// headReaders turn a finished head into the header of a fasthttp response.
var headReaders = sync.Pool{New: func() any {
	r := &headReader{}
	r.buffered = bufio.NewReaderSize(&r.bytes, maxOriginHead+4<<10)
	return r
}}

type headReader struct {
	bytes    bytes.Reader
	buffered *bufio.Reader
}

// setHead makes block, a whole response head, the head of ctx's response. Parsing it back is
// the one way into a fasthttp response that keeps every line as it is: its setters drop Date
// and merge lines. A head without a length must say chunked.
func setHead(ctx *fasthttp.RequestCtx, block []byte) error {
	r := headReaders.Get().(*headReader)
	defer headReaders.Put(r)
	r.bytes.Reset(block)
	r.buffered.Reset(&r.bytes)
	err := ctx.Response.Header.Read(r.buffered)
	r.bytes.Reset(nil)
	return err
}
