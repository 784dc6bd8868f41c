// Package mirror shows the table in Redis, for people and dashboards. The leader writes it, and
// nothing that is read from Redis decides anything (I8).
//
// A term begins with a full pass; after that, groups of changes follow, each in one script. Every
// write is fenced inside Redis by (cluster, term, index), so a leader that has lost its term cannot
// change a picture that its successor has drawn. Whatever goes wrong, the answer is the same:
// another full pass. Redis that is slow, hung, empty or gone costs the mirror its own goroutine
// and nobody else anything.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/openwaitingroom/owr/queue"
)

const (
	// beatEvery is how often the keys are looked at and the marker is refreshed when nothing changes.
	beatEvery = time.Second
	// touchEvery is how long touches gather. Scores may trail by three seconds, and one of them is the nodes'.
	touchEvery = 500 * time.Millisecond
	// tickEvery is how exactly the two above are kept.
	tickEvery = 250 * time.Millisecond

	// keepChanges is the longest buffer that is kept from one turn to the next.
	keepChanges = 1 << 14

	// The wait after faults that follow one another.
	shortestWait = 100 * time.Millisecond
	longestWait  = time.Second
	// longestRest bounds how long Redis rests between two full passes.
	longestRest = 5 * time.Second
	// redrawShare bounds how much of the time passes take that nothing but their age calls for: one part of so many.
	redrawShare = 50
)

// A Writer is the mirror of one node. Run is called by one goroutine at a time; Status may be
// called from anywhere.
type Writer struct {
	cfg    Config
	keys   keys
	health *health

	busy    chan struct{}  // holds one token while Redis is being asked
	closing sync.WaitGroup // clients that are being closed

	// Run only.
	litter  []string // temporary keys that a pass could not remove
	foreign sighting
}

// New makes a mirror that does nothing until Run. With an empty Addr it stays like that. It
// dials nothing: a Redis that is away is no error.
func New(cfg Config) (*Writer, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	// The library has one logger for the whole process and tells it of every failed dial.
	redis.SetLogger(&logging.VoidLogger{})
	return &Writer{cfg: cfg, keys: newKeys(cfg.KeyPrefix), health: newHealth(cfg), busy: make(chan struct{}, 1)}, nil
}

// Status tells how the mirror is. It waits for nothing.
func (w *Writer) Status() Status { return w.health.status() }

// Close waits until nothing of the mirror is left. Call it after the last Run has returned.
func (w *Writer) Close() error {
	w.busy <- struct{}{} // the last call of a Run that did not wait for it
	<-w.busy
	w.closing.Wait()
	return nil
}

// Run shows the table for as long as this node leads in term. It returns when ctx ends, with
// its cause, and never because of Redis. It does not wait for an answer that Redis still owes:
// what comes of it is fenced.
func (w *Writer) Run(ctx context.Context, term uint64) error {
	if w.cfg.Addr == "" {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	w.health.begin()
	defer w.health.end()
	reason, failures := reasonTerm, 0
	for ctx.Err() == nil {
		s := &session{w: w, term: term, cluster: w.cfg.Cluster(), client: w.cfg.connect(), reason: reason}
		err := s.run(ctx)
		w.closing.Go(func() { _ = s.client.Close() }) // may wait for a TLS peer that does not read
		if ctx.Err() != nil {
			break
		}
		trouble := troubleOf(err)
		w.health.failed(trouble, err)
		reason = string(trouble)
		var rest time.Duration
		if followed := s.followed(); followed > 0 {
			rest = s.took - followed
			if followed >= beatEvery {
				failures = 0
			}
		}
		pause(ctx, max(waitAfter(trouble, failures), min(rest, longestRest)))
		failures++
	}
	return context.Cause(ctx)
}

// waitAfter is how long to wait before the next try, after so many in a row that came to nothing.
// What somebody else's hand did is put right at once, but not at once again and again.
func waitAfter(t trouble, failures int) time.Duration {
	switch {
	case t == troubleForeign || t == troubleFenced:
		return longestWait
	case failures == 0 && t != troubleRedis && t != troubleWatching && t != troubleCluster:
		return 0
	}
	return min(shortestWait<<min(failures, 10), longestWait)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// call asks Redis, one question at a time. When ctx ends first it returns at once; the answer is
// then waited for by the goroutine alone, as long as the client's timeouts allow.
func call[T any](ctx context.Context, w *Writer, ask func(context.Context) (T, error)) (T, error) {
	var none T
	select {
	case w.busy <- struct{}{}:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-w.busy }()
		value, err := ask(ctx)
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// offset is wall time minus cluster time in milliseconds.
func (w *Writer) offset() int64 { return time.Now().UnixMilli() - w.cfg.Source.Now() }

// A session is one full pass and the changes after it, until something is not as it should be.
type session struct {
	w        *Writer
	term     uint64
	cluster  string
	client   *redis.Client
	reason   string        // what ended the session before
	replaces marker        // another cluster's, given up by it
	took     time.Duration // the full pass; another one does not come sooner after it than that

	index   uint64 // of the marker as it was left in Redis
	planner *planner
	feed    *queue.Feed
	changes []queue.Change // reused
	args    []any          // reused
	scan    budget
	wroteAt time.Time // the last script
	touchAt time.Time // the last touches
	drawnAt time.Time // the full pass
}

// run returns with what ended the session, and with who it was when somebody else writes there.
func (s *session) run(ctx context.Context) error {
	err := s.draw(ctx)
	if errors.Is(err, errFenced) || errors.Is(err, errForeign) {
		if who := s.probe(ctx); troubleOf(who) == troubleOf(err) {
			return who
		}
	}
	return err
}

// draw makes the full pass and follows it.
func (s *session) draw(ctx context.Context) error {
	if s.cluster == "" {
		return errNoCluster
	}
	// Before the table is frozen: most sessions end here while Redis is away.
	if err := s.probe(ctx); err != nil {
		return err
	}
	begun := time.Now()
	picture, feed, stop := s.w.cfg.Source.Follow(s.w.cfg.Backlog)
	defer stop()
	visitors := picture.Len()
	if err := s.pass(ctx, picture); err != nil {
		return err
	}
	s.took = time.Since(begun)
	s.w.health.drawn(s.reason, visitors, s.took)
	s.feed = feed
	s.drawnAt = time.Now()
	s.wroteAt, s.touchAt = s.drawnAt, s.drawnAt
	s.scan = newBudget(s.planner.held.queue, s.drawnAt)
	return s.follow(ctx)
}

// probe reads the marker and reports whether this leader may write there.
func (s *session) probe(ctx context.Context) error {
	m, err := call(ctx, s.w, s.readMarker)
	if err != nil {
		return fmt.Errorf("read the marker: %w", err)
	}
	switch {
	case m.cluster != "" && m.cluster != s.cluster:
		if err := s.w.foreign.look(m, time.Now()); err != nil {
			return fmt.Errorf("%w: cluster %q, node %q", err, m.cluster, m.node)
		}
		s.replaces = m
		return nil
	case m.cluster == s.cluster && m.term > s.term:
		return fmt.Errorf("%w: term %d by node %q, ours is %d", errFenced, m.term, m.node, s.term)
	}
	s.w.foreign = sighting{}
	return nil
}

// readMarker reads what the pass script will look at again; that one decides.
func (s *session) readMarker(ctx context.Context) (marker, error) {
	values, err := s.client.HMGet(ctx, s.w.keys.mirror, fieldCluster, fieldTerm, fieldNode, fieldUpdatedAt).Result()
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		return marker{}, nil // not a marker
	}
	if err != nil {
		return marker{}, err
	}
	return parseMarker(values), nil
}

// follow shows the changes until something is wrong or ctx ends.
func (s *session) follow(ctx context.Context) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		again, err := s.turn(ctx)
		if err != nil {
			return err
		}
		if again {
			continue
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.feed.More():
		case <-tick.C:
		}
	}
}

// followed is how long ago the full pass was done; zero when there was none.
func (s *session) followed() time.Duration {
	if s.drawnAt.IsZero() {
		return 0
	}
	return time.Since(s.drawnAt)
}

// turn takes what has gathered and shows it. Nothing waits for a timer while Redis is idle, and
// what comes while a script runs makes the next group. It reports again when touches are due that
// did not fit: changes that came meanwhile go first.
func (s *session) turn(ctx context.Context) (again bool, err error) {
	now := time.Now()
	if now.Sub(s.drawnAt) >= max(s.w.cfg.Redraw, redrawShare*s.took) {
		return false, errOld
	}
	changes, index, lost := s.feed.Take(s.changes)
	if lost {
		return false, errOverflow
	}
	groups, scan := s.planner.plan(changes, nil)
	if s.changes = changes; cap(changes) > keepChanges {
		s.changes = nil
	}
	if !s.scan.spend(scan, s.planner.held.queue, now) {
		s.w.health.pending(now)
		return false, errRewrite
	}
	touches := len(s.planner.touches) > 0 && now.Sub(s.touchAt) >= touchEvery
	beat := now.Sub(s.wroteAt) >= beatEvery
	switch {
	case len(groups) > 0:
		s.w.health.pending(now)
		if s.w.cfg.Settle != nil {
			s.w.cfg.Settle(ctx, index)
		}
	case touches || beat:
		groups = append(groups, group{tally: s.planner.held})
	}
	for i, g := range groups {
		to := s.index // until the last group the picture is between two entries
		if i == len(groups)-1 {
			to = index
			if touches {
				g.ops = s.planner.takeTouches(g.ops, groupOps-len(g.ops))
			}
		}
		if err := s.send(ctx, g, to); err != nil {
			return false, err
		}
	}
	again = touches && len(s.planner.touches) > 0
	if touches && !again {
		s.touchAt = now
	}
	// What comes in from here on has waited since the call to Take at most.
	var since time.Time
	if s.feed.Len() > 0 {
		since = now
	}
	s.w.health.shown(now, since)
	return again, nil
}

// send runs the script of one group, which takes the marker from s.index to index.
func (s *session) send(ctx context.Context, g group, index uint64) error {
	now := time.Now()
	s.args = append(s.args[:0], s.cluster, s.term, s.index, index, now.UnixMilli(), g.tally.active, g.tally.queue, g.tally.released)
	s.args = encode(s.args, g.ops, s.w.offset())
	// A call that outlives ctx still holds the arguments, but then this session is over.
	answer, err := call(ctx, s.w, func(ctx context.Context) (string, error) {
		return groupScript.Run(ctx, s.client, s.w.keys.shown(), s.args...).Text()
	})
	if err := outcome(answer, err); err != nil {
		return fmt.Errorf("write %d changes: %w", g.changes, err)
	}
	s.index, s.wroteAt = index, time.Now()
	s.w.health.changes.Add(float64(g.changes))
	s.w.health.script.Observe(s.wroteAt.Sub(now).Seconds())
	if now.Sub(s.drawnAt) >= beatEvery {
		s.w.health.steady()
	}
	return nil
}
