package cluster

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A watch is a vigil over two other nodes, in which a test answers for them.
type watch struct {
	*vigil
	own   time.Duration
	alive []raft.Server
	asked []raft.ServerID
	then  map[raft.ServerID]func(time.Duration, error)
}

func newWatch() *watch {
	w := &watch{alive: []raft.Server{{ID: "n2"}, {ID: "n3"}}, then: map[raft.ServerID]func(time.Duration, error){}}
	w.vigil = &vigil{
		lag:  func() time.Duration { return w.own },
		live: func() []raft.Server { return w.alive },
		ask: func(m raft.Server, then func(time.Duration, error)) {
			w.asked = append(w.asked, m.ID)
			w.then[m.ID] = then
		},
		nodes: map[raft.ServerID]*watched{},
	}
	return w
}

func (w *watch) expect(t *testing.T, what string, now, due int64, clear bool, asked ...raft.ServerID) {
	t.Helper()
	if got := w.clear(now, due); got != clear || !slices.Equal(w.asked, asked) {
		t.Errorf("%s: clear %v, asked %v; want %v, %v", what, got, w.asked, clear, asked)
	}
	w.asked = nil
}

func TestVigil(t *testing.T) {
	w := newWatch()
	w.expect(t, "nobody was heard", 10_000, 10_000, false, "n2", "n3")
	w.expect(t, "they are asked once", 10_050, 10_000, false)
	w.then["n2"](100*time.Millisecond, nil)
	w.then["n3"](900*time.Millisecond, nil)
	w.expect(t, "n3 has not handed in what it saw a grace before now", 10_100, 10_000, false, "n3")
	w.then["n3"](0, nil)
	w.expect(t, "both have, as of when they were asked", 10_150, 10_000, true)
	w.expect(t, "and that holds for a while", 10_600, 10_000, true)
	w.expect(t, "but not for ever", 10_601, 10_000, false, "n2")

	w.then["n2"](0, errors.New("no answer"))
	w.expect(t, "who does not answer is asked again", 10_650, 10_000, false, "n2")
	w.alive = w.alive[1:]
	w.expect(t, "and not waited for once it is gone", 10_700, 10_000, true)
	w.alive = append(w.alive, raft.Server{ID: "n2"})
	w.expect(t, "until it is back", 10_750, 10_000, false)
	w.expect(t, "nor for longer than the vigil lasts", 15_001, 10_000, true)
	w.then["n2"](0, nil)

	w.own = 701 * time.Millisecond
	w.expect(t, "this node has signs of its own", 10_800, 10_000, false)
	w.own = 700 * time.Millisecond
	w.expect(t, "they are within the grace", 10_800, 10_000, true)
}
