package faults

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// rules of the room in every cell: short, so that deadlines pass while harm is done.
var rules = Rules{MaxActive: 30, ActiveTTL: 5, ClaimTTL: 6, QueueAbsent: 6}

// visitors is how many there are at a time; together they ask about 350 times a second.
const visitors = 100

// A world is three nodes whose ways to one another can be cut, a Redis, an origin, and everybody who looks at them.
type world struct {
	t      testing.TB
	nodes  []*harness.Node
	all    *harness.Cluster
	redis  *harness.Redis
	origin *origin
	crowd  *crowd
	rules  Rules                       // what the audit holds the room to
	links  map[string]map[string]*link // from → to; empty without links
	spaces *spaces                     // the nodes' network namespaces; nil without
	spares []*harness.Node             // prepared, and not started
	twin   *harness.Redis              // follows redis; nil without
	toTwin *link                       // the way on which it follows
	way    *link                       // from the nodes to redis; nil without a twin
	ctx    context.Context             // of the run
	past   []Fault                     // the one of the run before, if there was one

	mu       sync.Mutex
	readings []Reading
}

// secure is whether the nodes speak TLS to each other; -tls sets it.
var secure bool

// chance decides where bits are turned and what is forgotten; TestMain makes it what -seed says.
var chance uint64

// newWorld starts the cluster that a cell is played on; the zero cell has nothing special.
func newWorld(t testing.TB, c cell) *world {
	t.Helper()
	harness.Binary(t) // skips before anything has been started
	w := &world{t: t, rules: rules, links: map[string]map[string]*link{}, ctx: t.Context()}
	if c.spaces {
		w.spaces = newSpaces(t)
	}
	w.redis, w.origin = harness.NewRedis(t), newOrigin(t)
	limits := rules
	if c.limits != nil {
		limits, w.rules = c.limits[0], c.limits[1]
	}
	settings := harness.Settings{
		"WR_MAX_ACTIVE": strconv.Itoa(limits.MaxActive), "WR_ACTIVE_TTL": seconds(limits.ActiveTTL), "WR_CLAIM_TTL": seconds(limits.ClaimTTL),
		"WR_QUEUE_ABSENT": seconds(limits.QueueAbsent), "WR_QUEUE_TTL": "600", "WR_BACKEND_TIMEOUT": "2",
	}
	maps.Copy(settings, w.redis.Settings())
	if c.twin {
		w.addTwin()
		settings["WR_REDIS_PORT"] = strconv.Itoa(w.way.port())
	}
	w.all = harness.NewCluster(t, 3, w.origin.url, settings)
	w.nodes = w.all.Nodes
	if secure {
		w.all.Secure()
	}
	switch {
	case c.spaces:
		w.spaces.settle(w)
	case !c.direct:
		w.connect()
	}
	for _, n := range w.nodes {
		if c.prepare != nil {
			c.prepare(t, n)
		}
	}
	for i := range c.spares {
		n := harness.NewNode(t, fmt.Sprintf("n%d", len(w.nodes)+1+i), w.origin.url, settings)
		w.spares = append(w.spares, n)
	}
	w.all.Start()
	w.crowd = newCrowd(w.nodes, w.spares, w.origin)
	t.Cleanup(w.crowd.transport.CloseIdleConnections)
	t.Cleanup(w.crowd.stop)
	return w
}

// connect gives each node a link to each other one in place of its address.
func (w *world) connect() {
	w.t.Helper()
	for _, from := range w.nodes {
		w.links[from.ID] = map[string]*link{}
		var peers []string
		for _, to := range w.nodes {
			address := to.Cluster
			if to != from {
				k := newLink(w.t, to.Cluster)
				w.links[from.ID][to.ID] = k
				address = k.address
			}
			peers = append(peers, to.ID+"="+address)
		}
		from.Settings["WR_PEERS"] = strings.Join(peers, ",")
	}
}

// node is the one with this id.
func (w *world) node(id string) *harness.Node {
	w.t.Helper()
	i := slices.IndexFunc(w.nodes, func(n *harness.Node) bool { return n.ID == id })
	if i < 0 {
		w.t.Fatalf("there is no %s", id)
	}
	return w.nodes[i]
}

// handTo hands leadership to a node and waits until it leads.
func (w *world) handTo(n *harness.Node) {
	w.t.Helper()
	harness.WaitFor(w.t, n.ID+" leads", 20*time.Second, func() bool {
		leader := w.leader()
		return leader == n || leader.ChangeMembers("transfer", n.ID) == nil && w.leader() == n
	})
}

// members makes these the nodes of the cluster, and of the balancer's list.
func (w *world) members(nodes ...*harness.Node) {
	w.nodes, w.all.Nodes = nodes, nodes
	for _, s := range w.crowd.seats {
		s.out.Store(!slices.Contains(nodes, s.node))
	}
}

func seconds(s float64) string { return strconv.FormatFloat(s, 'f', -1, 64) }

// leader waits for a node that leads and that all alive name.
func (w *world) leader() *harness.Node { return w.all.Leader() }

// follower is a node that does not lead.
func (w *world) follower() *harness.Node { return w.all.Followers()[0] }

// between are the links of two nodes in both directions.
func (w *world) between(a, b *harness.Node) []*link {
	return []*link{w.links[a.ID][b.ID], w.links[b.ID][a.ID]}
}

// mute holds all bytes that from sends to the node to, on whichever connection.
func (w *world) mute(from, to *harness.Node, cut bool) {
	k := w.links[from.ID][to.ID]
	k.set(cut, k.back.Load())
	k = w.links[to.ID][from.ID]
	k.set(k.forth.Load(), cut)
}

// part cuts two nodes from one another, or heals that.
func (w *world) part(a, b *harness.Node, cut bool) {
	w.mute(a, b, cut)
	w.mute(b, a, cut)
}

// isolate cuts a node off from the others, or heals that.
func (w *world) isolate(n *harness.Node, cut bool) {
	for _, other := range w.nodes {
		if other != n {
			w.part(n, other, cut)
		}
	}
}

// well reports whether every node is ready, all name one leader, and a write through each of them commits.
func (w *world) well() bool {
	leaders := map[string]bool{}
	for _, n := range w.nodes {
		s, err := n.Status()
		if err != nil || !n.Ready() || s.Leader == "" {
			return false
		}
		leaders[s.Leader] = true
	}
	if len(leaders) != 1 {
		return false
	}
	for _, n := range w.nodes {
		if n.TryLimits(map[string]any{"max_active": rules.MaxActive}) != nil {
			return false
		}
	}
	return true
}

// watch reads every node's status again and again until ctx ends.
func (w *world) watch(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, n := range slices.Concat(w.nodes, w.spares) {
		wg.Go(func() {
			for ctx.Err() == nil {
				w.read(n)
				rest(ctx, 60*time.Millisecond)
			}
		})
	}
}

// read notes one status; a node that is down or stopped has none.
func (w *world) read(n *harness.Node) {
	s, err := n.Status()
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.readings = append(w.readings, Reading{
		Node: n.ID, At: clock(), Index: s.AppliedIndex, Sum: s.TableSum, Held: s.Room.Active + s.Room.Released, Max: s.Room.MaxActive,
	})
}

// takeReadings ends the readings so far and answers them.
func (w *world) takeReadings() []Reading {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.readings
	w.readings = nil
	return r
}

// size is what one node's process takes.
type size struct{ goroutines, memory float64 }

// sizes reads those of all nodes.
func (w *world) sizes() (map[string]size, error) {
	all := map[string]size{}
	for _, n := range w.nodes {
		g, err := n.Metric("go_goroutines")
		if err != nil {
			return nil, err
		}
		m, err := n.Metric("process_resident_memory_bytes")
		if err != nil {
			return nil, err
		}
		all[n.ID] = size{g, m}
	}
	return all, nil
}

// Allowances of a node's size after harm, against the one before: idle connections and buffers that are kept.
const (
	moreGoroutines = 60
	moreMemory     = 96 << 20
)

// grown tells which nodes take more than they did before.
func (w *world) grown(before map[string]size) []string {
	var found []string
	now, err := w.sizes()
	if err != nil {
		return []string{err.Error()}
	}
	for _, n := range w.nodes {
		was, known := before[n.ID]
		is := now[n.ID]
		if known && (is.goroutines > was.goroutines+moreGoroutines || is.memory > was.memory+moreMemory) {
			found = append(found, fmt.Sprintf("%s: %.0f goroutines, were %.0f; %.0f MB, were %.0f", n.ID, is.goroutines, was.goroutines, is.memory/1e6, was.memory/1e6))
		}
	}
	return found
}
