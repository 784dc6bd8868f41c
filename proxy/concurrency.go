package proxy

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/queue"
)

// stays count the requests of each visitor that are at the origin, so that a cookie that many share is worth no more than
// one visitor's. The count is this node's own: it costs no message, and on n nodes a visitor may have n times as many. Only
// visitors with a request under way have an entry, so it holds no more than there are requests. Any number of callers.
type stays struct {
	most    int
	refused prometheus.Counter
	shards  [64]stayShard
}

type stayShard struct {
	mu sync.Mutex
	of map[queue.Token]int
}

// A stay is one request's part of the count. Several copies of a presence may share it; the first end counts. A nil stay is that
// of a server that does not count.
type stay struct {
	shard *stayShard
	token queue.Token
	over  atomic.Bool
}

// newStays answers nil, and no error, where there is no limit.
func newStays(most int, registerer prometheus.Registerer) (*stays, error) {
	if most == 0 {
		return nil, nil
	}
	c := &stays{most: most, refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "owr_visitor_concurrency_refused_total", Help: "Requests of visitors inside that had as many at the origin as WR_VISITOR_CONCURRENCY allows.",
	})}
	for i := range c.shards {
		c.shards[i].of = make(map[queue.Token]int)
	}
	return c, registerer.Register(c.refused)
}

// begin counts a request. It answers nil when the visitor has too many.
func (c *stays) begin(token queue.Token) *stay {
	shard := &c.shards[token[len(token)-1]%64]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	n := shard.of[token]
	if n >= c.most {
		c.refused.Inc()
		return nil
	}
	shard.of[token] = n + 1
	return &stay{shard: shard, token: token}
}

func (st *stay) end() {
	if st == nil || st.over.Swap(true) {
		return
	}
	st.shard.mu.Lock()
	defer st.shard.mu.Unlock()
	if n := st.shard.of[st.token]; n > 1 {
		st.shard.of[st.token] = n - 1
	} else {
		delete(st.shard.of, st.token)
	}
}

// enter begins the presence of a visitor that v lets in. Where it has too many requests at the origin, v becomes limited: it
// keeps its slot, and is to come back.
func (s *Server) enter(v *verdict) presence {
	p := newPresence(s.room, v)
	if v.apart {
		p.apart = s.outage
	}
	if s.stays != nil {
		if p.stay = s.stays.begin(v.token); p.stay == nil {
			v.outcome = limited
		}
	}
	return p
}
