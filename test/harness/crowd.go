package harness

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// A Crowd is visitors who come, wait, browse and leave, each in a goroutine of its own. A visitor
// asks a node that it picks anew each time, and another one when that does not answer.
type Crowd struct {
	world  *World
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	here map[*Browser]Outcome // the last word that each has got
}

// NewCrowd starts a crowd of a steady size: for everybody who leaves somebody comes. stay is how long a
// visitor browses before it leaves; seed decides who asks which node.
func (w *World) NewCrowd(size int, stay time.Duration, seed uint64) *Crowd {
	w.t.Helper()
	w.t.Logf("crowd: seed %d", seed)
	ctx, cancel := context.WithCancel(context.Background())
	c := &Crowd{world: w, cancel: cancel, here: map[*Browser]Outcome{}}
	for i := range size {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		c.wg.Go(func() {
			for ctx.Err() == nil {
				c.life(ctx, random, stay)
			}
		})
	}
	w.t.Cleanup(c.Stop)
	return c
}

// Stop ends the crowd where it stands and waits for the last answers. Nobody leaves.
func (c *Crowd) Stop() {
	c.cancel()
	c.wg.Wait()
}

// Here are the visitors that have not left, with the last word that each has got. Call it after Stop.
func (c *Crowd) Here() map[*Browser]Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.here
}

// life is one visitor from its first request until it leaves or the crowd ends.
func (c *Crowd) life(ctx context.Context, random *rand.Rand, stay time.Duration) {
	b := c.world.Browser()
	c.set(b, Failed)
	pace := time.NewTicker(time.Duration(80+random.IntN(60)) * time.Millisecond)
	defer pace.Stop()

	var entered time.Time
	for {
		// A visitor alternates its nodes without mercy; a real one stays with one mostly.
		node := c.world.Nodes[random.IntN(len(c.world.Nodes))]
		var e Event
		if entered.IsZero() {
			e = b.Visit(node, "/page")
		} else {
			e = b.Get(node, "/page")
		}
		if e.Outcome != Failed {
			c.set(b, e.Outcome)
		}
		if e.Outcome == Inside && entered.IsZero() {
			entered = time.Now()
		}
		if !entered.IsZero() && time.Since(entered) > stay {
			c.leave(b, random)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
	}
}

// leave gives up the visitor's slot. When an answer is lost nobody knows whether it has left, so it
// asks until one node says that it is gone.
func (c *Crowd) leave(b *Browser, random *rand.Rand) {
	if !Poll(time.Minute, func() bool { return b.Leave(c.world.Nodes[random.IntN(len(c.world.Nodes))]) == nil }) {
		c.world.t.Errorf("%s could not leave within a minute", b.Name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.here, b)
}

func (c *Crowd) set(b *Browser, o Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.here[b] = o
}
