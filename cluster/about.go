package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
)

// An about is what a node says of itself when another one asks (frameAbout). Unlike a ping it can be answered before Raft has
// started, and by a node that takes part in nothing.
type about struct {
	memory bool   // it knows what it has promised: see memory.go
	leads  bool   // it leads, and is ready
	short  bool   // its disk is nearly full: see space.go
	term   uint64 // Raft's current one, as on its disk
	last   uint64 // index of its last entry
}

const aboutSize = 1 + 8 + 8

const (
	aboutMemory byte = 1 << iota
	aboutLeads
	aboutShort
)

// appendAbout appends the wire form. Bits and bytes may be added behind what is there: decodeAbout ignores what it does not know.
func appendAbout(dst []byte, a about) []byte {
	var flags byte
	if a.memory {
		flags |= aboutMemory
	}
	if a.leads {
		flags |= aboutLeads
	}
	if a.short {
		flags |= aboutShort
	}
	return appendUint64(appendUint64(append(dst, flags), a.term), a.last)
}

// decodeAbout is its inverse.
func decodeAbout(data []byte) (about, error) {
	if len(data) < aboutSize {
		return about{}, fmt.Errorf("%w: %d bytes about a node", errBadFrame, len(data))
	}
	return about{
		memory: data[0]&aboutMemory != 0, leads: data[0]&aboutLeads != 0, short: data[0]&aboutShort != 0,
		term: binary.BigEndian.Uint64(data[1:]), last: binary.BigEndian.Uint64(data[9:]),
	}, nil
}

// about is what this node says of itself. It may be called as soon as the disk is open.
func (n *Node) about() (about, error) {
	a := about{memory: n.memory.whole.Load(), short: n.shortOfSpace()}
	leading := n.leading.Load()
	a.term = n.store.term.Load()
	a.leads = leading != 0 && leading == a.term // otherwise it has just heard of a newer term, and does not lead in that one
	var err error
	a.last, err = n.store.LastIndex()
	return a, err
}

// askPeers asks every peer about itself, all at once, and returns who has answered by the end of one exchange.
func (n *Node) askPeers(ctx context.Context) map[string]about {
	var mu sync.Mutex
	answers := map[string]about{}
	var wg sync.WaitGroup
	for _, p := range n.cfg.Peers {
		if p.ID == n.self.ID {
			continue
		}
		wg.Go(func() {
			c := n.newClient()
			defer c.close()
			reply, err := c.call(ctx, p.Address, frameAbout, nil)
			if err != nil {
				return
			}
			if a, err := decodeAbout(reply); err == nil {
				mu.Lock()
				answers[p.ID] = a
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return answers
}
