package mirror

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/openwaitingroom/owr/queue"
)

const (
	// chunkMembers are the members that one command brings: about 40 KB, which Redis takes in well
	// below a millisecond.
	chunkMembers = 1_000
	// chunkBatch are the commands that go out together.
	chunkBatch = 4
	// temporaryTTL is when Redis forgets what a pass left behind that could not clean up. Every
	// batch renews it, so it has to outlast one batch on a slow line.
	temporaryTTL = 30 * time.Second
)

// pass writes the whole picture: under temporary names, in chunks, and then in place of what is
// there, by one script that looks at the fence. Readers see the old picture or the new one.
func (s *session) pass(ctx context.Context, picture *queue.Frozen) error {
	if err := s.w.sweep(ctx, s.client); err != nil {
		return fmt.Errorf("remove what an earlier pass left: %w", err)
	}
	tmp := s.w.keys.temporary(s.term, passName())
	s.w.litter = tmp.members() // until the last script has taken them away
	held, err := s.build(ctx, tmp, picture)
	if err != nil {
		return fmt.Errorf("write the whole picture: %w", err)
	}
	answer, err := call(ctx, s.w, func(ctx context.Context) (string, error) {
		return passScript.Run(ctx, s.client, append(s.w.keys.shown(), tmp.members()...),
			s.cluster, s.term, picture.Index, s.w.cfg.Node, time.Now().UnixMilli(),
			held.active, held.queue, held.released, s.replaces.cluster, s.replaces.updatedAt).Text()
	})
	if err := outcome(answer, err); err != nil {
		return fmt.Errorf("put the whole picture in place: %w", err)
	}
	s.w.litter = nil
	s.index, s.planner = picture.Index, newPlanner(held)
	return nil
}

// build fills the temporary keys and counts what it put into each.
func (s *session) build(ctx context.Context, tmp keys, picture *queue.Frozen) (tally, error) {
	var held tally
	b := builder{s: s, tmp: tmp}
	var active, line, released []any
	offset := s.w.offset()
	for r := range picture.Rows() {
		switch {
		case r.State.Waits():
			held.queue++
			line = append(line, text(r.Token))
		case r.State == queue.Released:
			held.released++
			released = append(released, text(r.Token))
		case r.State == queue.Active:
			held.active++
			active = append(active, score(r.Seen, offset), text(r.Token))
		}
		line = b.flush(ctx, "RPUSH", tmp.queue, line, chunkMembers)
		released = b.flush(ctx, "SADD", tmp.released, released, chunkMembers)
		active = b.flush(ctx, "ZADD", tmp.active, active, 2*chunkMembers)
		if b.err != nil {
			return tally{}, b.err
		}
	}
	b.flush(ctx, "RPUSH", tmp.queue, line, 1)
	b.flush(ctx, "SADD", tmp.released, released, 1)
	b.flush(ctx, "ZADD", tmp.active, active, 1)
	b.send(ctx)
	return held, b.err
}

// A builder gathers commands and sends them in batches. After an error it does nothing more.
type builder struct {
	s       *session
	tmp     keys
	pending []chunk
	err     error
}

// A chunk is members for one temporary key.
type chunk struct {
	name    string // of the command
	key     string
	members []any
}

// chunkScript adds a chunk to a key and bounds the key's life in one step: a leader that dies between the two would leave a key that
// nobody ever removes.
//
//	KEYS temporary key
//	ARGV command, time to live in seconds, members
const chunkScript = `redis.call(ARGV[1], KEYS[1], unpack(ARGV, 3)) return redis.call('EXPIRE', KEYS[1], ARGV[2])`

// flush turns members into one command on key when there are at least atLeast, and returns what
// is still to be sent.
func (b *builder) flush(ctx context.Context, command, key string, members []any, atLeast int) []any {
	if len(members) < atLeast || b.err != nil {
		return members
	}
	b.pending = append(b.pending, chunk{command, key, slices.Clone(members)})
	if len(b.pending) >= chunkBatch {
		b.send(ctx)
	}
	return members[:0]
}

func (b *builder) send(ctx context.Context) {
	if len(b.pending) == 0 || b.err != nil {
		return
	}
	commands := b.pending
	b.pending = nil
	_, b.err = call(ctx, b.s.w, func(ctx context.Context) (struct{}, error) {
		_, err := b.s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, c := range commands {
				p.Eval(ctx, chunkScript, []string{c.key}, append([]any{c.name, int(temporaryTTL.Seconds())}, c.members...)...)
			}
			for _, k := range b.tmp.members() {
				p.Expire(ctx, k, temporaryTTL)
			}
			return nil
		})
		return struct{}{}, err
	})
}

// sweep removes what an earlier pass of this node left behind, before its time to live does.
func (w *Writer) sweep(ctx context.Context, client *redis.Client) error {
	if len(w.litter) == 0 {
		return nil
	}
	litter := w.litter
	_, err := call(ctx, w, func(ctx context.Context) (int64, error) { return client.Unlink(ctx, litter...).Result() })
	if err == nil {
		w.litter = nil
	}
	return err
}

// passName tells the keys of one pass from those of every other, of this node or another.
func passName() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
