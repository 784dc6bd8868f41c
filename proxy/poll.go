package proxy

import (
	"encoding/json"

	"github.com/valyala/fasthttp"
)

// A poll is the JSON that GET /wr_check answers while a visitor cannot go in.
type poll struct {
	Status     string `json:"status"`             // waiting, full, error, or limited
	Position   int    `json:"position,omitempty"` // 1 or more
	RetryAfter int    `json:"retry_after"`        // seconds
}

// check answers GET /wr_check: in with the visitor, or where it stands.
func (s *Server) check(ctx *fasthttp.RequestCtx, h *head) {
	v := s.decideCounted(h, exchangeOf(ctx))
	a := answer{status: 200, kind: typeJSON, tell: &v}
	p := poll{Position: v.position}
	switch v.outcome {
	case letIn:
		s.send(ctx, answer{status: 302, location: wayBack(h.target, s.cfg.MainURL), tell: &v})
		return
	case full:
		a.status, p.Status, p.RetryAfter = 503, "full", retryFull
	case failed:
		a.status, p.Status, p.RetryAfter, p.Position = 503, "error", retryFailed, 0
	case limited:
		a.status, p.Status, p.RetryAfter = 429, "limited", retryFailed
	default:
		p.Position = max(1, p.Position)
		p.Status, p.RetryAfter = "waiting", s.retryAfter(v.position)
	}
	a.retryAfter = p.RetryAfter
	body, err := json.Marshal(p)
	if err != nil {
		panic("owr: " + err.Error())
	}
	a.body = body
	s.send(ctx, a)
}
