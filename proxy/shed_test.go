package proxy

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// bent is a shedder whose time and luck a test has in hand.
func bent() (s *shedder, pass func(time.Duration)) {
	now := time.Unix(1_700_000_000, 0)
	s = &shedder{now: func() time.Time { return now }, random: func() float64 { return 0 }, begun: now}
	return s, func(d time.Duration) { now = now.Add(d) }
}

// decide has so many decisions in an interval, one of which took least and the others longer.
func decideFor(s *shedder, pass func(time.Duration), intervals int, least time.Duration) {
	for range intervals {
		s.took(3 * time.Second)
		s.took(least)
		pass(shedInterval)
		s.took(2 * time.Second)
	}
}

func TestShedderTellsAnOverloadFromABurst(t *testing.T) {
	s, pass := bent()
	decideFor(s, pass, 20, 30*time.Millisecond)
	if s.turnsAway() {
		t.Error("a burst, in which some wait and some do not, turns somebody away")
	}
	decideFor(s, pass, 1, 1500*time.Millisecond)
	decideFor(s, pass, 1, 10*time.Millisecond)
	if s.turnsAway() {
		t.Error("one bad interval, as after an election, turns somebody away")
	}
	decideFor(s, pass, 4, 800*time.Millisecond)
	if got := s.share.Load(); got != 3*shedStep || !s.turnsAway() {
		t.Errorf("after four bad intervals: %d %%", got)
	}
	decideFor(s, pass, 20, 800*time.Millisecond)
	if got := s.share.Load(); got != shedMost {
		t.Errorf("an overload that lasts: %d %%, want %d", got, shedMost)
	}
	decideFor(s, pass, 20, 10*time.Millisecond)
	if s.turnsAway() {
		t.Errorf("it is over, and %d %% are turned away", s.share.Load())
	}
}

func TestShedderForgetsWhenNobodyComes(t *testing.T) {
	s, pass := bent()
	decideFor(s, pass, 20, time.Second)
	for range 30 {
		pass(5 * shedInterval)
		s.turnsAway()
	}
	if s.turnsAway() {
		t.Errorf("%d %% after half a minute in which nobody was decided", s.share.Load())
	}
}

// Where few come, and most of them are turned away, a decision is rare. The share falls with the time all the same.
func TestShedderRecoversWhereFewCome(t *testing.T) {
	s, pass := bent()
	decideFor(s, pass, 20, time.Second)
	for range 4 {
		pass(3 * shedInterval)
		s.turnsAway()
		s.took(10 * time.Millisecond)
	}
	if got := s.share.Load(); got > 3 {
		t.Errorf("%d %% after three seconds with one quick decision in each 750 ms, want next to nothing", got)
	}
	decideFor(s, pass, 4, time.Second)
	pass(3 * shedInterval)
	if s.took(time.Second); s.share.Load() < 3*shedStep {
		t.Errorf("%d %% after another slow decision", s.share.Load())
	}
}

// An overload turns away those who have nothing yet, asks those who wait to come back later, and leaves those inside alone.
func TestOverload(t *testing.T) {
	room := newRoom(t, 2)
	s := serve(t, room, newSite(t, nil).URL, nil)
	_, inside := room.active(t)
	_, waiting := room.queued(t)
	s.shed.random = func() float64 { return 0 }
	usual := 0
	for range 50 {
		usual += retryAfterOf(t, s.ask("GET", "/wr_check", "Cookie: "+waiting))
	}
	overload := func() {
		s.shed.mu.Lock()
		s.shed.begun = time.Now()
		s.shed.mu.Unlock()
		s.shed.share.Store(shedMost)
	}
	overload()
	if r := s.ask("GET", "/", "Cookie: "+inside); r.StatusCode != 200 || r.text != "GET / 0" {
		t.Errorf("a visitor inside: %d %q", r.StatusCode, r.text)
	}
	later := 0
	for range 50 {
		overload()
		r := s.ask("GET", "/wr_check", "Cookie: "+waiting)
		if r.StatusCode != 200 || !strings.Contains(r.text, `"position":1`) {
			t.Fatalf("a visitor in line: %d %q", r.StatusCode, r.text)
		}
		later += retryAfterOf(t, r)
	}
	if later < 2*usual {
		t.Errorf("a visitor in line is asked to stay away for %d s in all, usually %d", later, usual)
	}
	room.commands()
	overload()
	unknown := room.cookie(newToken(), 0)
	for name, r := range map[string]reply{
		"a page":   s.ask("GET", "/", "Accept: text/html", "Cookie: "+unknown),
		"a script": s.ask("GET", "/", "Accept: application/json", "Cookie: "+unknown),
		"a poll":   s.ask("GET", "/wr_check", "Cookie: "+unknown),
	} {
		ownAnswer(t, r)
		if r.StatusCode != 503 || retryAfterOf(t, r) < 5 {
			t.Errorf("%s of an arrival: %d, Retry-After %s", name, r.StatusCode, r.Header.Get("Retry-After"))
		}
	}
	room.do(func(r *fakeRoom) { r.line, r.views = nil, make(map[queue.Token]queue.View) })
	overload()
	if r := s.ask("GET", "/"); r.StatusCode != 503 {
		t.Errorf("a first visit while there is room: %d", r.StatusCode)
	}
	if got := room.commands(); len(got) != 0 {
		t.Errorf("the cluster was asked: %v", got)
	}
}

func retryAfterOf(t *testing.T, r reply) int {
	t.Helper()
	n, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if err != nil {
		t.Errorf("Retry-After: %v", err)
	}
	return n
}
