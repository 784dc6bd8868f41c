package clustertest

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// Links are the ways between the nodes of a cluster, which a test can cut.
type Links struct {
	cluster *Cluster

	mu     sync.Mutex
	places map[string]int   // address of a cluster port → the node's place
	cut    map[[2]int]bool  // two places, the lower first
	open   map[*wire][2]int // every connection that is up
}

// Links puts the nodes on links that can be cut. It is called once, before the first node starts.
func (c *Cluster) Links() *Links {
	c.links = &Links{cluster: c, places: map[string]int{}, cut: map[[2]int]bool{}, open: map[*wire][2]int{}}
	for i := range c.Configs {
		c.links.install(i)
	}
	return c.links
}

func (l *Links) install(i int) {
	l.mu.Lock()
	l.places[l.cluster.Configs[i].Listen] = i
	l.mu.Unlock()
	l.cluster.Configs[i].Dial = func(ctx context.Context, address string) (net.Conn, error) { return l.dial(ctx, i, address) }
}

// Cut ends all connections between two nodes and lets none come about.
func (l *Links) Cut(a, b int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut[pair(a, b)] = true
	for w, between := range l.open {
		if between == pair(a, b) {
			w.Conn.Close()
		}
	}
}

// Heal takes back every cut.
func (l *Links) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.cut)
}

func pair(a, b int) [2]int { return [2]int{min(a, b), max(a, b)} }

func (l *Links) dial(ctx context.Context, from int, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	to, known := l.places[address]
	if known && l.cut[pair(from, to)] {
		conn.Close()
		return nil, fmt.Errorf("the link from %d to %d is cut", from, to)
	}
	w := &wire{Conn: conn, links: l}
	l.open[w] = pair(from, to)
	return w, nil
}

// A wire is a connection that its links know of.
type wire struct {
	net.Conn
	links *Links
}

func (w *wire) Close() error {
	w.links.mu.Lock()
	delete(w.links.open, w)
	w.links.mu.Unlock()
	return w.Conn.Close()
}
