package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

const (
	// patience is how long a visitor waits for an answer.
	patience = 2 * time.Second
	// A balancer asks every node whether its process lives, this often, and takes no answer in this time for no.
	healthEvery   = 200 * time.Millisecond
	healthTimeout = 250 * time.Millisecond
	// stubborn is the share of the requests that go to any node, whatever the balancer says.
	stubborn = 0.05
	// settled is the share of the visitors that stay for long: every node knows them well when harm is done.
	settled = 0.1
)

// A visitor is one person with one cookie. It is used by one goroutine at a time.
type visitor struct {
	name   string
	cookie string
	crowd  *crowd
}

// id is what Redis shows of the visitor; empty before the first answer.
func (v *visitor) id() string { return v.cookie[:min(36, len(v.cookie))] }

// ask makes one request on a node, and notes it.
func (v *visitor) ask(n *harness.Node, path string) Event {
	number := v.crowd.number.Add(1)
	e := Event{Visitor: v.name, Node: n.ID, Sent: clock()}
	err := v.exchange(&e, n.URL+path, number)
	e.Got = clock()
	if err != nil {
		e.Outcome, e.Detail, e.Late = Failed, fmt.Sprintf("%s: %v", path, err), errors.Is(err, context.DeadlineExceeded)
	}
	if hit := v.crowd.origin.take(number); e.Outcome == Inside {
		e.Hit = hit
	}
	e.ID = v.id()
	v.crowd.note(e)
	return e
}

func (v *visitor) exchange(e *Event, url string, number int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set(requestHeader, strconv.FormatInt(number, 10))
	if v.cookie != "" {
		req.Header.Set("Cookie", "wr_token="+v.cookie)
	}
	res, err := v.crowd.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	for _, c := range res.Cookies() {
		if c.Name == "wr_token" {
			v.cookie = c.Value
		}
	}
	if res.Header.Get("X-Origin") != "" && string(body) != originText {
		v.crowd.short.Add(1)
		return fmt.Errorf("%d bytes of the site, as if that was all", len(body))
	}
	return e.read(res, body)
}

// read says what an answer means.
func (e *Event) read(res *http.Response, body []byte) error {
	location := res.Header.Get("Location")
	switch {
	case res.Header.Get("X-Origin") != "":
		e.Outcome = Inside
		return nil
	case res.StatusCode == http.StatusFound && strings.HasPrefix(location, "/queue.html"):
		e.Outcome = Held
		return nil
	case res.StatusCode == http.StatusFound:
		e.Outcome = Turn
		return nil
	case res.StatusCode == http.StatusOK:
		var answer struct {
			Status   string
			Position int
		}
		if err := json.Unmarshal(body, &answer); err == nil && answer.Status == "waiting" && answer.Position > 0 {
			e.Outcome, e.Position = Waiting, answer.Position
			return nil
		}
	}
	e.Shed = res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != ""
	return fmt.Errorf("%d %.60q", res.StatusCode, body)
}

// leave takes the visitor out by way of a node's admin API. Whether that was done does not matter to the audit: from the
// moment it was asked, nothing is promised to this visitor.
func (v *visitor) leave(n *harness.Node) error {
	at := clock()
	v.crowd.note(Event{Visitor: v.name, Node: "admin", Sent: at, Got: at, Outcome: Left, ID: v.id()})
	return n.Leave(v.id())
}

// A crowd is a steady number of visitors, each on another node with each request, behind a balancer that looks at the processes and
// not at the cluster: a node that is cut off from the others goes on serving.
type crowd struct {
	seats     []*seat
	origin    *origin
	transport *http.Transport
	number    atomic.Int64 // of requests; never starts again
	people    atomic.Int64
	short     atomic.Int64 // answers of the origin that ended well before they were whole

	mu     sync.Mutex
	events []Event
	here   map[string]*visitor // by name: who has come and not gone

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// A seat is a node as the balancer has it.
type seat struct {
	node *harness.Node
	dead atomic.Bool // it does not answer
	out  atomic.Bool // it is not in the balancer's list
}

// newCrowd makes the balancer's list: the nodes, and spares, which are out at first.
func newCrowd(nodes, spares []*harness.Node, o *origin) *crowd {
	c := &crowd{origin: o, here: map[string]*visitor{}, transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 5 * time.Second}}
	for i, n := range slices.Concat(nodes, spares) {
		s := &seat{node: n}
		s.out.Store(i >= len(nodes))
		c.seats = append(c.seats, s)
	}
	return c
}

func (c *crowd) note(e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
}

// start begins with so many visitors; seed decides what they do.
func (c *crowd) start(size int, seed uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	for _, s := range c.seats {
		c.wg.Go(func() {
			for ; ctx.Err() == nil; rest(ctx, healthEvery) {
				s.dead.Store(!s.out.Load() && !alive(ctx, s.node))
			}
		})
	}
	for i := range size {
		dice := rand.New(rand.NewPCG(seed, uint64(i)))
		c.wg.Go(func() {
			rest(ctx, between(dice, 0, 1500))
			for ctx.Err() == nil {
				c.life(ctx, dice)
			}
		})
	}
}

// alive reports whether a node's process answers.
func alive(ctx context.Context, n *harness.Node) bool {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL+"/wr_healthcheck", nil)
	if err != nil {
		return false
	}
	res, err := checker.RoundTrip(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// checker is the balancer's client. It dials anew each time.
var checker = &http.Transport{DisableKeepAlives: true}

// pick is a node for the next request: any of the list that the balancer takes to be alive, and now and then any of the list.
func (c *crowd) pick(dice *rand.Rand) *harness.Node {
	first, any := dice.IntN(len(c.seats)), dice.Float64() < stubborn
	var last *harness.Node
	for i := range c.seats {
		s := c.seats[(first+i)%len(c.seats)]
		if s.out.Load() {
			continue
		}
		if last = s.node; any || !s.dead.Load() {
			break
		}
	}
	return last
}

// stop ends the crowd where it stands, and waits for the last answers.
func (c *crowd) stop() {
	if c.cancel != nil {
		c.cancel()
	}
	c.wg.Wait()
}

// life is one visitor from its first request to its last.
func (c *crowd) life(ctx context.Context, dice *rand.Rand) {
	v := &visitor{name: fmt.Sprintf("v%d", c.people.Add(1)), crowd: c}
	c.mu.Lock()
	c.here[v.name] = v
	c.mu.Unlock()
	if v.visit(ctx, dice) {
		c.mu.Lock()
		delete(c.here, v.name)
		c.mu.Unlock()
		rest(ctx, between(dice, 20, 200))
	}
}

// visit comes, waits, browses and goes, and reports false when ctx ended before. Most browse for a second and some for longer. Some are
// silent for a while in line or inside, and have to be forgotten and not counted; most ask about four times a second.
func (v *visitor) visit(ctx context.Context, dice *rand.Rand) bool {
	pages, inside := 2+dice.IntN(6), false
	if dice.Float64() < settled {
		pages += 30
	}
	for ctx.Err() == nil {
		node := v.crowd.pick(dice)
		switch {
		case inside:
			switch e := v.ask(node, "/page"); e.Outcome {
			case Inside:
				if pages--; pages == 0 {
					if dice.Float64() < 0.8 {
						_ = v.leave(node) // or its slot expires
					}
					return true
				}
			case Failed:
			default:
				inside = false
			}
		case v.cookie == "":
			inside = v.ask(node, "/").Outcome == Inside
		default:
			inside = v.ask(node, "/wr_check").Outcome == Turn
		}
		pause := between(dice, 150, 350)
		if dice.Float64() < 0.002 {
			pause = between(dice, 7000, 9000)
		}
		rest(ctx, pause)
	}
	return false
}

// count is how many operations there have been.
func (c *crowd) count() int64 { return c.number.Load() }

// present are those who have come and not gone, in no order.
func (c *crowd) present() []*visitor {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.here))
}

// forget drops everybody and the history.
func (c *crowd) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.here)
	c.events = nil
}

// take ends the history so far and answers it.
func (c *crowd) take() []Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	events := c.events
	c.events = nil
	return events
}

func between(dice *rand.Rand, low, high int) time.Duration {
	return time.Duration(low+dice.IntN(high-low+1)) * time.Millisecond
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
