//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	owr "github.com/openwaitingroom/owr/cluster"
	"github.com/openwaitingroom/owr/mirror"
	"github.com/openwaitingroom/owr/queue"
)

// What the mirror's child is told, and what it answers.
type (
	mirrorOrder struct {
		Data, Redis string
		RedisPID    int
		Changes     int // a second
		Rounds      int
		Window      time.Duration
		Waiting     int
	}
	mirrorRound struct {
		Changes float64 // a second, as they came about
		Worst   float64 // the longest that Redis was behind, in milliseconds
		Median  float64
		Redis   float64 // share of one core
		Node    float64 // share of one core
	}
)

// mirrorNode is a node and its mirror without HTTP, so that changes can be made at a given pace: of every
// five a fifth each is an arrival, somebody inside who leaves, the head of the queue released by that, its
// claim, and a sign of life.
func mirrorNode(args []string) error {
	var o mirrorOrder
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return err
	}
	const inside = 20_000
	limits := place{maxActive: inside}.limits()
	var writer atomic.Pointer[mirror.Writer]
	wired := make(chan struct{})
	node, err := owr.Open(owr.Config{
		NodeID: "n1", Listen: "127.0.0.1:1", DataDir: o.Data, Limits: limits, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), Registerer: prometheus.NewRegistry(),
		OnFailure: func(err error) { fmt.Fprintln(os.Stderr, err); os.Exit(1) },
		Jobs: []owr.Job{func(ctx context.Context, term uint64) error {
			<-wired
			return writer.Load().Run(ctx, term)
		}},
	})
	if err != nil {
		return err
	}
	w, err := mirror.New(mirror.Config{Source: node, Node: "n1", Cluster: node.Cluster, Addr: o.Redis, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	writer.Store(w)
	close(wired)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for node.Ready() != nil {
		if ctx.Err() != nil {
			return node.Ready()
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := arriveAll(ctx, node, 0, inside+o.Waiting); err != nil {
		return err
	}
	c := &churn{ctx: ctx, node: node, next: inside + o.Waiting, head: 0, total: inside + o.Waiting}
	for i := range c.total {
		if node.Lookup(visitorToken(i)).State == queue.Active {
			c.active = append(c.active, i)
		}
	}
	c.run(o.Changes, 2*time.Second, nil) // warm up, and let the first picture be drawn
	var rounds []mirrorRound
	for range o.Rounds {
		var behind []float64
		redis, self, begun := cpuOf(o.RedisPID), cpuOf(os.Getpid()), time.Now()
		changes := c.run(o.Changes, o.Window, func() { behind = append(behind, float64(w.Status().Behind.Microseconds())/1000) })
		took := time.Since(begun).Seconds()
		if s := w.Status(); !s.Healthy {
			return fmt.Errorf("the mirror is not well: %v", s.LastError)
		}
		rounds = append(rounds, mirrorRound{
			Changes: float64(changes) / took, Worst: percentile(behind, 100), Median: median(behind),
			Redis: (cpuOf(o.RedisPID) - redis) / took, Node: (cpuOf(os.Getpid()) - self) / took,
		})
	}
	if err := node.Close(); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(rounds)
}

// churn makes changes. One goroutine.
type churn struct {
	ctx    context.Context
	node   *owr.Node
	active []int // inside, in the order in which they leave
	head   int   // everybody before has been promoted
	next   int   // the next newcomer
	total  int
}

// run makes changes at a pace and returns how many there were. look is called every few milliseconds.
func (c *churn) run(perSecond int, d time.Duration, look func()) int {
	const step = 20 * time.Millisecond
	each := perSecond / 5 / int(time.Second/step)
	made := 0
	begun := time.Now()
	for due := time.Duration(0); due < d; due += step {
		for time.Since(begun) < due {
			time.Sleep(2 * time.Millisecond)
			if look != nil {
				look()
			}
		}
		made += c.turn(each)
		if look != nil {
			look()
		}
	}
	return made
}

func (c *churn) turn(each int) int {
	var wg sync.WaitGroup
	var done atomic.Int64
	submit := func(kind queue.Kind, visitor, changes int) {
		wg.Go(func() {
			if _, err := c.node.Submit(c.ctx, queue.Command{Kind: kind, Token: visitorToken(visitor)}); err == nil {
				done.Add(int64(changes))
			}
		})
	}
	for range min(each, len(c.active)) {
		submit(queue.KindLeave, c.active[0], 2) // its own, and the one who is promoted for it
		c.active = c.active[1:]
	}
	for range each {
		submit(queue.KindArrive, c.next, 1)
		c.next++
	}
	touched := min(each, len(c.active))
	for i := range touched {
		c.node.Touch(visitorToken(c.active[len(c.active)-1-(i*7)%len(c.active)]))
	}
	wg.Wait()
	// Tickets were given in nearly the order of the numbers.
	from, seen := c.head, 0
	for i := from; i < c.next && seen < 2*each+4000; i++ {
		seen++
		switch c.node.Lookup(visitorToken(i)).State {
		case queue.Released:
			submit(queue.KindClaim, i, 1)
			c.active = append(c.active, i)
		case queue.Queued, queue.Absent:
			continue
		}
		if i == c.head {
			c.head++
		}
	}
	wg.Wait()
	return int(done.Load()) + touched
}

func measureMirror(l *lab) ([]*figure, error) {
	const changes = 20_000
	redis, at, err := l.redisServer()
	if err != nil {
		return nil, err
	}
	order, err := json.Marshal(mirrorOrder{
		Data: l.folder("data"), Redis: at, RedisPID: redis.pid(), Changes: changes, Rounds: l.o.rounds, Window: l.o.window, Waiting: 100_000,
	})
	if err != nil {
		return nil, err
	}
	p, err := l.startChild("mirror", string(order))
	if err != nil {
		return nil, err
	}
	select {
	case <-p.done:
	case <-time.After(3*time.Minute + time.Duration(l.o.rounds)*l.o.window):
		return nil, fmt.Errorf("the mirror's node did not end: %s", p.tail())
	case <-l.ctx.Done():
		return nil, context.Cause(l.ctx)
	}
	var rounds []mirrorRound
	if err := json.Unmarshal([]byte(lastLine(readFile(p.folder+"/log"))), &rounds); err != nil {
		return nil, fmt.Errorf("%w: %s", err, p.tail())
	}
	of := func(name string, f func(mirrorRound) float64) series {
		var values []float64
		for _, r := range rounds {
			values = append(values, f(r))
		}
		return newSeries(name, values)
	}
	return []*figure{
		alone("behind, at worst", "ms", of("owr", func(r mirrorRound) float64 { return r.Worst })).wants(atMost(1000), nil).
			noted("median %.0f ms; at %.0f changes/s of 20,000 wanted; the node used %.0f %% of a core", of("", func(r mirrorRound) float64 { return r.Median }).Median,
				of("", func(r mirrorRound) float64 { return r.Changes }).Median, 100*of("", func(r mirrorRound) float64 { return r.Node }).Median),
		alone("Redis, share of one core", "%", of("owr", func(r mirrorRound) float64 { return 100 * r.Redis })).wants(atMost(30), nil),
	}, nil
}

func lastLine(text string) string {
	for len(text) > 0 && text[len(text)-1] == '\n' {
		text = text[:len(text)-1]
	}
	for i := len(text) - 1; i >= 0; i-- {
		if text[i] == '\n' {
			return text[i+1:]
		}
	}
	return text
}

// measureHung compares decisions while Redis answers with decisions while it hangs.
func measureHung(l *lab) ([]*figure, error) {
	const waiting, rate = 10_000, 1000
	_, origin, err := l.origin()
	if err != nil {
		return nil, err
	}
	redis, at, err := l.redisServer()
	if err != nil {
		return nil, err
	}
	c, err := l.cluster(place{nodes: 3, origin: origin, redis: at, maxActive: 1, active: 1, waiting: waiting})
	if err != nil {
		return nil, err
	}
	known := c.crowd(1, waiting).each("/wr_check")
	seen := 1 + waiting
	measure := func() (arrival, poll float64, err error) {
		count := int(rate*l.o.window.Seconds()) + 100
		fresh := c.crowd(seen, count).once("/wr_check")
		seen += count
		n := 0
		r, err := load{targets: c.publics(), conns: 96, duration: l.o.window, rate: rate, journal: true, next: func(at *conn, dst []byte) []byte {
			if n++; n%4 == 0 {
				at.kind = kindArrival
				return fresh(at, dst)
			}
			at.kind = kindPoll
			return known(at, dst)
		}}.run(l.ctx)
		if err == nil {
			err = r.only(200)
		}
		var took [2][]float64
		for _, e := range r.entries {
			took[e.kind] = append(took[e.kind], e.took.Seconds()*1000)
		}
		if err != nil {
			return 0, 0, err
		}
		return percentile(took[kindArrival], 99), percentile(took[kindPoll], 99), nil
	}
	var values [2][2][]float64 // kind, hung
	for round := range l.o.rounds + 1 {
		for hung := range 2 {
			if hung == 1 {
				redis.signal(syscall.SIGSTOP)
				l.sleep(1500 * time.Millisecond) // until its time-outs are felt
			}
			a, p, err := measure()
			redis.signal(syscall.SIGCONT)
			if err != nil {
				return nil, fmt.Errorf("with Redis hung %t: %w", hung == 1, err)
			}
			if round > 0 {
				values[kindArrival][hung], values[kindPoll][hung] = append(values[kindArrival][hung], a), append(values[kindPoll][hung], p)
			}
			l.sleep(time.Second)
		}
	}
	return []*figure{
		compare("p99 of an arrival, Redis hung against well", "ms", newSeries("hung", values[kindArrival][1]), newSeries("well", values[kindArrival][0])).wants(atMost(1.2), nil),
		compare("p99 of a poll, Redis hung against well", "ms", newSeries("hung", values[kindPoll][1]), newSeries("well", values[kindPoll][0])).wants(atMost(1.2), nil),
	}, nil
}
