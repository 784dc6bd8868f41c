package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// A card is what a node shows at the beginning of every connection, and what it looks at in the other side's: the secret that the
// nodes share, and the cluster that it belongs to. Two nodes that belong to different clusters have nothing to say to one another:
// an entry of the one in the log of the other would be the end of both tables.
type card struct {
	secret   string
	passport *passport                   // with TLS
	nodeAt   func(address string) string // which node is to be found there, "" for any; used with a passport
	cluster  func() clusterID            // zero while this node belongs to none
	first    func() bool                 // the cluster's feature level is the first one
	dial     func(ctx context.Context, address string) (net.Conn, error)
	log      *slog.Logger
	told     *said
	refused  *prometheus.CounterVec // connections that came in, by reason
}

// cardMagic precedes a cluster's id on the wire. A side that waits for a secret says something else at that place.
const cardMagic = "cluster:"

var errForeign = errors.New("the other side belongs to another cluster")

// show writes this node's cluster.
func (c *card) show(conn net.Conn) error {
	id := c.cluster()
	_, err := conn.Write(append([]byte(cardMagic), id[:]...))
	return err
}

// look reads the other side's cluster. An id of zero is that of a node that has yet to join or to form a cluster.
func (c *card) look(conn net.Conn, address string) error {
	var got [len(cardMagic) + len(clusterID{})]byte
	if _, err := io.ReadFull(conn, got[:]); err != nil {
		return fmt.Errorf("wait for its cluster: %w", asHungUp(err))
	}
	if !bytes.HasPrefix(got[:], []byte(cardMagic)) {
		return errStranger
	}
	ours, theirs := c.cluster(), clusterID(got[len(cardMagic):])
	if ours == theirs || ours == (clusterID{}) || theirs == (clusterID{}) {
		return nil
	}
	if !c.told.lately(theirs.String()) {
		c.log.Error("a node of another cluster is refused: two clusters never merge. Correct WR_PEERS or WR_JOIN of the node that is wrong here; "+
			"if it is to move to the other cluster, empty its WR_DATA_DIR first, which gives up what it holds",
			"from", address, "our_cluster", ours.String(), "their_cluster", theirs.String())
	}
	return fmt.Errorf("%w: ours is %s, theirs %s", errForeign, ours, theirs)
}

// dialTCP connects as nodes do. Host names are resolved here, at every dial.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// connect makes a connection, with TLS where this node has a certificate. ctx has a deadline.
func (c *card) connect(ctx context.Context, address string) (net.Conn, error) {
	conn, err := c.dial(ctx, address)
	if err != nil || c.passport == nil {
		return conn, err
	}
	secured, err := c.passport.dial(ctx, conn, c.nodeAt(address))
	if err == nil {
		return secured, nil
	}
	conn.Close()
	if c.passport.prefer && errors.Is(err, errNoTLS) {
		return c.dial(ctx, address)
	}
	c.complain(address, err)
	return nil, fmt.Errorf("TLS with %s: %w", address, err)
}

// complain logs what is wrong with another node's TLS, or in its eyes with ours: nothing of it goes away by itself.
func (c *card) complain(address string, err error) {
	for _, wrong := range []error{errNoTLS, errAuthority, errWrongName, errNoName, errProtocol, errRefusesUs} {
		if errors.Is(err, wrong) && !c.told.lately(address+" "+wrong.Error()) {
			c.log.Warn("no connection to another node", "to", address, "err", err)
		}
	}
}

// newCard is this node's own.
func (n *Node) newCard() *card {
	c := &card{
		secret: n.cfg.Secret, nodeAt: n.nodeAt, cluster: n.belongs, first: n.atFirstLevel, dial: n.cfg.Dial, log: n.log, told: newSaid(), refused: newRefusals(),
	}
	if c.dial == nil {
		c.dial = dialTCP
	}
	return c
}

// atFirstLevel reports whether nodes of the first version may be in the cluster.
func (n *Node) atFirstLevel() bool { return n.fsm.identity.Load().level <= 1 }

// --- the cluster that this node's disk belongs to -------------------------------------------

// clusterKey is where the id is noted beside Raft's term and vote. After a restart the table is empty until something commits, and
// just then a node must know where it belongs.
var clusterKey = []byte("owr cluster")

// allegiance is the id of the cluster that this node belongs to, once it is known. Any number of readers.
type allegiance struct {
	mu sync.Mutex
	id clusterID
}

func (a *allegiance) load() clusterID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.id
}

func (a *allegiance) set(id clusterID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.id = id
}

// belongs is the cluster of this node: as the table has it, else as the disk does.
func (n *Node) belongs() clusterID {
	if id := n.fsm.identity.Load().cluster; id != (clusterID{}) {
		return id
	}
	return n.noted.load()
}

// recallCluster reads the id that was noted when this node last ran.
func (n *Node) recallCluster() {
	if id, err := n.store.Get(clusterKey); err == nil && len(id) == len(clusterID{}) {
		n.noted.set(clusterID(id))
	}
}

// noteCluster writes the id down as soon as the table has it. It is called now and again, by one goroutine.
func (n *Node) noteCluster() {
	id := n.fsm.identity.Load().cluster
	if id == (clusterID{}) || id == n.noted.load() {
		return
	}
	if err := n.store.Set(clusterKey, id[:]); err == nil { // an error ends the node by itself
		n.noted.set(id)
	}
}
