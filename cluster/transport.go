package cluster

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// A connection to the cluster port opens with a preamble: four bytes that name us and the version, and one
// that says what the connection is for. With a secret both sides then prove that they know it: the server
// sends a nonce, the dialer its own and an HMAC-SHA256 over both, the server one over the same the other way.
// This keeps strangers out. It does not hide or protect what follows: that is TLS's work, and all of this goes through it where
// the nodes have certificates (tls.go). At last each side says
// which cluster it belongs to, the dialer first, and nodes of two clusters part here (card.go).
//
// The first version of the preamble ends without that. It is spoken to nodes that know no other: who does not understand the second
// version hangs up. It is taken from such nodes as long as the cluster's feature level is theirs. Later they hear from us still, and
// end, at the first entry that they can not read, with the line that says why.
const (
	preamble       = "owr\x02"
	preamble1      = "owr\x01"
	purposeRaft    = 'R'
	purposeForward = 'F'

	preambleTimeout = 5 * time.Second
	nonceSize       = 16
)

var errStranger = errors.New("the other side does not know WR_CLUSTER_SECRET")

func prove(secret string, role byte, purpose byte, dialer, server []byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte{role, purpose})
	mac.Write(dialer)
	mac.Write(server)
	return mac.Sum(nil)
}

// dialPeer opens a connection for one purpose.
func dialPeer(ctx context.Context, address string, card *card, purpose byte) (net.Conn, error) {
	conn, err := dialVersion(ctx, address, card, preamble, purpose)
	if errors.Is(err, errHungUp) && (card.passport == nil || card.passport.prefer) { // a node of the first version knows no TLS
		return dialVersion(ctx, address, card, preamble1, purpose)
	}
	return conn, err
}

// errHungUp says that the other side hung up on the preamble.
var errHungUp = errors.New("the other side hung up: it may be of an older version, want TLS, or not be one of ours")

func dialVersion(ctx context.Context, address string, card *card, version string, purpose byte) (net.Conn, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(preambleTimeout)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	conn, err := card.connect(ctx, address)
	if err != nil {
		return nil, err
	}
	if err := greet(conn, address, deadline, card, version, purpose); err != nil {
		conn.Close()
		card.complain(address, err)
		return nil, fmt.Errorf("greet %s: %w", address, err)
	}
	return conn, nil
}

func greet(conn net.Conn, address string, deadline time.Time, card *card, version string, purpose byte) error {
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write(append([]byte(version), purpose)); err != nil {
		return err
	}
	if secret := card.secret; secret != "" {
		theirs, ours := make([]byte, nonceSize), make([]byte, nonceSize)
		rand.Read(ours)
		if _, err := io.ReadFull(conn, theirs); err != nil {
			return asHungUp(err)
		}
		if _, err := conn.Write(append(ours, prove(secret, 'D', purpose, ours, theirs)...)); err != nil {
			return err
		}
		answer := make([]byte, sha256.Size)
		if _, err := io.ReadFull(conn, answer); err != nil {
			if refusesUs(err) {
				return asHungUp(err)
			}
			return fmt.Errorf("%w: %w", errStranger, err)
		}
		if !hmac.Equal(answer, prove(secret, 'S', purpose, ours, theirs)) {
			return errStranger
		}
	}
	if version == preamble1 {
		return conn.SetDeadline(time.Time{})
	}
	if err := card.show(conn); err != nil {
		return asHungUp(err)
	}
	if err := card.look(conn, address); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// asHungUp says what an end of the connection means, unless the other side has said it.
func asHungUp(err error) error {
	if refusesUs(err) {
		return fmt.Errorf("%w: %w", errRefusesUs, err)
	}
	return fmt.Errorf("%w: %w", errHungUp, err)
}

// welcome reads a preamble and returns the connection's purpose. A deadline that is not met is the caller's; welcome takes it off.
func welcome(conn net.Conn, card *card) (byte, error) {
	var hello [len(preamble) + 1]byte
	if _, err := io.ReadFull(conn, hello[:]); err != nil {
		return 0, err
	}
	version := string(hello[:len(preamble)])
	switch {
	case version == preamble || version == preamble1 && card.first():
	case hello[0] == tlsHandshake && hello[1] == 3:
		return 0, errTLSHello
	default:
		return 0, errNotOurs
	}
	purpose := hello[len(preamble)]
	if secret := card.secret; secret != "" {
		ours, theirs := make([]byte, nonceSize), make([]byte, nonceSize+sha256.Size)
		rand.Read(ours)
		if _, err := conn.Write(ours); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(conn, theirs); err != nil {
			return 0, err
		}
		if !hmac.Equal(theirs[nonceSize:], prove(secret, 'D', purpose, theirs[:nonceSize], ours)) {
			return 0, errStranger
		}
		if _, err := conn.Write(prove(secret, 'S', purpose, theirs[:nonceSize], ours)); err != nil {
			return 0, err
		}
	}
	if version == preamble1 {
		return purpose, conn.SetDeadline(time.Time{})
	}
	// The answer goes out also when we are not content, so that the other side knows why we hang up.
	foreign := card.look(conn, conn.RemoteAddr().String())
	if foreign != nil && !errors.Is(foreign, errForeign) {
		return 0, foreign
	}
	if err := errors.Join(foreign, card.show(conn)); err != nil {
		return 0, err
	}
	return purpose, conn.SetDeadline(time.Time{})
}

// A port is the cluster port: Raft and forwarding share it.
type port struct {
	listener net.Listener
	address  string // what the others are told
	card     *card
	log      *slog.Logger
	forward  func(net.Conn) // serves a forwarding connection until it ends

	raft  chan net.Conn
	lobby lobby
	done  chan struct{}
	wg    sync.WaitGroup
	once  sync.Once // cut
	err   error     // of cut

	mu    sync.Mutex
	conns map[*tracked]struct{} // every open connection that came in, and Raft's outgoing ones; nil once cut
}

// listenPort opens the port. When dead is closed all that Raft could say or hear through it ends at once.
func listenPort(listen, address string, card *card, log *slog.Logger, dead <-chan struct{}, forward func(net.Conn)) (*port, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("listen on the cluster port: %w", err)
	}
	p := &port{
		listener: l, address: address, card: card, log: log, forward: forward,
		raft: make(chan net.Conn), done: make(chan struct{}), conns: map[*tracked]struct{}{},
	}
	p.wg.Go(p.serve)
	p.wg.Go(func() {
		select {
		case <-dead:
			_ = p.cut() // close tells
		case <-p.done:
		}
	})
	return p, nil
}

func (p *port) serve() {
	pause := 5 * time.Millisecond
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			select {
			case <-p.done:
				return
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select {
			case <-p.done:
				return
			case <-time.After(pause): // out of descriptors, for one: do not spin
				pause = min(2*pause, time.Second)
				continue
			}
		}
		pause = 5 * time.Millisecond
		p.wg.Go(func() { p.admit(conn) })
	}
}

func (p *port) admit(accepted net.Conn) {
	came := &tracked{Conn: accepted, port: p}
	if !p.track(came) {
		return
	}
	if out := p.lobby.enter(came); out != nil {
		out.crowded.Store(true)
		out.Close()
	}
	conn, purpose, err := p.receive(came)
	p.lobby.leave(came)
	if err != nil {
		if came.crowded.Load() {
			err = errCrowded
		}
		p.refuse(came, err)
		return
	}
	switch purpose {
	case purposeRaft:
		select {
		case p.raft <- conn: // Raft's transport closes it, or close does
		case <-p.done:
			conn.Close()
		}
	case purposeForward:
		p.forward(conn)
		conn.Close()
	default:
		conn.Close()
	}
}

// receive learns what a connection is for. It has preambleTimeout for all of that, TLS included; what it returns has no deadline.
func (p *port) receive(came *tracked) (conn net.Conn, purpose byte, err error) {
	if err := came.SetDeadline(time.Now().Add(preambleTimeout)); err != nil {
		return nil, 0, err
	}
	conn = came
	if p.card.passport != nil {
		if conn, err = p.card.passport.welcome(came); err != nil {
			linger(came.Conn)
			return nil, 0, err
		}
	}
	purpose, err = welcome(conn, p.card)
	return conn, purpose, err
}

// A tracked connection leaves the port's set when it is closed.
type tracked struct {
	net.Conn
	port    *port
	host    string      // of the other side, for the lobby alone
	heard   atomic.Bool // something came over it
	crowded atomic.Bool // it had to leave the lobby
}

func (c *tracked) Close() error {
	c.port.untrack(c)
	return c.Conn.Close()
}

// Read tells the end of the port as the end of the stream: Raft's transport reports any other error.
func (c *tracked) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.heard.Load() {
		c.heard.Store(true)
	}
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

func (p *port) track(conn *tracked) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		conn.Conn.Close()
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *port) untrack(conn *tracked) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}

// cut ends the listener and every connection, and keeps Raft from making another: to the other nodes this one is dead.
func (p *port) cut() error {
	p.once.Do(func() {
		p.err = p.listener.Close()
		p.mu.Lock()
		for conn := range p.conns {
			conn.Conn.Close()
		}
		p.conns = nil
		p.mu.Unlock()
	})
	return p.err
}

// close cuts the port and waits for its goroutines. The library's transport leaves its accepted connections to the
// peers to close, so they end here too.
func (p *port) close() error {
	close(p.done)
	err := p.cut()
	p.wg.Wait()
	return err
}

// streams is the port as Raft's transport sees it.
type streams struct {
	port  *port
	conns <-chan net.Conn // that came in
	once  sync.Once
	done  chan struct{}
}

func newStreams(p *port, conns <-chan net.Conn) *streams {
	return &streams{port: p, conns: conns, done: make(chan struct{})}
}

// Accept implements net.Listener.
func (s *streams) Accept() (net.Conn, error) {
	select {
	case conn := <-s.conns:
		return conn, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The port goes on for forwarding; Node closes it.
func (s *streams) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// Addr implements net.Listener: what the others are told, which may be a host name.
func (s *streams) Addr() net.Addr { return hostAddr(s.port.address) }

// Dial implements raft.StreamLayer.
func (s *streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	dialed, err := dialPeer(ctx, string(address), s.port.card, purposeRaft)
	if err != nil {
		return nil, err
	}
	conn := &tracked{Conn: dialed, port: s.port}
	if !s.port.track(conn) {
		return nil, net.ErrClosed
	}
	return conn, nil
}

type hostAddr string

func (hostAddr) Network() string  { return "tcp" }
func (a hostAddr) String() string { return string(a) }

// transport is Raft's own with one thing taken away. With a heartbeat handler set, Raft takes heartbeats
// beside its main loop; a leader that was paused can then stamp an entry with a term it never led, and two
// nodes' tables differ for good (hashicorp/raft issue 695). Without one they queue in the main loop. It
// embeds the whole type, so that Raft still finds pre-vote and the rest behind its optional interfaces.
//
// A node that has forgotten what it promised (memory.go) lets Raft see only a part of what comes in, and asks for no votes.
type transport struct {
	*raft.NetworkTransport
	memory   *memory
	intake   *intake       // where messages come from, with TLS; nil: from NetworkTransport
	messages chan raft.RPC // what Raft sees, when the node started without memory; nil: everything
	patience time.Duration // with a pipeline: see AppendEntriesPipeline
}

// incoming is everything that comes in.
func (t transport) incoming() <-chan raft.RPC {
	if t.intake != nil {
		return t.intake.out
	}
	return t.NetworkTransport.Consumer()
}

// Consumer implements raft.Transport.
func (t transport) Consumer() <-chan raft.RPC {
	if t.messages != nil {
		return t.messages
	}
	return t.incoming()
}

// RequestVote implements raft.Transport.
func (t transport) RequestVote(id raft.ServerID, address raft.ServerAddress, request *raft.RequestVoteRequest, answer *raft.RequestVoteResponse) error {
	if !t.memory.whole.Load() {
		return errForgotten
	}
	return t.NetworkTransport.RequestVote(id, address, request, answer)
}

// RequestPreVote implements raft.WithPreVote.
func (t transport) RequestPreVote(id raft.ServerID, address raft.ServerAddress, request *raft.RequestPreVoteRequest, answer *raft.RequestPreVoteResponse) error {
	if !t.memory.whole.Load() {
		return errForgotten
	}
	return t.NetworkTransport.RequestPreVote(id, address, request, answer)
}

// SetHeartbeatHandler implements raft.Transport by doing nothing.
func (transport) SetHeartbeatHandler(func(raft.RPC)) {}

// addressBook maps a node's name to its address as WR_PEERS has it today, over the one that the Raft
// configuration was made with: a node may move.
type addressBook map[raft.ServerID]raft.ServerAddress

// ServerAddr implements raft.ServerAddressProvider.
func (b addressBook) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if a, ok := b[id]; ok {
		return a, nil
	}
	return "", fmt.Errorf("node %s is not in WR_PEERS", id) // it came by joining: Raft falls back to its configuration
}
