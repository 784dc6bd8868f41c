package mirror

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// The simulation runs the mirrors of three nodes, the very code and its scripts, against a Redis in memory while the table goes on:
// leaders follow one another and may not know for a while that they have been followed, commands are late, lost or done without an answer, Redis
// is away, hangs, is flushed, falls back to an older copy, and keys are changed behind the mirror's back. After each script the picture is
// compared with the table. A seed that fails fails again, as a rule:
//
//	go test ./mirror -run TestSimulation -sim-seed 4711
//
// What comes at the very same moment of simulated time may come in another order.
var (
	simSeeds = flag.Int("sim-seeds", 8, "how many seeds are simulated")
	simSeed  = flag.Uint64("sim-seed", 0, "the only seed; 0: as many as -sim-seeds says")
)

func TestSimulation(t *testing.T) {
	seeds := []uint64{*simSeed}
	if *simSeed == 0 {
		seeds = nil
		for i := range *simSeeds {
			seeds = append(seeds, uint64(i)+1)
		}
	}
	var mu sync.Mutex
	sum := map[string]int{}
	t.Run("seeds", func(t *testing.T) {
		for part := range 2 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for i := part; i < len(seeds) && !t.Failed(); i += 2 {
					synctest.Test(t, func(t *testing.T) {
						w := newSimWorld(t, seeds[i])
						w.run()
						mu.Lock()
						defer mu.Unlock()
						for k, n := range w.tally {
							sum[k] += n
						}
					})
				}
			})
		}
	})
	t.Logf("%d seeds: %v", len(seeds), sum)
	if len(seeds) >= 40 {
		for _, k := range []string{"group OK", "group FENCED", "group GAP", "pass OK", "ERR", "stale leader", "compared"} {
			if sum[k] == 0 {
				t.Errorf("the simulation does not get around: no %q", k)
			}
		}
	}
}

const (
	simSlots  = 4
	simFaulty = 20 * time.Second
	simCalm   = 15 * time.Second // longer than any wait of the mirror, and than another cluster's marker is watched
)

type fate uint8

const (
	fateDone fate = iota
	fateLost
	fateUnanswered
)

// A simNode has a replica of the table, which stands still while the node is cut off, and a mirror.
type simNode struct {
	name   string
	room   *room
	behind []func(*room) // entries that have not reached it
	cut    bool
	writer *Writer
	stop   context.CancelFunc
	done   chan struct{}
}

type simWorld struct {
	t      *testing.T
	seed   uint64
	random *rand.Rand
	redis  *simRedis
	nodes  []*simNode
	leader *simNode
	term   uint64
	truth  *room

	mu       sync.Mutex
	healed   bool
	clean    bool              // nobody's hand has been in Redis since the last full pass
	newest   [2]uint64         // term and index of the picture
	pictures map[uint64]string // by index
	copies   []map[string]*simKey
	tally    map[string]int
	failed   bool
}

func newSimWorld(t *testing.T, seed uint64) *simWorld {
	w := &simWorld{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 11)), truth: newRoom(), pictures: map[uint64]string{}, tally: map[string]int{}}
	w.redis = newSimRedis(w)
	for i := range 3 {
		n := &simNode{name: "n" + strconv.Itoa(i+1), room: newRoom()}
		writer, err := New(Config{
			Source: n.room, Node: n.name, Cluster: func() string { return "c1" }, Addr: "127.0.0.1:6379", Timeout: time.Second, Backlog: 64,
			dial: func(context.Context, string, string) (net.Conn, error) { return w.redis.dial() },
		})
		if err != nil {
			t.Fatal(err)
		}
		n.writer = writer
		w.nodes = append(w.nodes, n)
	}
	w.note()
	return w
}

func (w *simWorld) fatalf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail(format, args...)
}

func (w *simWorld) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally[what]++
}

func (w *simWorld) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// fail is fatalf for who has the lock.
func (w *simWorld) fail(format string, args ...any) {
	if !w.failed {
		w.t.Errorf("seed %d, after %v: %s", w.seed, time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), fmt.Sprintf(format, args...))
	}
	w.failed = true
}

// fate decides what becomes of one command.
func (w *simWorld) fate(dice *rand.Rand) (time.Duration, fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delay := time.Duration(dice.IntN(2000)) * time.Microsecond
	if w.healed {
		return delay, fateDone
	}
	switch dice.IntN(60) {
	case 0:
		return time.Duration(dice.IntN(4000)) * time.Millisecond, fateDone
	case 1:
		return delay, fateLost
	case 2:
		return delay, fateUnanswered
	}
	return delay, fateDone
}

func (w *simWorld) run() {
	w.elect()
	begun := time.Now()
	for time.Since(begun) < simFaulty && !w.over() {
		time.Sleep(time.Duration(w.random.IntN(120)) * time.Millisecond)
		w.entry()
		switch w.random.IntN(40) {
		case 0:
			w.elect()
		case 1:
			w.harm()
		}
	}
	w.mu.Lock()
	w.healed = true
	w.mu.Unlock()
	w.redis.set(false, false)
	for range 10 {
		time.Sleep(simCalm / 10)
		w.entry()
	}
	time.Sleep(2 * time.Second)
	w.redis.with(func(keys map[string]*simKey) {
		if got, want := drawn(keys, []string{"", "wr:active", "wr:queue", "wr:released"}), simPicture(w.truth.picture()); got != want {
			w.fatalf("at the end Redis shows\n%s, the table is\n%s", got, want)
		}
	})
	if s := w.leader.writer.Status(); !s.Healthy {
		w.fatalf("at the end the mirror is %+v", s)
	}
	for _, n := range w.nodes {
		if n.stop != nil {
			n.stop()
			<-n.done
		}
		_ = n.writer.Close()
	}
	w.redis.set(true, false)
	synctest.Wait()
	w.redis.lua.Close()
}

// elect gives the next term to a node that holds none. The one before may go on for a while.
func (w *simWorld) elect() {
	free := slices.DeleteFunc(slices.Clone(w.nodes), func(n *simNode) bool { return n.stop != nil })
	if len(free) == 0 {
		return
	}
	w.term++
	old, next := w.leader, free[w.random.IntN(len(free))]
	ctx, cancel := context.WithCancel(context.Background())
	next.stop, next.done = cancel, make(chan struct{})
	w.leader = next
	term, done := w.term, next.done
	go func() {
		defer close(done)
		_ = next.writer.Run(ctx, term)
	}()
	if old == nil {
		return
	}
	w.count("stale leader")
	if w.random.IntN(2) == 0 {
		old.cut = true // it has no idea
		time.Sleep(time.Duration(w.random.IntN(1500)) * time.Millisecond)
	}
	old.stop()
	<-old.done
	old.stop, old.cut = nil, false
	for _, e := range old.behind {
		old.room.entry(func() { e(old.room) })
	}
	old.behind = nil
}

// entry is one entry of the log.
func (w *simWorld) entry() {
	var steps []func(*room)
	w.truth.entry(func() {
		for range 1 + w.random.IntN(4) {
			if step := w.step(); step != nil {
				step(w.truth)
				steps = append(steps, step)
			}
		}
	})
	w.note()
	e := func(r *room) {
		for _, step := range steps {
			step(r)
		}
	}
	for _, n := range w.nodes {
		if n.cut {
			n.behind = append(n.behind, e)
		} else {
			n.room.entry(func() { e(n.room) })
		}
	}
}

// step is one transition that the table allows. All replicas are equal, so it is the same on each.
func (w *simWorld) step() func(*room) {
	r := w.truth
	active, released := r.in(queue.Active), r.in(queue.Released)
	free := len(active)+len(released) < simSlots
	pick := func(of []queue.Token) queue.Token { return of[w.random.IntN(len(of))] }
	switch k := w.random.IntN(12); {
	case k < 4:
		t := r.newToken()
		if len(r.gone) > 0 && w.random.IntN(3) == 0 {
			t = pick(r.gone)
			return func(r *room) {
				r.gone = slices.DeleteFunc(r.gone, func(g queue.Token) bool { return g == t })
				if free && len(r.line) == 0 {
					r.admit(t)
				} else {
					r.queue(t)
				}
			}
		}
		if free && len(r.line) == 0 {
			return func(r *room) { r.admit(t) }
		}
		return func(r *room) { r.queue(t) }
	case k < 7 && free && len(r.line) > 0:
		i := 0
		if w.random.IntN(3) == 0 {
			i = w.random.IntN(len(r.line))
		}
		return func(r *room) { r.promote(i) }
	case k == 7 && len(released) > 0:
		t := pick(released)
		if w.random.IntN(3) == 0 {
			return func(r *room) { r.sendBack(t) }
		}
		return func(r *room) { r.claim(t) }
	case k == 8 && len(active) > 0:
		t := pick(active)
		return func(r *room) { r.leave(t) }
	case k == 9 && len(active) > 0:
		t := pick(active)
		return func(r *room) { r.touch(t) }
	case k == 10 && len(r.line) > 0:
		i := w.random.IntN(len(r.line))
		return func(r *room) { r.turn(i) }
	case k == 11 && len(r.line) > 3:
		i := w.random.IntN(len(r.line))
		return func(r *room) { r.abandon(i) }
	}
	return nil
}

// note remembers what the table shows at its index.
func (w *simWorld) note() {
	p := simPicture(w.truth.picture())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pictures[w.truth.index] = p
}

// harm does something to Redis.
func (w *simWorld) harm() {
	kind := w.random.IntN(7)
	w.count(fmt.Sprintf("harm %d", kind))
	spoil := func(do func(map[string]*simKey)) {
		w.redis.with(func(keys map[string]*simKey) {
			w.mu.Lock()
			w.clean, w.newest = false, [2]uint64{}
			w.mu.Unlock()
			do(keys)
		})
	}
	shown := []string{"wr:mirror", "wr:active", "wr:queue", "wr:released"}
	switch key := shown[w.random.IntN(len(shown))]; kind {
	case 0:
		spoil(func(keys map[string]*simKey) { clear(keys) })
	case 1:
		spoil(func(keys map[string]*simKey) { delete(keys, key) })
	case 2:
		spoil(func(keys map[string]*simKey) { keys[key] = &simKey{text: true} })
	case 3:
		w.redis.set(true, false)
		w.entry()
		time.Sleep(time.Duration(w.random.IntN(2000)) * time.Millisecond)
		w.redis.set(false, false)
	case 4:
		w.redis.set(false, true)
		w.entry()
		time.Sleep(time.Duration(w.random.IntN(2500)) * time.Millisecond)
		w.redis.set(false, false)
	case 5: // a copy is taken, and later it takes over
		w.redis.with(func(keys map[string]*simKey) {
			w.copies = append(w.copies, copyOf(keys))
		})
	case 6:
		if len(w.copies) == 0 {
			return
		}
		spoil(func(keys map[string]*simKey) {
			clear(keys)
			maps.Copy(keys, copyOf(w.copies[len(w.copies)-1]))
		})
	}
}

func copyOf(keys map[string]*simKey) map[string]*simKey {
	out := map[string]*simKey{}
	for name, k := range keys {
		out[name] = k.clone()
	}
	return out
}

// scripted looks at what a script has done, before anything else is.
func (w *simWorld) scripted(db map[string]*simKey, keys, argv []string, before [2]uint64, answer string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pass := len(keys) > 4
	if answer == "ERR" {
		w.tally[answer]++
		return
	}
	if pass {
		w.tally["pass "+answer]++
	} else {
		w.tally["group "+answer]++
	}
	number := func(i int) uint64 {
		n, err := strconv.ParseUint(argv[i], 10, 64)
		if err != nil {
			w.fail("argument %d is %q", i, argv[i])
		}
		return n
	}
	switch answer {
	case answerOK:
	case answerOff:
		if w.clean {
			w.fail("a group that nobody has disturbed counts other members than its leader: %v", argv[:8])
		}
		return
	default:
		return
	}
	term := number(1)
	index := number(2)
	if !pass {
		index = number(3)
	}
	if term < w.newest[0] || term == w.newest[0] && index < w.newest[1] {
		w.fail("term %d writes index %d over term %d, index %d (%v before)", term, index, w.newest[0], w.newest[1], before)
	}
	w.newest = [2]uint64{term, index}
	w.clean = w.clean || pass
	if !w.clean {
		return
	}
	if held := held(db["wr:active"], db["wr:released"]); held > simSlots {
		w.fail("Redis shows %d in %d slots", held, simSlots)
	}
	if !pass && argv[2] == argv[3] {
		return // between two entries, or a beat
	}
	w.tally["compared"]++
	if got, want := drawn(db, keys), w.pictures[index]; got != want {
		w.fail("term %d, index %d: Redis shows\n%s, the table was\n%s", term, index, got, want)
	}
}

func held(active, released *simKey) int {
	n := 0
	if active != nil {
		n += len(active.zset)
	}
	if released != nil {
		n += len(released.set)
	}
	return n
}

// drawn is the picture that the keys hold, as text.
func drawn(db map[string]*simKey, keys []string) string {
	p := picture{active: map[string]int64{}, released: map[string]bool{}}
	if k := db[keys[1]]; k != nil {
		for m := range k.zset {
			p.active[m] = 0
		}
	}
	if k := db[keys[2]]; k != nil {
		p.queue = k.list
	}
	if k := db[keys[3]]; k != nil {
		p.released = k.set
	}
	return simPicture(p)
}

func simPicture(p picture) string {
	short := func(ids []string) []string {
		for i := range ids {
			ids[i] = ids[i][:min(8, len(ids[i]))]
		}
		return ids
	}
	return fmt.Sprintf("active %v\nline %v\nreleased %v\n", short(slices.Sorted(maps.Keys(p.active))), short(slices.Clone(p.queue)),
		short(slices.Sorted(maps.Keys(p.released))))
}
