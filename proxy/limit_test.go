package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/queue"
)

// A subscriber has a whole /64 to come from.
func TestConnectionsOfOneIPv6NetworkAreOneAddress(t *testing.T) {
	cs := &clientConns{of: map[netip.Addr]int{}, most: 2}
	for address, want := range map[string]bool{"2001:db8::1": true, "2001:db8:0:1::1": true, "192.0.2.1": true} {
		a := netip.MustParseAddr(address)
		for i := range 3 {
			if a.Is6() {
				a = a.Next()
			}
			if _, got := cs.admit(a, true); got != (want && i < 2) {
				t.Errorf("%v, connection %d: admitted %v", a, i+1, got)
			}
		}
		cs.release(a)
		if _, got := cs.admit(a, true); !got {
			t.Errorf("%v: no room after one has gone", a)
		}
	}
	if len(cs.of) != 3 {
		t.Errorf("%v", cs.of)
	}
}

func TestMaxConnsPerIP(t *testing.T) {
	room := newRoom(t, 10)
	origin := newSite(t, nil)
	s := serve(t, room, origin.URL, func(c *Config) { c.MaxConnsPerIP = 2 })
	one, two := s.dial(), s.dial()
	for _, w := range []*wire{one, two} {
		if r := w.send("%s", request("GET", "/wr_healthcheck", "")).mustAnswer("GET"); r.StatusCode != 200 {
			t.Errorf("within the limit: got %d", r.StatusCode)
		}
	}
	if *secure {
		if !s.dial().ended() {
			t.Error("beyond it: the connection stays open")
		}
	} else if r := s.dial().mustAnswer("GET"); r.StatusCode != 429 || r.Header.Get("Retry-After") == "" {
		t.Errorf("beyond it: got %d", r.StatusCode)
	}
	_ = one.Close()
	eventually(t, "a place is free again", func() bool {
		w := s.dial()
		defer w.Close()
		r, err := w.send("%s", request("GET", "/wr_healthcheck", "")).answer("GET")
		return err == nil && r.StatusCode == 200
	})
	s = serve(t, room, origin.URL, func(c *Config) {
		c.MaxConnsPerIP = 1
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	for range 3 {
		if r := s.dial().send("%s", request("GET", "/wr_healthcheck", "")).mustAnswer("GET"); r.StatusCode != 200 {
			t.Errorf("a trusted proxy: got %d", r.StatusCode)
		}
	}
}

func TestVisitorRPS(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.VisitorRPS = 1 })
	_, cookie := room.active(t)
	_, other := room.active(t)
	var statuses []int
	for range 4 {
		statuses = append(statuses, s.ask("GET", "/", "Cookie: "+cookie).StatusCode)
	}
	r := s.ask("GET", "/wr_check", "Cookie: "+cookie)
	if statuses[0] != 200 || statuses[3] != 429 || r.StatusCode != 429 || r.Header.Get("Retry-After") == "" {
		t.Errorf("got %v, then %d", statuses, r.StatusCode)
	}
	if r := s.ask("GET", "/", "Cookie: "+other); r.StatusCode != 200 {
		t.Errorf("another visitor: got %d", r.StatusCode)
	}
	if got := testutil.ToFloat64(s.metrics.limited[limitVisitor]); got < 2 {
		t.Errorf("owr_limited_total{reason=\"visitor_rps\"}: got %v", got)
	}
}

// A request that a loop begins and a goroutine decides is one request.
func TestVisitorRPSCountsOnce(t *testing.T) {
	room := newRoom(t, 0)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.Loops, c.VisitorRPS = 1, 1 })
	token, _ := room.queued(t)
	for i := range uint64(2) {
		ahead := 200 + i
		room.do(func(r *fakeRoom) { r.behind[ahead] = func(r *fakeRoom) { r.applied = ahead } })
		if r := s.ask("GET", "/", "Cookie: "+room.cookie(token, ahead)); r.StatusCode != 302 {
			t.Errorf("request %d of two that are allowed: got %d", i+1, r.StatusCode)
		}
	}
}

// Who waits and polls far too often is told so from memory: nothing is submitted, nothing noted, and the place is kept.
func TestPollRPS(t *testing.T) {
	room := newRoom(t, 0)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.PollRPS = 1 })
	_, cookie := room.queued(t)
	_, other := room.queued(t)
	w := s.dial()
	poll := func(cookie string) reply {
		return w.send("%s", request("GET", "/wr_check", "", "Cookie: "+cookie)).mustAnswer("GET")
	}
	var last reply
	counts := map[int]int{}
	for range 100 {
		last = poll(cookie)
		counts[last.StatusCode]++
	}
	ownAnswer(t, last)
	if counts[200] < 4 || counts[200] > 20 || counts[429] != 100-counts[200] {
		t.Errorf("a hundred polls at once: got %v", counts)
	}
	if last.Header.Get("Retry-After") == "" || !strings.Contains(last.text, `"status":"limited"`) || !strings.Contains(last.text, `"position":1`) {
		t.Errorf("got Retry-After %q, %s", last.Header.Get("Retry-After"), last.text)
	}
	if n := len(room.commands()); n > 0 {
		t.Errorf("%d commands were submitted", n)
	}
	if n := room.touches(); n > counts[200] {
		t.Errorf("%d touches for %d polls that were answered", n, counts[200])
	}
	if r := poll(other); r.StatusCode != 200 {
		t.Errorf("another visitor: got %d", r.StatusCode)
	}
	if got := int(testutil.ToFloat64(s.metrics.limited[limitPolls])); got != counts[429] {
		t.Errorf("owr_limited_total{reason=\"poll_rps\"}: got %v, want %d", got, counts[429])
	}
	if r := s.ask("GET", "/", "Cookie: "+cookie); r.StatusCode != 302 {
		t.Errorf("a page, which is no poll: got %d", r.StatusCode)
	}
}

// Who is inside is not a visitor that waits, however often it asks.
func TestPollRPSLeavesThoseInsideAlone(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.PollRPS = 1 })
	_, cookie := room.active(t)
	for range 20 {
		if r := s.ask("GET", "/wr_check", "Cookie: "+cookie); r.StatusCode != 302 {
			t.Fatalf("got %d", r.StatusCode)
		}
	}
}

func TestNewPerIPPerMinute(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) {
		c.NewPerIPPerMinute = 2
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	_, cookie := room.active(t)
	ask := func(address string) int { return s.ask("GET", "/", "X-Forwarded-For: "+address).StatusCode }
	if got := []int{ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.1"), ask("192.0.2.2"), ask("2001:db8::1"), ask("2001:db8::2"), ask("2001:db8::3"), ask("2001:db8:1::1")}; !equal(got, []int{200, 200, 429, 200, 200, 200, 429, 200}) {
		t.Errorf("got %v", got)
	}
	if r := s.ask("GET", "/", "X-Forwarded-For: 192.0.2.1", "Cookie: "+cookie); r.StatusCode != 200 {
		t.Errorf("a known visitor from there: got %d", r.StatusCode)
	}
}

// Names that were given out elsewhere, or over hours, are no way around the limit: an address takes so many places and no more. Whoever
// has one goes on.
func TestPlacesPerAddress(t *testing.T) {
	room := newRoom(t, 0)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) {
		c.NewPerIPPerMinute = 2
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	var names []string
	for range 4 {
		names = append(names, room.cookie(newToken(), 0))
	}
	poll := func(address, cookie string) int {
		return s.ask("GET", "/wr_check", "X-Forwarded-For: "+address, "Cookie: "+cookie).StatusCode
	}
	got := []int{
		poll("192.0.2.1", names[0]), poll("192.0.2.1", names[1]), poll("192.0.2.1", names[2]), poll("192.0.2.1", names[0]),
		poll("192.0.2.2", names[2]), poll("192.0.2.1", names[2]),
	}
	if want := []int{200, 200, 429, 200, 200, 200}; !equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	room.do(func(r *fakeRoom) { r.noQuorum, r.submitErr = true, errNoQuorum })
	for range 3 {
		if got := poll("192.0.2.3", names[3]); got != 503 {
			t.Errorf("without a majority: got %d, want 503", got)
		}
	}
	room.do(func(r *fakeRoom) { r.noQuorum, r.submitErr = false, nil })
	if got := poll("192.0.2.3", names[3]); got != 200 {
		t.Errorf("what it asked in vain counts: got %d", got)
	}
}

// A full line is told before a place is counted against the address, since there is none.
func TestAFullLineTakesNoPlace(t *testing.T) {
	for name, change := range map[string]func(*Config){"loops": nil, "goroutines": withoutLoops} {
		room := newRoom(t, 0)
		s := serve(t, room, newSite(t, nil).URL, func(c *Config) {
			if c.NewPerIPPerMinute = 1; change != nil {
				change(c)
			}
		})
		token, _ := room.queued(t)
		room.do(func(r *fakeRoom) { r.limits.QueueMax = 1 })
		cookie := room.cookie(newToken(), 0)
		var statuses []int
		for range 3 {
			statuses = append(statuses, s.ask("GET", "/wr_check", "Cookie: "+cookie).StatusCode)
		}
		if n := len(room.commands()); n > 0 {
			t.Errorf("%s: %d commands for a line that is full", name, n)
		}
		room.set(token, queue.View{})
		if statuses = append(statuses, s.ask("GET", "/wr_check", "Cookie: "+cookie).StatusCode); !equal(statuses, []int{503, 503, 503, 200}) {
			t.Errorf("%s: got %v", name, statuses)
		}
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
