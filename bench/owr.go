//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/proxy"
	"github.com/openwaitingroom/owr/queue"
)

// A node is one owr. Its addresses and its data stay the same over restarts.
type node struct {
	process
	l       *lab
	id      string
	public  string
	admin   string
	cluster string
	data    string
	env     []string
}

// A cluster is one owr or three.
type cluster struct {
	l     *lab
	nodes []*node
	key   seal.Key // with which the cookies are sealed; only after fill
}

// A place is how a cluster begins.
type place struct {
	nodes     int
	origin    string
	redis     string // empty: no mirror
	maxActive int
	active    int // visitors inside at the start; at most maxActive
	waiting   int // visitors in the queue at the start
	snapshot  bool
	core      string // of taskset, for all nodes; empty: any
	env       []string
}

// The limits of all clusters: nobody leaves because a measurement takes long.
const ttl = 24 * time.Hour

func (p place) limits() queue.Limits {
	l := queue.DefaultLimits()
	l.MaxActive, l.ActiveTTL, l.ClaimTTL, l.QueueAbsent, l.QueueTTL = p.maxActive, ttl, ttl, ttl, ttl
	return l
}

// cluster fills the disks of a cluster as place says, starts its nodes and waits until they are ready.
func (l *lab) cluster(at place) (*cluster, error) {
	c := &cluster{l: l}
	var peers []string
	for i := range at.nodes {
		id := fmt.Sprintf("n%d", i+1)
		n := &node{l: l, id: id, public: l.address(), admin: l.address(), cluster: l.address()}
		n.name, n.folder, n.core = id, l.folder(id), at.core
		n.data = filepath.Join(n.folder, "data")
		peers = append(peers, id+"="+n.cluster)
		c.nodes = append(c.nodes, n)
	}
	limits := at.limits()
	for _, n := range c.nodes {
		n.env = append([]string{
			"WR_NODE_ID=" + n.id, "WR_LISTEN=" + n.public, "WR_ADMIN_LISTEN=" + n.admin, "WR_CLUSTER_LISTEN=" + n.cluster,
			"WR_POLL_RPS=0", // a visitor of a benchmark asks as often as it is answered
			"WR_DATA_DIR=" + n.data, "WR_BACKEND_URL=http://" + at.origin, "WR_REDIS_HOST=off",
			fmt.Sprintf("WR_MAX_ACTIVE=%d", limits.MaxActive),
			fmt.Sprintf("WR_ACTIVE_TTL=%d", int(ttl.Seconds())), fmt.Sprintf("WR_CLAIM_TTL=%d", int(ttl.Seconds())),
			fmt.Sprintf("WR_QUEUE_ABSENT=%d", int(ttl.Seconds())), fmt.Sprintf("WR_QUEUE_TTL=%d", int(ttl.Seconds())),
		}, at.env...)
		if at.redis != "" {
			host, port, _ := strings.Cut(at.redis, ":")
			n.env = append(n.env, "WR_REDIS_HOST="+host, "WR_REDIS_PORT="+port)
		}
		if at.nodes > 1 {
			n.env = append(n.env, "WR_PEERS="+strings.Join(peers, ","))
		}
	}
	if err := c.fill(at); err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if err := n.start(); err != nil {
			return nil, err
		}
		l.processes = append(l.processes, &n.process)
	}
	for _, n := range c.nodes {
		if err := n.awaitReady(); err != nil {
			return nil, err
		}
	}
	return c, c.check(at)
}

// check makes sure that every node holds what was filled in.
func (c *cluster) check(at place) error {
	return c.l.await(10*time.Second, func() error {
		for _, n := range c.nodes {
			s, err := n.status()
			if err != nil {
				return err
			}
			if s.Room.Active != at.active || s.Room.Queued != at.waiting {
				return fmt.Errorf("%s holds %d active and %d queued, want %d and %d", n.id, s.Room.Active, s.Room.Queued, at.active, at.waiting)
			}
		}
		return nil
	})
}

func (n *node) start() error { return n.l.spawn(&n.process, n.env, n.l.owr, "serve") }

func (n *node) awaitReady() error { return n.l.awaitHTTP(&n.process, n.public, "/wr_ready", 200) }

// A status is the part of /v1/status that the bench reads.
type status struct {
	Node         string `json:"node"`
	Leader       string `json:"leader"`
	AppliedIndex uint64 `json:"applied_index"`
	Room         struct {
		Active   int `json:"active"`
		Released int `json:"released"`
		Queued   int `json:"queued"`
	} `json:"room"`
	Mirror *struct {
		Healthy  bool  `json:"healthy"`
		BehindMS int64 `json:"behind_ms"`
	} `json:"mirror"`
}

func (n *node) status() (s status, err error) {
	response, err := quickClient.Get("http://" + n.admin + "/v1/status")
	if err != nil {
		return s, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return s, fmt.Errorf("status of %s: %s", n.id, response.Status)
	}
	return s, json.NewDecoder(response.Body).Decode(&s)
}

// leader waits until all living nodes name the same leader, and returns it.
func (c *cluster) leader() (leader *node, err error) {
	err = c.l.await(20*time.Second, func() error {
		leader = nil
		names := make(map[string]bool)
		for _, n := range c.nodes {
			if !n.alive() {
				continue
			}
			s, err := n.status()
			if err != nil {
				return err
			}
			names[s.Leader] = true
			if s.Leader == n.id {
				leader = n
			}
		}
		if len(names) != 1 || leader == nil {
			return fmt.Errorf("the nodes name as leader: %v", names)
		}
		return nil
	})
	return leader, err
}

// others are the living nodes without one.
func (c *cluster) others(than *node) (out []*node) {
	for _, n := range c.nodes {
		if n != than && n.alive() {
			out = append(out, n)
		}
	}
	return out
}

func (c *cluster) processes() (out []*process) {
	for _, n := range c.nodes {
		out = append(out, &n.process)
	}
	return out
}

func (c *cluster) publics() []string { return publicsOf(c.nodes) }

func publicsOf(nodes []*node) (out []string) {
	for _, n := range nodes {
		out = append(out, n.public)
	}
	return out
}

// --- visitors ---------------------------------------------------------------------------------

// visitorSeed makes the tokens; visitors are numbers.
const visitorSeed = 0x6f7772

func visitorToken(n int) queue.Token { return queue.MakeToken(mix(visitorSeed, uint64(n))) }

// A crowd is visitors from one number on, with their cookies.
type crowd struct {
	first, count int
	size         int
	text         []byte // the cookies, one after the other
}

// crowd makes the cookies of count visitors; fresh ones have never been seen by the cluster, but come with
// a cookie that it might have given them on their first visit.
func (c *cluster) crowd(first, count int) *crowd {
	out := &crowd{first: first, count: count}
	for i := range count {
		out.text = proxy.AppendCookie(out.text, visitorToken(first+i), c.key, 0)
		if i == 0 {
			out.size = len(out.text)
			out.text = append(make([]byte, 0, out.size*count), out.text...)
		}
	}
	return out
}

func (c *crowd) cookie(i int) []byte { return c.text[i*c.size : (i+1)*c.size] }

// The headers of every request, of wrk's and of ours.
const (
	userAgent = "User-Agent: bench"
	accept    = "Accept: text/html"
)

// A request is prebuilt but for the cookie, which is last.
type request struct{ before []byte }

func newRequest(path string) request {
	return request{[]byte("GET " + path + " HTTP/1.1\r\nHost: bench\r\n" + userAgent + "\r\n" + accept + "\r\nCookie: wr_token=")}
}

func (r request) append(dst, cookie []byte) []byte {
	dst = append(dst, r.before...)
	dst = append(dst, cookie...)
	return append(dst, "\r\n\r\n"...)
}

// wrkHeaders are the same headers for wrk.
func wrkHeaders(cookie []byte) []string {
	return []string{"Host: bench", userAgent, accept, "Cookie: wr_token=" + string(cookie)}
}

// each asks for one thing with one visitor's cookie after the other, until their end and from the
// beginning again.
func (c *crowd) each(path string) func(*conn, []byte) []byte {
	r, order := newRequest(path), newSpread(c.count)
	return func(at *conn, dst []byte) []byte {
		at.visitor = order.next()
		return r.append(dst, c.cookie(at.visitor))
	}
}

// once asks for one thing with each cookie once, in order.
func (c *crowd) once(path string) func(*conn, []byte) []byte {
	r, n := newRequest(path), 0
	return func(at *conn, dst []byte) []byte {
		at.visitor = n % c.count
		n++
		return r.append(dst, c.cookie(at.visitor))
	}
}
