package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// With TLS a node is who its certificate says. What else it says of itself, in Raft's messages and in frames, has to be the same, or
// it is not heard: a member can not speak for another one. Without TLS, and on a connection that came in without it while the cluster
// changes over, there is nothing to compare with.

var errPretends = errors.New("the sender is not who its certificate says")

// vouch returns nil when the node at the other end, "" for unknown, may send this frame.
func (n *Node) vouch(peer string, kind byte, payload []byte) error {
	if peer == "" {
		return nil
	}
	switch kind {
	case framePing:
		if asker := string(payload); asker != "" && asker != peer {
			return fmt.Errorf("%w: %s says that it is %s", errPretends, peer, asker)
		}
	case frameChange:
		var c change
		if err := json.Unmarshal(payload, &c); err != nil {
			return fmt.Errorf("%w: %w", errBadFrame, err)
		}
		if c.Forwarded {
			return n.isMember(peer)
		}
		if c.Op != opJoin || c.ID != peer {
			return fmt.Errorf("%w: %s asks for the change %s of %s", errPretends, peer, c.Op, c.ID)
		}
	case frameCommands, frameLimits, frameMembers, frameKeys:
		return n.isMember(peer)
	}
	return nil
}

// isMember is for the leader, which alone knows and alone carries out what members ask for: a node that was removed still has its
// certificate.
func (n *Node) isMember(peer string) error {
	if n.leading.Load() != 0 && !holds(n.members(), peer) {
		return fmt.Errorf("%s is no member", peer)
	}
	return nil
}

// An intake hands Raft what comes in, each message only if its sender is who it says. The library's transport does not tell which
// connection a message came over; so the connections of each peer have one of their own, for this direction alone.
type intake struct {
	port   *port
	log    *slog.Logger
	limit  time.Duration
	done   chan struct{}
	wg     sync.WaitGroup
	out    chan raft.RPC
	told   *said
	peers  map[string]*peerIntake // of run
	unsure chan net.Conn          // connections without TLS, for the transport that also makes connections
}

type peerIntake struct {
	transport *raft.NetworkTransport
	conns     chan net.Conn
}

func newIntake(p *port, limit time.Duration, log *slog.Logger) *intake {
	i := &intake{
		port: p, log: log, limit: limit, done: make(chan struct{}), out: make(chan raft.RPC), told: newSaid(),
		peers: map[string]*peerIntake{}, unsure: make(chan net.Conn),
	}
	i.wg.Go(i.run)
	return i
}

// run gives every connection to the transport of its peer, until close. There are as many as the authority has named nodes.
func (i *intake) run() {
	for {
		select {
		case conn := <-i.port.raft:
			to := i.unsure
			if peer := peerOf(conn); peer != "" {
				to = i.of(peer).conns
			}
			select {
			case to <- conn:
			case <-i.done:
				conn.Close()
			}
		case <-i.done:
			for _, p := range i.peers {
				_ = p.transport.Close() // it listens to us alone
			}
			return
		}
	}
}

func (i *intake) of(peer string) *peerIntake {
	p := i.peers[peer]
	if p == nil {
		p = &peerIntake{conns: make(chan net.Conn)}
		p.transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: newStreams(i.port, p.conns), Timeout: i.limit, Logger: newRaftLog(i.log), MsgpackUseNewTimeFormat: true,
		})
		i.peers[peer] = p
		i.take(p.transport, peer)
	}
	return p
}

// take passes on what one transport hears, until close. peer is who all of it has to be from, "" for anybody.
func (i *intake) take(from *raft.NetworkTransport, peer string) {
	i.wg.Go(func() {
		for {
			select {
			case rpc := <-from.Consumer():
				if peer != "" && !i.from(peer, rpc) {
					continue
				}
				select {
				case i.out <- rpc:
				case <-i.done:
					return
				}
			case <-i.done:
				return
			}
		}
	})
}

// from reports whether a message says that it is from peer. One that does not is answered with an error.
func (i *intake) from(peer string, rpc raft.RPC) bool {
	says := ""
	if m, ok := rpc.Command.(raft.WithRPCHeader); ok {
		says = string(m.GetRPCHeader().ID)
	}
	if says == peer {
		return true
	}
	if !i.told.lately(peer) {
		i.log.Error("a node speaks for another one and is not heard", "peer", peer, "says", says)
	}
	if rpc.Reader != nil {
		_, _ = io.Copy(io.Discard, rpc.Reader) // a snapshot follows its message
	}
	rpc.Respond(nil, fmt.Errorf("%w: %s says that it is %s", errPretends, peer, says))
	return false
}

// close ends it. The port ends the connections.
func (i *intake) close() {
	close(i.done)
	i.wg.Wait()
}
