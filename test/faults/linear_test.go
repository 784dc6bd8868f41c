package faults

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/openwaitingroom/owr/test/harness"
)

// slots of the histories that are compared with the sequential room: few, so that almost everybody waits.
const linearSlots = 4

// A step is one operation of one visitor on the sequential room.
type step struct {
	leave bool // else: it asks for its turn
	who   byte
}

// What a step came to.
type answer uint8

const (
	unknown answer = iota // no answer: it may have been done, or be done until the harm has been undone for a while, or never
	in
	wait
	gone
	never // leave: the room does not know this visitor
)

// room is the admission table as a sequential object. Visitors are bytes; nothing expires.
type room struct{ active, released, queue string }

func (r room) open() bool {
	return len(r.active)+len(r.released) < linearSlots && r.queue == ""
}

func (r room) knows(who string) bool { return strings.Contains(r.active+r.released+r.queue, who) }

// do carries out one step and reports whether its answer is one that the room gives. A visitor whose turn has come may still
// be told to wait by a node that is one commit behind, until it has been told otherwise. A leave may be answered as if the room
// did not know the visitor: it was done, its leader died before it could say so, and it was sent again by a node that did not know the visitor yet.
func (r room) do(s step, a answer) (bool, room) {
	who := string([]byte{s.who})
	if s.leave {
		known := r.knows(who)
		r.active, r.released, r.queue = without(r.active, who), without(r.released, who), without(r.queue, who)
		for len(r.active)+len(r.released) < linearSlots && r.queue != "" {
			r.released, r.queue = with(r.released, r.queue[:1]), r.queue[1:]
		}
		return a == never || known, r
	}
	if a == wait && strings.Contains(r.released, who) {
		return true, r
	}
	switch {
	case strings.Contains(r.queue, who):
		return a == wait, r
	case strings.Contains(r.active, who):
	case strings.Contains(r.released, who):
		r.released, r.active = without(r.released, who), with(r.active, who)
	case r.open():
		r.active = with(r.active, who)
	default:
		r.queue += who
		return a == wait, r
	}
	return a == in, r
}

// states are those in which the room may be after one step.
func (r room) states(s step, a answer) []any {
	if a != unknown {
		if ok, next := r.do(s, a); ok {
			return []any{next}
		}
		return nil
	}
	out := []any{r}
	for _, a := range []answer{in, wait, never} {
		if ok, next := r.do(s, a); ok && next != r {
			return append(out, next)
		}
	}
	return out
}

func without(set, who string) string { return strings.ReplaceAll(set, who, "") }

// with keeps a set sorted, so that equal sets are equal strings.
func with(set, who string) string {
	i := 0
	for i < len(set) && set[i] < who[0] {
		i++
	}
	return set[:i] + who + set[i:]
}

var sequential = (&porcupine.NondeterministicModel{
	Init:  func() []any { return []any{room{}} },
	Step:  func(state, input, output any) []any { return state.(room).states(input.(step), output.(answer)) },
	Equal: func(a, b any) bool { return a == b },
}).ToModel()

// TestModelRefuses shows that the comparison has teeth.
func TestModelRefuses(t *testing.T) {
	op := func(client int, call, ret int64, s step, a answer) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: s, Call: call, Output: a, Return: ret}
	}
	ask, leave := func(who byte) step { return step{who: who} }, func(who byte) step { return step{leave: true, who: who} }
	four := []porcupine.Operation{op(0, 0, 1, ask(1), in), op(0, 2, 3, ask(2), in), op(0, 4, 5, ask(3), in), op(0, 6, 7, ask(4), in)}
	for _, c := range []struct {
		name string
		rest []porcupine.Operation
		want bool
	}{
		{"the fifth waits", []porcupine.Operation{op(1, 8, 9, ask(5), wait)}, true},
		{"the fifth is let in", []porcupine.Operation{op(1, 8, 9, ask(5), in)}, false},
		{"a slot is free and it waits", []porcupine.Operation{op(0, 8, 9, leave(1), gone), op(1, 10, 11, ask(5), wait)}, false},
		{"the head of the line is next", []porcupine.Operation{op(1, 8, 9, ask(5), wait), op(2, 10, 11, ask(6), wait), op(0, 12, 13, leave(1), gone), op(1, 14, 15, ask(5), in)}, true},
		{"the second is let in before it", []porcupine.Operation{op(1, 8, 9, ask(5), wait), op(2, 10, 11, ask(6), wait), op(0, 12, 13, leave(1), gone), op(2, 14, 15, ask(6), in)}, false},
		{"inside and told to wait", []porcupine.Operation{op(0, 8, 9, ask(1), wait)}, false},
		{"a leave is forgotten", []porcupine.Operation{op(0, 8, 9, leave(1), gone), op(0, 10, 11, leave(1), gone)}, false},
		{"a leave of unknown fate was done", []porcupine.Operation{op(0, 8, math.MaxInt64, leave(1), unknown), op(1, 10, 11, ask(5), in)}, true},
		{"a leave of unknown fate was not done", []porcupine.Operation{op(0, 8, 9, leave(1), unknown), op(1, 10, 11, ask(5), wait)}, true},
		{"an ask of unknown fate was done", []porcupine.Operation{op(0, 8, 9, leave(1), gone), op(1, 10, 20, ask(5), unknown), op(2, 11, 12, ask(6), wait)}, true},
		{"it was done too late for that", []porcupine.Operation{op(0, 8, 9, leave(1), gone), op(1, 20, 30, ask(5), unknown), op(2, 11, 12, ask(6), wait)}, false},
	} {
		if got := porcupine.CheckOperations(sequential, append(append([]porcupine.Operation(nil), four...), c.rest...)); got != c.want {
			t.Errorf("%s: linearizable %v, want %v", c.name, got, c.want)
		}
	}
}

// TestHistoriesAreSequential plays short histories of ask and leave around one piece of harm, and looks for an order in which
// the sequential room would have given the same answers.
func TestHistoriesAreSequential(t *testing.T) {
	if !*runFaults {
		t.Skip("-faults runs it, or make faults")
	}
	for _, name := range []string{"kill -9 the leader", "pause the leader", "SIGTERM to the leader", "the leader is cut off", "kill -9 all"} {
		if *quick && name != "kill -9 the leader" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := cells[place(name)]
			w := newWorld(t, cell{})
			// A transport that keeps connections may send a request twice and tell of the second time only.
			w.crowd.transport.DisableKeepAlives = true
			long := map[string]any{"max_active": 0, "active_ttl": 600, "claim_ttl": 600, "queue_absent": 600}
			must(t, w.nodes[0].TryLimits(long))
			people := w.strangers(200)
			must(t, w.nodes[0].TryLimits(map[string]any{"max_active": linearSlots}))

			history := w.record(people, func() {
				victims := c.victims(w)
				c.harm(w, victims)
				rest(context.Background(), min(c.lasts, 3*time.Second))
				c.heal(w, victims)
			})
			doubtful := 0
			for _, o := range history {
				if o.Output == unknown {
					doubtful++
				}
			}
			t.Logf("%d operations, %d of unknown fate", len(history), doubtful)
			if len(history) < 300 {
				t.Errorf("the run means nothing: %d operations", len(history))
			}
			if got := porcupine.CheckOperationsTimeout(sequential, history, time.Minute); got != porcupine.Ok {
				t.Errorf("the answers are those of no order of the operations: %s", got)
			}
		})
	}
}

// strangers are visitors with a cookie whom the room does not know: while there is no slot at all a first visit stores
// nothing. A first visit whose answer is lost would leave somebody inside whom nobody knows.
func (w *world) strangers(count int) []*visitor {
	w.t.Helper()
	var people []*visitor
	for range count {
		v := &visitor{name: "stranger", crowd: w.crowd}
		if e := v.ask(w.nodes[0], "/"); e.Outcome != Held || v.cookie == "" {
			w.t.Fatalf("with no slots a first visit is %v", e)
		}
		people = append(people, v)
	}
	return people
}

// record has eight clients play the people, one after the other each, while harm is done, until 1,200 operations are over.
//
// What had no answer may be done as long as somebody holds it: a node for as long as a decision may take, 3 s, or a disk
// until its node is back and has caught up. An operation that could be anywhere in the rest of the history would make the search
// for an order endless.
func (w *world) record(people []*visitor, harm func()) []porcupine.Operation {
	const clients, most = 8, 1200
	var mu sync.Mutex
	var history []porcupine.Operation
	full := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(history) >= most
	}
	begun := time.Now()
	var wg sync.WaitGroup
	for client := range clients {
		dice := rand.New(rand.NewPCG(*seed, uint64(client)))
		wg.Go(func() {
			note := func(s step, do func(*harness.Node) (answer, error)) answer {
				call := time.Since(begun).Nanoseconds()
				a, err := do(w.nodes[dice.IntN(len(w.nodes))])
				back := time.Since(begun).Nanoseconds()
				var op *net.OpError
				if errors.As(err, &op) && op.Op == "dial" {
					return unknown // nothing was sent
				}
				if a == unknown {
					back = call + (5 * time.Second).Nanoseconds()
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: client, Input: s, Call: call, Output: a, Return: back})
				mu.Unlock()
				return a
			}
			for who := client; who < len(people) && !full(); who += clients {
				v := people[who]
				ask := func(n *harness.Node) (answer, error) { return v.turn(n) }
				for a := unknown; a != in && !full(); rest(context.Background(), between(dice, 20, 60)) {
					if a = note(step{who: byte(who)}, ask); a == unknown {
						rest(context.Background(), 300*time.Millisecond)
					}
				}
				leave := func(n *harness.Node) (answer, error) { return v.goes(n) }
				for a := unknown; a == unknown && !full(); rest(context.Background(), 300*time.Millisecond) {
					a = note(step{leave: true, who: byte(who)}, leave)
				}
			}
		})
	}
	rest(context.Background(), time.Second)
	harm()
	if !harness.Poll(healTime, func() bool { return !slices.ContainsFunc(w.nodes, func(n *harness.Node) bool { return !n.Ready() }) }) {
		w.t.Errorf("not well %v after the harm was undone", healTime)
	}
	rest(context.Background(), time.Second)
	mended := time.Since(begun).Nanoseconds()
	wg.Wait()
	for i := range history {
		if o := &history[i]; o.Output == unknown && o.Call < mended {
			o.Return = max(o.Return, mended)
		}
	}
	return history
}

// turn asks for the visitor's turn.
func (v *visitor) turn(n *harness.Node) (answer, error) {
	e := Event{}
	err := v.exchange(&e, n.URL+"/wr_check", v.crowd.number.Add(1))
	switch e.Outcome {
	case Turn:
		return in, nil
	case Waiting:
		return wait, nil
	}
	return unknown, err
}

// goes takes the visitor out.
func (v *visitor) goes(n *harness.Node) (answer, error) {
	known, err := n.Forget(v.id())
	switch {
	case err != nil:
		return unknown, err
	case known:
		return gone, nil
	}
	return never, nil
}
