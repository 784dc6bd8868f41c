package proxy

import (
	"strconv"

	"github.com/valyala/fasthttp"
)

// check answers GET /wr_check: in with the visitor, or where it stands.
func (s *Server) check(ctx *fasthttp.RequestCtx, h *head) {
	v := s.decideCounted(h, exchangeOf(ctx))
	s.send(ctx, s.pollAnswer(h.target, &v))
}

// pollAnswer is the answer to a poll of that target. Its JSON has status (waiting, full, error or limited), position (1 or more,
// where it is known), retry_after (seconds), no_quorum (true) while the line stands still for want of a majority, and pow (challenge, bits, wait in
// seconds) for a visitor that has no place yet and is to work or to wait for one.
func (s *Server) pollAnswer(target []byte, v *verdict) answer {
	a := answer{status: 200, kind: typeJSON, tell: v}
	status, position := "waiting", v.position
	switch v.outcome {
	case letIn:
		return answer{status: 302, location: wayBack(target, s.cfg.MainURL), tell: v}
	case full:
		a.status, status, a.retryAfter = 503, "full", retryFull
	case failed:
		a.status, status, a.retryAfter, position = 503, "error", retryFailed, 0
	case shed:
		a.status, status, a.retryAfter, position = 503, "error", s.retryShed(), 0
	case works:
		position, a.retryAfter = max(1, position), min(s.retryAfter(v.position), v.papers.wait)
	case limited:
		a.status, status, a.retryAfter = 429, "limited", retryFailed
	default:
		position, a.retryAfter = max(1, position), s.retryAfter(v.position)
	}
	body := append(make([]byte, 0, 64), `{"status":"`...)
	body = append(append(body, status...), '"')
	if position > 0 {
		body = strconv.AppendInt(append(body, `,"position":`...), int64(position), 10)
	}
	body = strconv.AppendInt(append(body, `,"retry_after":`...), int64(a.retryAfter), 10)
	if v.still {
		body = append(body, `,"no_quorum":true`...)
	}
	if v.outcome == works {
		body = s.pow.appendWork(body, v)
	}
	a.body = append(body, '}')
	return a
}
