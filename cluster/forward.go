package cluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// A client is one connection to another node, made when it is first needed and again after an error. Calls
// take turns.
type client struct {
	card    *card
	timeout time.Duration

	mu      sync.Mutex
	address string
	conn    net.Conn
	peer    string // by its certificate, "" without TLS: of the last connection
}

// call sends one frame to the address and returns the payload of the answer. It gives up when ctx ends or
// after the client's timeout; then the connection is gone, so a late answer can not be taken for another's.
func (c *client) call(ctx context.Context, address string, kind byte, payload []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if c.conn != nil && c.address != address {
		c.drop()
	}
	if c.conn == nil {
		conn, err := dialPeer(ctx, address, c.card, purposeForward)
		if err != nil {
			// Nothing was sent, so nothing was done.
			return nil, fmt.Errorf("%w: %w", errNotLeader, err)
		}
		c.conn, c.address, c.peer = conn, address, peerOf(conn)
	}
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // a closed connection has ended the exchange already
	defer stop()
	answer, payload, err := exchange(conn, kind, payload)
	if err != nil {
		c.drop()
		return nil, fmt.Errorf("ask %s: %w", address, err)
	}
	if !stop() { // the deadline fell on an exchange that was just done
		c.drop()
	}
	switch answer {
	case frameOK:
		return payload, nil
	case frameNotLeader:
		return nil, errNotLeader
	}
	return nil, fmt.Errorf("%s: %w", address, answered(payload))
}

// answered is what another node says of a frame that it did not carry out.
type answered string

func (a answered) Error() string { return string(a) }

func exchange(conn net.Conn, kind byte, payload []byte) (byte, []byte, error) {
	if err := writeFrame(conn, kind, payload); err != nil {
		return 0, nil, err
	}
	return readFrame(conn)
}

func (c *client) drop() {
	c.conn.Close()
	c.conn = nil
}

// certified is who answered the last call, by its certificate; "" without TLS.
func (c *client) certified() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.drop()
	}
}

// serveForward answers the frames of one connection until it ends.
func (n *Node) serveForward(conn net.Conn) {
	select {
	case <-n.opened:
	case <-n.ctx.Done():
		return
	}
	r, peer := bufio.NewReader(conn), peerOf(conn)
	for {
		kind, payload, err := readFrame(r)
		if err != nil {
			return
		}
		answer, reply := frameFailed, []byte(nil)
		if err := n.vouch(peer, kind, payload); err != nil {
			if !n.card.told.lately(err.Error()) {
				n.log.Warn("a frame of another node is refused", "peer", peer, "err", err)
			}
			reply = []byte(err.Error())
		} else {
			answer, reply = n.answer(kind, payload)
		}
		if err := conn.SetWriteDeadline(time.Now().Add(n.cfg.Timing.RPC)); err != nil {
			return
		}
		if err := writeFrame(conn, answer, reply); err != nil {
			return
		}
	}
}

// answer carries out one frame of another node.
func (n *Node) answer(kind byte, payload []byte) (byte, []byte) {
	// The asker gives up after its timeout; working on longer than that is for nobody.
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.Timing.RPC)
	defer cancel()
	var reply []byte
	var err error
	switch kind {
	case framePing:
		return frameOK, n.answerPing(payload)
	case frameSettled:
		return frameOK, appendUint64(nil, uint64(n.touches.lag().Milliseconds()))
	case frameSum:
		return frameOK, n.answerSum()
	case frameAbout:
		var a about
		if a, err = n.about(); err == nil {
			reply = appendAbout(nil, a)
		}
	case frameMembers, frameChange:
		reply, err = n.answerMembership(kind, payload)
	case frameLevel:
		return frameOK, n.answerLevel()
	case frameCommands:
		reply, err = n.answerCommands(ctx, payload)
	case frameKeys:
		reply, err = n.answerKeys(ctx, payload)
	case frameLimits:
		reply, err = n.answerLimits(ctx, payload)
	default:
		err = fmt.Errorf("%w: kind %d", errBadFrame, kind)
	}
	switch {
	case err == nil:
		return frameOK, reply
	case errors.Is(err, errNotLeader):
		return frameNotLeader, nil
	}
	return frameFailed, []byte(err.Error())
}

func (n *Node) answerCommands(ctx context.Context, payload []byte) ([]byte, error) {
	if len(payload) < 2 {
		return nil, errBadFrame
	}
	commands, err := queue.DecodeCommands(payload[2:], nil)
	if err != nil {
		return nil, err
	}
	if room := binary.BigEndian.Uint16(payload); queue.RoomID(room) != n.batcher.room {
		return nil, fmt.Errorf("%w: room %d", errBadFrame, room)
	}
	for _, c := range commands {
		if c.Kind == queue.KindTick || c.Kind == queue.KindResume {
			return nil, fmt.Errorf("%w: kind %d is the leader's own", errBadFrame, c.Kind)
		}
	}
	if n.leading.Load() == 0 {
		return nil, errNotLeader
	}
	decisions, err := n.batcher.submit(ctx, commands...)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(commands, func(c queue.Command) bool { return c.Kind == queue.KindLeave }) {
		n.Spread(ctx, decisions[0].Index) // an operator's change: whoever is asked next should show it
	}
	return appendDecisions(nil, decisions), nil
}

func (n *Node) answerLimits(ctx context.Context, payload []byte) ([]byte, error) {
	change, err := queue.DecodeLimits(payload)
	if err != nil {
		return nil, err
	}
	limits, index, err := n.proposeLimits(change)
	if err != nil {
		return nil, err
	}
	n.Spread(ctx, index)
	return queue.AppendLimits(appendUint64(nil, index), queue.LimitsChange{Base: true, Set: n.fields(), Values: limits}), nil
}

// send carries out one batch of the node's commands: by itself when it leads, or by the node that does.
func (n *Node) send(ctx context.Context, commands []queue.Command) ([]queue.Decision, error) {
	if n.leading.Load() != 0 {
		return n.proposeBatch(commands)
	}
	address, changed := n.leader()
	if address == "" {
		return nil, errNotLeader
	}
	// A paused leader answers nobody; once there is another one, waiting for it is over.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	payload := binary.BigEndian.AppendUint16(nil, uint16(n.batcher.room))
	reply, err := n.forwarder.call(ctx, address, frameCommands, queue.AppendCommands(payload, commands))
	if err != nil {
		return nil, err
	}
	return decodeDecisions(reply, len(commands))
}
