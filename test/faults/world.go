package faults

import (
	"context"
	"fmt"
	"maps"
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
	links  map[string]map[string]*link // from → to; nil without links

	mu       sync.Mutex
	readings []Reading
}

// newWorld starts a cluster. change may alter the nodes' settings first.
func newWorld(t testing.TB, change func(*harness.Node)) *world {
	t.Helper()
	harness.Binary(t) // skips before anything has been started
	w := &world{t: t, redis: harness.NewRedis(t), origin: newOrigin(t), links: map[string]map[string]*link{}}
	settings := harness.Settings{
		"WR_MAX_ACTIVE": strconv.Itoa(rules.MaxActive), "WR_ACTIVE_TTL": seconds(rules.ActiveTTL), "WR_CLAIM_TTL": seconds(rules.ClaimTTL),
		"WR_QUEUE_ABSENT": seconds(rules.QueueAbsent), "WR_QUEUE_TTL": "600", "WR_BACKEND_TIMEOUT": "2",
	}
	maps.Copy(settings, w.redis.Settings())
	w.all = harness.NewCluster(t, 3, w.origin.url, settings)
	w.nodes = w.all.Nodes
	for _, from := range w.nodes {
		w.links[from.ID] = map[string]*link{}
		var peers []string
		for _, to := range w.nodes {
			address := to.Cluster
			if to != from {
				k := newLink(t, to.Cluster)
				w.links[from.ID][to.ID] = k
				address = k.address
			}
			peers = append(peers, to.ID+"="+address)
		}
		from.Settings["WR_PEERS"] = strings.Join(peers, ",")
		if change != nil {
			change(from)
		}
	}
	w.all.Start()
	w.crowd = newCrowd(w.nodes, w.origin)
	t.Cleanup(w.crowd.transport.CloseIdleConnections)
	t.Cleanup(w.crowd.stop)
	return w
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

// isolate cuts a node off from the others, or heals that.
func (w *world) isolate(n *harness.Node, cut bool) {
	for _, other := range w.nodes {
		if other != n {
			w.mute(n, other, cut)
			w.mute(other, n, cut)
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
	for _, n := range w.nodes {
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
		was, is := before[n.ID], now[n.ID]
		if is.goroutines > was.goroutines+moreGoroutines || is.memory > was.memory+moreMemory {
			found = append(found, fmt.Sprintf("%s: %.0f goroutines, were %.0f; %.0f MB, were %.0f", n.ID, is.goroutines, was.goroutines, is.memory/1e6, was.memory/1e6))
		}
	}
	return found
}
