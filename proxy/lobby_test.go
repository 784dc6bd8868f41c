//go:build linux

package proxy

import (
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/queue"
)

// heldLoop is a loop whose turns a test takes.
func heldLoop(t *testing.T, s *stand) *loop {
	t.Helper()
	l, err := newLoop(s.Server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.cutOff()
		for len(l.origins) > 0 {
			l.closeOrigin(l.origins[0])
		}
		l.close()
	})
	return l
}

// comes is a client's connection that the loop has just taken in.
func comes(t *testing.T, s *stand, l *loop) *wire {
	t.Helper()
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := net.Dial("tcp", far.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := far.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	fd, err := dupOf(accepted.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.conns.admit(netip.Addr{}, false)
	s.metrics.connections.Inc()
	s.work.Add(1)
	l.adopt(fd, netip.Addr{}, time.Minute)
	t.Cleanup(func() { _ = near.Close() })
	return newWire(t, near)
}

// has reports whether something has come for the client, without waiting.
func (w *wire) has() bool {
	_ = w.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := w.br.Peek(1)
	_ = w.SetReadDeadline(time.Now().Add(patience))
	return err == nil
}

// In a turn that has those inside to serve, only a few of the others are; none is lost.
func TestLoopServesThoseInsideFirst(t *testing.T) {
	origin := newSite(t, nil)
	room := newRoom(t, 1)
	s := serve(t, room, origin.URL, withoutLoops)
	l := heldLoop(t, s)
	_, cookie := room.active(t)
	inside := comes(t, s, l)
	ask := func() { inside.send("%s", request("GET", "/inside", "", "Cookie: "+cookie)) }
	await := func() {
		t.Helper()
		eventually(t, "the visitor inside is answered", func() bool { l.turn(0); return inside.has() })
		inside.mustAnswer("GET")
	}
	ask()
	await()
	var others []*wire
	for range 3 * loopFew {
		w := comes(t, s, l)
		w.send("%s", request("GET", "/", ""))
		others = append(others, w)
	}
	ask()
	l.turn(0)
	answered := func() (n int) {
		for _, w := range others {
			if w.has() {
				n++
			}
		}
		return n
	}
	if n := answered(); n != loopFew {
		t.Errorf("beside a visitor inside %d of the others were answered in one turn, want %d", n, loopFew)
	}
	if len(origin.seen()) == 0 || len(l.parked) != 2*loopFew {
		t.Errorf("%d are parked, want %d", len(l.parked), 2*loopFew)
	}
	// Somebody inside on a connection that nobody knew yet does not stand behind them.
	late := comes(t, s, l)
	late.send("%s", request("GET", "/late", "", "Cookie: "+cookie))
	await()
	eventually(t, "the late one is answered", func() bool { l.turn(0); return late.has() })
	late.mustAnswer("GET")
	eventually(t, "all are answered", func() bool { l.turn(0); return answered() == len(others) })
	for _, w := range others {
		if r := w.mustAnswer("GET"); r.StatusCode != 302 || r.ours() == "" {
			t.Fatalf("one of the others got %d", r.StatusCode)
		}
	}
	if got := testutil.ToFloat64(s.metrics.inFlight); got != 0 {
		t.Errorf("%v requests are in flight", got)
	}
}

// What is parked for too long, or comes when too much is parked, is turned away; who is gone is forgotten.
func TestLoopTurnsAwayWhatItCannotPark(t *testing.T) {
	room := newRoom(t, 1)
	room.active(t)
	s := serve(t, room, newSite(t, nil).URL, withoutLoops)
	l := heldLoop(t, s)
	busy := func() { l.budget = 0; l.attend() } // as in a turn whose time is up
	l.now = time.Now()
	patient := comes(t, s, l)
	patient.send("%s", request("GET", "/", "", "Accept: application/json"))
	eventually(t, "it is parked", func() bool { busy(); return len(l.parked) == 1 })
	comes(t, s, l).send("%s", request("GET", "/", ""))
	eventually(t, "both are parked", func() bool { busy(); return len(l.parked) == 2 })
	l.endClient(l.parked[1].client)
	l.now = l.now.Add(s.cfg.DecisionTimeout + time.Second)
	l.sweep()
	if r := patient.mustAnswer("GET"); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || !strings.Contains(r.text, "Too many visitors") {
		t.Errorf("parked for too long: got %d %s", r.StatusCode, r.text)
	}
	for len(l.parked) < loopParks {
		l.parked = append(l.parked, &parked{client: &loopClient{}})
	}
	patient.send("%s", request("GET", "/", ""))
	eventually(t, "it is answered", func() bool { busy(); return patient.has() })
	if r := patient.mustAnswer("GET"); r.StatusCode != 503 {
		t.Errorf("one too many: got %d", r.StatusCode)
	}
	patient.send("%s", request("GET", "/queue.html", ""))
	eventually(t, "it is answered", func() bool { busy(); return patient.has() })
	if r := patient.mustAnswer("GET"); r.StatusCode != 200 {
		t.Errorf("one too many, the waiting page: got %d", r.StatusCode)
	}
	_, inLine := room.queued(t)
	patient.send("%s", request("GET", "/wr_check", "", "Cookie: "+inLine))
	eventually(t, "who has a place is answered", func() bool { busy(); return patient.has() })
	if r := patient.mustAnswer("GET"); r.StatusCode != 200 || !strings.Contains(r.text, `"position":1`) {
		t.Errorf("one too many, who has a place: got %d %s", r.StatusCode, r.text)
	}
	l.turn(0)
	for len(l.parked) > 0 {
		l.turn(0)
	}
	patient.send("%s", request("GET", "/", ""))
	eventually(t, "it is answered", func() bool { l.turn(0); return patient.has() })
	if r := patient.mustAnswer("GET"); r.StatusCode != 302 {
		t.Errorf("after that: got %d", r.StatusCode)
	}
}

// Who comes for its first page after a poll has a slot: it does not wait behind those who have none.
func TestLoopParksNobodyWhoHoldsASlot(t *testing.T) {
	room := newRoom(t, 10)
	token, cookie := room.queued(t)
	room.set(token, queue.View{State: queue.Active, Reserved: true, Ticket: 1, Seen: room.now, Deadline: room.now + 60_000})
	s := serve(t, room, newSite(t, nil).URL, withoutLoops)
	l := heldLoop(t, s)
	l.now = time.Now()
	visitor := comes(t, s, l)
	visitor.send("%s", request("GET", "/", "", "Cookie: "+cookie))
	var got []queue.Command
	eventually(t, "its page is asked for", func() bool {
		l.budget = 0
		l.attend()
		got = append(got, room.commands()...)
		return len(got) > 0 || len(l.parked) > 0
	})
	if !sameKinds(got, kinds(queue.KindClaim)) || len(l.parked) > 0 {
		t.Errorf("submitted %v, and %d are parked", got, len(l.parked))
	}
	eventually(t, "it is answered", func() bool { l.turn(0); return visitor.has() })
	if r := visitor.mustAnswer("GET"); r.StatusCode != 200 {
		t.Errorf("got %d", r.StatusCode)
	}
}

// When the lobby has been waiting for long, a share of those who are new is told to come later.
func TestLobbyShedsNewcomers(t *testing.T) {
	room := newRoom(t, 1)
	room.active(t)
	s := serve(t, room, newSite(t, nil).URL, nil)
	s.crowd.share.Store(shedMost)
	turnedAway := 0
	for range 50 {
		if r := s.ask("GET", "/"); r.StatusCode == 503 && r.ours() == "" && r.Header.Get("Retry-After") != "" {
			turnedAway++
		}
	}
	if turnedAway < 10 { // 45 are to be expected to begin with, and fewer as time goes on
		t.Errorf("%d of 50 newcomers were turned away", turnedAway)
	}
	s.crowd.share.Store(100)
	_, waiting := room.queued(t)
	if r := s.ask("GET", "/wr_check", "Cookie: "+waiting); r.StatusCode != 200 {
		t.Errorf("who has a place: got %d", r.StatusCode)
	}
}

// Without a descriptor for the next connection a loop stops asking for one, and asks again after a while.
func TestLoopAcceptsAgain(t *testing.T) {
	log := &lockedBuffer{}
	server, err := New(Config{Room: newRoom(t, 1), Backend: mustURL(t, "http://127.0.0.1:1"), Logger: textLogger(log)})
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{Server: server, t: t, log: log}
	l := heldLoop(t, s)
	s.loops = append(s.loops, l)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	fd, err := dupOf(listener.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	s.work.Add(1)
	l.listen(fd)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	l.swept = time.Now()
	l.turn(1000)
	deaf := l.deaf
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if !deaf || !strings.Contains(s.log.String(), "cannot accept connections") {
		t.Errorf("deaf %v, log:\n%s", deaf, s.log)
	}
	eventually(t, "the connection is accepted", func() bool { l.turn(0); return len(l.idle) == 1 })
}
