package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openwaitingroom/owr/internal/seal"
)

// The proof keys of a cluster change rarely and by hand: one is made, one is removed. Every valid key verifies; the newest one that
// every node in reach has had time to hear of signs (seal.Ring.Signer). So a rotation costs nobody anything, and a removal is the end
// of all cookies under a key whose visitors the table does not hold.
//
// An entryKeys is a kind, an op, and what the op takes. What cannot be done is answered the same way on every node and changes nothing:
// between the look at the ring and the commit another change may have come first.
const (
	opRotateKey byte = 1 // when it was made, 8 bytes of Unix milliseconds, and 32 bytes of secret
	opRemoveKey byte = 2 // its number
)

// maxKeys is how many keys there may be. Whoever wants another one decides first whose cookies are too old.
const maxKeys = 8

func appendRotation(dst []byte, made int64, secret [32]byte) []byte {
	return append(binary.BigEndian.AppendUint64(append(dst, entryKeys, opRotateKey), uint64(made)), secret[:]...)
}

func appendRemoval(dst []byte, id uint8) []byte { return append(dst, entryKeys, opRemoveKey, id) }

// A keyAnswer is what applying an entryKeys gives: nil, or why nothing was done. It is no error of the entry's.
type keyAnswer struct{ refused *RefusedError }

// changeKeys carries out an entryKeys.
func (id *identity) changeKeys(data []byte) (*RefusedError, error) {
	switch {
	case len(data) == 42 && data[1] == opRotateKey:
		made := int64(binary.BigEndian.Uint64(data[2:]))
		if made < 0 || made > maxMade {
			return nil, fmt.Errorf("%w: key made at %d", errBadEntry, made)
		}
		if len(id.keys) >= maxKeys {
			return &RefusedError{Reason: fmt.Sprintf("there are %d keys already: remove the oldest first, with `owr keys remove %d`",
				len(id.keys), id.keys[len(id.keys)-1].ID)}, nil
		}
		id.lastKey = id.nextKey()
		id.keys = append(seal.Ring{{ID: id.lastKey, Secret: [32]byte(data[10:]), Made: made}}, id.keys...)
		return nil, nil
	case len(data) == 3 && data[1] == opRemoveKey:
		if _, ok := id.keys.Find(data[2]); !ok {
			return &RefusedError{Reason: fmt.Sprintf("there is no key %d", data[2]), Unknown: true}, nil
		}
		if len(id.keys) == 1 {
			return &RefusedError{Reason: fmt.Sprintf("key %d is the only one: make another one first, with `owr keys rotate`", data[2])}, nil
		}
		if id.lastKey == 0 {
			id.lastKey = id.keys[0].ID // a number that a cookie may still name is not given again
		}
		id.keys = slices.DeleteFunc(slices.Clone(id.keys), func(k seal.Key) bool { return k.ID == data[2] })
		return nil, nil
	}
	return nil, fmt.Errorf("%w: change of keys of %d bytes", errBadEntry, len(data))
}

// maxMade is the latest time that a key may say it was made: what package queue takes for a time.
const maxMade = 1<<53 - 1

// nextKey is the number of the next key: one more than the last, and none that is in use.
func (id *identity) nextKey() uint8 {
	next := id.lastKey
	if next == 0 && len(id.keys) > 0 { // the ring is from before numbers were remembered
		next = id.keys[0].ID
	}
	for next++; ; next++ {
		if _, used := id.keys.Find(next); !used && next != 0 {
			return next
		}
	}
}

// A ProofKey is what may be told of a key.
type ProofKey struct {
	ID    uint8
	Made  time.Time // zero: not known. That of a key from before feature level 3 is when the level was raised
	Signs bool      // new cookies are under it
}

// ProofKeys are the keys by this replica, the newest first.
func (n *Node) ProofKeys() []ProofKey {
	ring := n.Keys()
	if len(ring) == 0 {
		return nil
	}
	signer := ring.Signer(n.clock.now()).ID
	out := make([]ProofKey, 0, len(ring))
	for _, k := range ring {
		p := ProofKey{ID: k.ID, Signs: k.ID == signer}
		if k.Made != 0 {
			p.Made = time.UnixMilli(k.Made)
		}
		out = append(out, p)
	}
	return out
}

// RotateKey makes a new proof key, by whichever node leads. It verifies at once and signs a few seconds later; the others stay valid.
// Each call makes one, so whoever repeats a call whose fate is unknown may have made two. Errors are as with RemoveKey.
func (n *Node) RotateKey(ctx context.Context) error {
	return n.changeKeys(ctx, keyChange{Op: opRotateKey})
}

// RemoveKey ends a proof key: on return no node in reach takes a proof under it. Errors are a *RefusedError, after which nothing was
// done, ErrNoLeader, ctx's, or one that leaves open what happened.
func (n *Node) RemoveKey(ctx context.Context, id uint8) error {
	return n.changeKeys(ctx, keyChange{Op: opRemoveKey, ID: id})
}

// A keyChange is one request, as it travels to the leader. The secret does not: the leader makes it.
type keyChange struct {
	Op byte  `json:"op"`
	ID uint8 `json:"id,omitempty"`
}

// keyOutcome is the answer to frameKeys.
type keyOutcome struct {
	Index uint64 `json:"index"` // of the entry
	changeOutcome
}

func (n *Node) changeKeys(ctx context.Context, c keyChange) error {
	for {
		index, err := n.changeKeysOnce(ctx, c)
		switch {
		case err == nil:
			return n.WaitApplied(ctx, index)
		case !errors.Is(err, errNotLeader):
			return err
		case n.leaderless() > leaderless:
			return ErrNoLeader
		}
		select {
		case <-time.After(changePause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

func (n *Node) changeKeysOnce(ctx context.Context, c keyChange) (uint64, error) {
	if n.leading.Load() != 0 {
		return n.proposeKeys(ctx, c)
	}
	address, _ := n.leader()
	if address == "" {
		return 0, errNotLeader
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return 0, err
	}
	client := n.newClient()
	defer client.close()
	reply, err := client.call(ctx, address, frameKeys, payload)
	if err != nil {
		return 0, err
	}
	var outcome keyOutcome
	if err := json.Unmarshal(reply, &outcome); err != nil {
		return 0, fmt.Errorf("%w: %w", errBadFrame, err)
	}
	if outcome.Refused != "" {
		return 0, &RefusedError{Reason: outcome.Refused, Unknown: outcome.Unknown}
	}
	return outcome.Index, nil
}

// answerKeys is the answer to frameKeys.
func (n *Node) answerKeys(ctx context.Context, payload []byte) ([]byte, error) {
	var c keyChange
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadFrame, err)
	}
	if n.leading.Load() == 0 {
		return nil, errNotLeader
	}
	index, err := n.proposeKeys(ctx, c)
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		return json.Marshal(keyOutcome{changeOutcome: changeOutcome{Refused: refused.Reason, Unknown: refused.Unknown}})
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(keyOutcome{Index: index})
}

// proposeKeys commits one change on the leader and returns the index of its entry.
func (n *Node) proposeKeys(ctx context.Context, c keyChange) (uint64, error) {
	var entry []byte
	switch c.Op {
	case opRotateKey:
		entry = appendRotation(nil, n.clock.now(), seal.NewKey(0).Secret)
	case opRemoveKey:
		entry = appendRemoval(nil, c.ID)
	default:
		return 0, refusef("this node does not know the change %d of keys: it runs another version of owr", c.Op)
	}
	if err := n.mayPropose(entry[0]); err != nil {
		return 0, &RefusedError{Reason: err.Error() + ": upgrade all nodes first"}
	}
	term := n.leading.Load()
	future := n.raft.Apply(entry, enqueue)
	if err := n.taken(future); err != nil {
		return 0, unknownFate(err)
	}
	switch answer := future.Response().(type) {
	case error:
		return 0, answer
	case keyAnswer:
		if answer.refused != nil {
			return 0, answer.refused
		}
	}
	n.log.Info("the proof keys have changed", "rotated", c.Op == opRotateKey, "removed", c.ID)
	n.notices.send(term, future.Index())
	n.Spread(ctx, future.Index())
	return future.Index(), nil
}
