package proxy

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/queue"
)

// lost has the room lose its majority, or find it again.
func (r *fakeRoom) lost(is bool) {
	r.do(func(r *fakeRoom) {
		r.noQuorum, r.submitErr = is, nil
		if is {
			r.submitErr = errNoQuorum
		}
	})
}

// Held visitors are told their place and that the line stands still, in every form of answer, and are told otherwise when it goes on.
func TestNoQuorumHolds(t *testing.T) {
	room := newRoom(t, 1)
	room.active(t)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.QueueMode = ModeInline })
	_, waiting := room.queued(t)
	room.lost(true)
	r := s.ask("GET", "/wr_check", "Cookie: "+waiting)
	if r.StatusCode != 200 || !strings.Contains(r.text, `"position":1`) || !strings.Contains(r.text, `"no_quorum":true`) {
		t.Errorf("a poll: got %d %s", r.StatusCode, r.text)
	}
	r = s.ask("GET", "/", "Cookie: "+waiting, "Accept: text/html")
	if r.StatusCode != 503 || !strings.Contains(r.text, standsStill) || !strings.Contains(r.text, "You are next") {
		t.Errorf("a page: got %d, which does not say that the line stands still", r.StatusCode)
	}
	r = s.ask("GET", "/", "Cookie: "+waiting, "Accept: application/json")
	if r.StatusCode != 429 || !strings.Contains(r.text, standsStill) {
		t.Errorf("a script's request: got %d %s", r.StatusCode, r.text)
	}
	if r = s.ask("GET", "/", "Accept: text/html"); r.StatusCode != 503 || !strings.Contains(r.text, standsStill) {
		t.Errorf("a newcomer: got %d", r.StatusCode)
	}
	room.lost(false)
	if r := s.ask("GET", "/wr_check", "Cookie: "+waiting); strings.Contains(r.text, "no_quorum") {
		t.Errorf("with a majority again: got %s", r.text)
	}
	if !strings.Contains(string(defaultPage), "The line stands still at the moment. Your place is kept") {
		t.Error("the page's script says it in other words")
	}
}

// With admit, those outside go in at the rate that was set: those in line in their order, newcomers behind them. They stay as long as
// they keep coming, are counted apart, and are newcomers when there is a majority again.
func TestNoQuorumAdmits(t *testing.T) {
	room := newRoom(t, 1)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.NoQuorumPerMinute = 60 })
	var passed atomic.Int64 // nanoseconds
	s.outage.now = func() time.Time { return time.Unix(1_700_000_000, passed.Load()) }
	pass := func(d time.Duration) { passed.Add(int64(d)) }
	token, expired := room.active(t)
	room.set(token, queue.View{State: queue.Active, Deadline: room.Now() - 1})
	_, first := room.queued(t)
	_, second := room.queued(t)
	inside := func(cookie string) bool {
		t.Helper()
		return s.ask("GET", "/", "Cookie: "+cookie).Header.Get("X-Origin") != ""
	}
	room.lost(true)
	if inside(first) {
		t.Error("the line moved at once")
	}
	if !inside(expired) {
		t.Error("who had a slot is kept out")
	}
	pass(time.Second)
	if !inside(first) || inside(second) {
		t.Error("after a second the first in line is in, and nobody else")
	}
	if s.ask("GET", "/").Header.Get("X-Origin") != "" {
		t.Error("a newcomer went in before the line")
	}
	pass(2 * time.Second)
	r := s.ask("GET", "/")
	cookie := "wr_token=" + r.ours()
	if r.Header.Get("X-Origin") == "" || r.ours() == "" || r.Header.Get("Cache-Control") != "private" {
		t.Errorf("a newcomer behind the line: got %d, cookie %q", r.StatusCode, r.ours())
	}
	if s.ask("GET", "/").Header.Get("X-Origin") != "" {
		t.Error("two newcomers where there was time for one")
	}
	if r := s.ask("GET", "/wr_check", "Cookie: "+cookie); r.StatusCode != 302 {
		t.Errorf("its poll: got %d", r.StatusCode)
	}
	for range 3 {
		pass(room.Limits().ActiveTTL - time.Second)
		if !inside(cookie) {
			t.Error("who was let in and keeps coming is kept out")
		}
	}
	if got := testutil.ToFloat64(s.metrics.apart); got != 3 {
		t.Errorf("%v are counted apart, want 3", got)
	}
	if got := testutil.ToFloat64(s.metrics.decisions[letIn]); got != 0 {
		t.Errorf("%v are counted as let in", got)
	}
	room.lost(false)
	if inside(cookie) {
		t.Error("with a majority again who has no slot is inside")
	}
	if log := s.log.String(); !strings.Contains(log, "without slots") || !strings.Contains(log, "exact again") {
		t.Errorf("the log does not tell:\n%s", log)
	}
}

// watched counts how often a visitor is looked up.
type watched struct {
	*fakeRoom
	looks atomic.Int32
}

func (r *watched) Lookup(t queue.Token) queue.View {
	r.looks.Add(1)
	return r.fakeRoom.Lookup(t)
}

// A tunnel of somebody who passes without a slot lasts as long as that does. Bytes in it are a sign of life, and looking at it is none.
func TestNoQuorumTunnels(t *testing.T) {
	room := &watched{fakeRoom: newRoom(t, 1)}
	s := serve(t, room.fakeRoom, rawOrigin(t, echo(nil)), func(c *Config) { c.Room, c.NoQuorumPerMinute = room, 60_000 })
	var passed atomic.Int64 // nanoseconds
	s.outage.now = func() time.Time { return time.Unix(1_700_000_000, passed.Load()) }
	pass := func(d time.Duration) {
		passed.Add(int64(d))
		room.advance(d)
	}
	stay := room.Limits().ActiveTTL
	open := func() (*wire, queue.Token) {
		t.Helper()
		token := newToken()
		w, r := s.upgrade("/ws", room.cookie(token, 0), "")
		if r.StatusCode != 101 {
			t.Fatalf("got %d", r.StatusCode)
		}
		return w, token
	}
	watch := func() { // each tunnel that is open has looked whether it may be
		t.Helper()
		before := room.looks.Load()
		eventually(t, "all tunnels have looked", func() bool { return room.looks.Load() >= before+2*int32(testutil.ToFloat64(s.metrics.tunnels)) })
	}
	room.lost(true)
	s.ask("GET", "/") // the outage begins
	pass(time.Second)
	busy, _ := open()
	silent, _ := open()
	watch()
	for range 3 {
		pass(stay / 2)
		busy.echo("x")
	}
	if !silent.ended() {
		t.Error("a silent tunnel outlives its visitor's pass")
	}
	watch()
	busy.echo("x")
	slot, token := open()
	room.lost(false)
	room.set(token, queue.View{State: queue.Active, Deadline: room.Now() + 60_000, TouchAfter: room.Now() + 1000})
	if !busy.ended() {
		t.Error("with a majority again a tunnel without a slot goes on")
	}
	watch()
	slot.echo("x")
}

// Whom a long outage let in and who left does not stay in memory.
func TestNoQuorumForgets(t *testing.T) {
	room := newRoom(t, 1)
	now := time.Unix(1_700_000_000, 0)
	s := serve(t, room, "http://127.0.0.1:1", func(c *Config) { c.NoQuorumPerMinute = 60_000 })
	s.outage.now = func() time.Time { return now }
	room.lost(true)
	s.outage.admits(newToken(), queue.View{})
	for range 20_000 {
		now = now.Add(10 * time.Millisecond)
		s.outage.admits(newToken(), queue.View{})
	}
	there := int(room.Limits().ActiveTTL / (10 * time.Millisecond))
	if n := len(s.outage.passes); n < there || n > 2*there {
		t.Errorf("%d are remembered, %d are there", n, there)
	}
}
