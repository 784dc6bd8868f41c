package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// A gateCase is one visitor and what three requests of it are told: a navigation, a script's
// request, and a poll.
type gateCase struct {
	name string
	// prepare sets the room up and returns the Cookie line, or "".
	prepare  func(t *testing.T, r *fakeRoom) string
	outcome  outcome
	position int
	tell     bool         // a cookie is set
	kinds    []queue.Kind // what is submitted for one request
	poll     []queue.Kind // the same for a poll; nil: as for the others
	touch    bool         // the request is noted as one of a visitor inside
	asked    bool         // it is noted as one of a visitor outside
	reserved bool         // a poll is noted as asked, and not as a touch
	unsaid   bool         // nothing can be said of the visitor, which may be inside: no redirect to the line
}

func kinds(k ...queue.Kind) []queue.Kind { return append([]queue.Kind{}, k...) }

var gateCases = []gateCase{
	{name: "active", prepare: func(t *testing.T, r *fakeRoom) string {
		_, c := r.active(t)
		return c
	}, outcome: letIn},
	{name: "active, worth a touch", prepare: func(t *testing.T, r *fakeRoom) string {
		_, c := r.active(t)
		r.advance(1500 * time.Millisecond)
		return c
	}, outcome: letIn, touch: true},
	{name: "active, without a proof", prepare: func(t *testing.T, r *fakeRoom) string {
		token, _ := r.active(t)
		return "wr_token=" + text(token)
	}, outcome: letIn, tell: true},
	{name: "active, proof under a key that is gone", prepare: func(t *testing.T, r *fakeRoom) string {
		token, _ := r.active(t)
		return "wr_token=" + string(AppendCookie(nil, token, seal.NewKey(9), 5))
	}, outcome: letIn, tell: true},
	{name: "active, past its deadline", prepare: func(t *testing.T, r *fakeRoom) string {
		_, c := r.active(t)
		r.advance(time.Minute)
		return c
	}, outcome: letIn, kinds: kinds(queue.KindArrive), poll: kinds(queue.KindAsk), asked: true},
	{name: "active past its deadline, and the cluster cannot say", prepare: func(t *testing.T, r *fakeRoom) string {
		_, c := r.active(t)
		r.advance(time.Minute)
		r.submitErr = errNoQuorum
		return c
	}, outcome: failed, kinds: kinds(queue.KindArrive), poll: kinds(queue.KindAsk), asked: true},
	{name: "queued", prepare: func(t *testing.T, r *fakeRoom) string {
		r.queued(t)
		_, c := r.queued(t)
		return c
	}, outcome: waits, position: 2, asked: true},
	{name: "queued, without a proof", prepare: func(t *testing.T, r *fakeRoom) string {
		token, _ := r.queued(t)
		return "wr_token=" + text(token)
	}, outcome: waits, position: 1, tell: true, asked: true},
	{name: "queued, with a forged proof", prepare: func(t *testing.T, r *fakeRoom) string {
		_, c := r.queued(t)
		return flip(c, len(c)-5)
	}, outcome: waits, position: 1, tell: true, asked: true},
	{name: "queued, and the cluster cannot say", prepare: func(t *testing.T, r *fakeRoom) string {
		_, c := r.queued(t)
		r.submitErr = errNoQuorum
		return c
	}, outcome: waits, position: 1, asked: true},
	{name: "queued, with a proof under the older key", prepare: func(t *testing.T, r *fakeRoom) string {
		token, _ := r.queued(t)
		return r.older(token)
	}, outcome: waits, position: 1, tell: true, asked: true},
	{name: "inside, with a proof under the older key", prepare: func(t *testing.T, r *fakeRoom) string {
		token, _ := r.active(t)
		return r.older(token)
	}, outcome: letIn, tell: true},
	{name: "inside, and the newer key does not sign yet", prepare: func(t *testing.T, r *fakeRoom) string {
		token, _ := r.active(t)
		r.keys[0].Made = r.now
		return r.older(token)
	}, outcome: letIn},
	{name: "inside, and under the newer key before it signs here", prepare: func(t *testing.T, r *fakeRoom) string {
		_, c := r.active(t)
		r.keys[0].Made = r.now
		return c
	}, outcome: letIn},
	{name: "inside, with a proof under a key that was removed", prepare: func(t *testing.T, r *fakeRoom) string {
		token, _ := r.active(t)
		c := r.older(token)
		r.keys = r.keys[:1]
		return c
	}, outcome: letIn, tell: true},
	{name: "queued, with a proof under a key that was removed", prepare: func(t *testing.T, r *fakeRoom) string {
		token, _ := r.queued(t)
		c := r.older(token)
		r.keys = r.keys[:1]
		return c
	}, outcome: waits, position: 1, tell: true, asked: true},
	{name: "unknown, with a proof under a key that was removed: a first visit", prepare: func(t *testing.T, r *fakeRoom) string {
		c := r.older(newToken())
		r.keys = r.keys[:1]
		return c
	}, outcome: letIn, tell: true, kinds: kinds(queue.KindEnter)},
	{name: "unknown, under a key that this node does not hold, and there is no majority: it keeps its cookie", prepare: func(t *testing.T, r *fakeRoom) string {
		c := r.older(newToken())
		r.keys, r.noQuorum, r.submitErr = r.keys[:1], true, errNoQuorum
		return c
	}, outcome: failed, unsaid: true},
	{name: "unconfirmed, and back", prepare: func(t *testing.T, r *fakeRoom) string {
		token := newToken()
		r.set(token, queue.View{State: queue.Active, Ticket: 7, Deadline: r.now + 20_000})
		return r.cookie(token, 50)
	}, outcome: letIn, touch: true},
	{name: "unconfirmed, and back too late for this node's word", prepare: func(t *testing.T, r *fakeRoom) string {
		token := newToken()
		r.set(token, queue.View{State: queue.Active, Ticket: 7, Deadline: r.now})
		return r.cookie(token, 50)
	}, outcome: letIn, kinds: kinds(queue.KindArrive), poll: kinds(queue.KindAsk), asked: true},
	{name: "absent", prepare: func(t *testing.T, r *fakeRoom) string {
		token, c := r.queued(t)
		r.set(token, queue.View{State: queue.Absent, Ticket: 1, Position: 1})
		return c
	}, outcome: waits, position: 1, kinds: kinds(queue.KindArrive), poll: kinds(queue.KindAsk), asked: true},
	{name: "absent, and the cluster cannot say", prepare: func(t *testing.T, r *fakeRoom) string {
		token, c := r.queued(t)
		r.set(token, queue.View{State: queue.Absent, Ticket: 1, Position: 1})
		r.submitErr = errNoQuorum
		return c
	}, outcome: waits, position: 1, kinds: kinds(queue.KindArrive), poll: kinds(queue.KindAsk), asked: true},
	{name: "absent, and it is its turn", prepare: func(t *testing.T, r *fakeRoom) string {
		token, c := r.queued(t)
		r.set(token, queue.View{State: queue.Absent, Ticket: 1, Position: 1})
		r.turn = token
		return c
	}, outcome: letIn, tell: true, kinds: kinds(queue.KindArrive), poll: kinds(queue.KindAsk, queue.KindReserve), asked: true},
	{name: "reserved by a poll", prepare: func(t *testing.T, r *fakeRoom) string {
		token, c := r.queued(t)
		r.set(token, queue.View{State: queue.Active, Reserved: true, Ticket: 1, Seen: r.now, Deadline: r.now + 60_000})
		return c
	}, outcome: letIn, kinds: kinds(queue.KindClaim), poll: kinds(), reserved: true},
	{name: "reserved by a poll, and the cluster cannot say", prepare: func(t *testing.T, r *fakeRoom) string {
		token, c := r.queued(t)
		r.set(token, queue.View{State: queue.Active, Reserved: true, Ticket: 1, Seen: r.now, Deadline: r.now + 60_000})
		r.submitErr = errNoQuorum
		return c
	}, outcome: letIn, kinds: kinds(queue.KindClaim), poll: kinds(), touch: true, reserved: true},
	{name: "reserved by a poll, told more than this node knows, and the cluster cannot say", prepare: func(t *testing.T, r *fakeRoom) string {
		token, _ := r.queued(t)
		r.set(token, queue.View{State: queue.Active, Reserved: true, Ticket: 1, Seen: r.now, Deadline: r.now + 60_000})
		r.submitErr = errNoQuorum
		return r.cookie(token, 500)
	}, outcome: letIn, kinds: kinds(queue.KindArrive), poll: kinds(), touch: true, reserved: true},
	{name: "reserved by a poll, past its deadline", prepare: func(t *testing.T, r *fakeRoom) string {
		token, c := r.queued(t)
		r.set(token, queue.View{State: queue.Active, Reserved: true, Ticket: 1, Seen: r.now, Deadline: r.now})
		return c
	}, outcome: letIn, kinds: kinds(queue.KindArrive), poll: kinds(queue.KindAsk), asked: true},
	{name: "released", prepare: func(t *testing.T, r *fakeRoom) string {
		token, c := r.queued(t)
		r.set(token, queue.View{State: queue.Released, Ticket: 1})
		return c
	}, outcome: letIn, tell: true, kinds: kinds(queue.KindClaim), poll: kinds(queue.KindReserve)},
	{name: "released, and the cluster cannot say", prepare: func(t *testing.T, r *fakeRoom) string {
		token, c := r.queued(t)
		r.set(token, queue.View{State: queue.Released, Ticket: 1})
		r.submitErr = errNoQuorum
		return c
	}, outcome: failed, kinds: kinds(queue.KindClaim), poll: kinds(queue.KindReserve)},
	{name: "unknown with a good proof, and a slot is free", prepare: func(t *testing.T, r *fakeRoom) string {
		return r.cookie(newToken(), 0)
	}, outcome: letIn, tell: true, kinds: kinds(queue.KindArrive)},
	{name: "unknown with a good proof", prepare: func(t *testing.T, r *fakeRoom) string {
		r.limits.MaxActive = 0
		r.queued(t)
		return r.cookie(newToken(), 0)
	}, outcome: waits, position: 2, tell: true, kinds: kinds(queue.KindArrive)},
	{name: "unknown with a proof under the older key", prepare: func(t *testing.T, r *fakeRoom) string {
		r.limits.MaxActive = 0
		return "wr_token=" + string(AppendCookie(nil, newToken(), r.keys[1], 0))
	}, outcome: waits, position: 1, tell: true, kinds: kinds(queue.KindArrive)},
	{name: "unknown with a good proof, and the line is full", prepare: func(t *testing.T, r *fakeRoom) string {
		r.limits.MaxActive, r.limits.QueueMax = 0, 1
		r.queued(t)
		return r.cookie(newToken(), 0)
	}, outcome: full},
	{name: "unknown with a good proof, and the line is full, which this node does not know", prepare: func(t *testing.T, r *fakeRoom) string {
		yes := true
		r.limits.MaxActive, r.limits.QueueMax, r.hasRoom = 0, 1, &yes
		r.queued(t)
		return r.cookie(newToken(), 0)
	}, outcome: full, kinds: kinds(queue.KindArrive)},
	{name: "unknown with a good proof, and the line has room for one", prepare: func(t *testing.T, r *fakeRoom) string {
		r.limits.MaxActive, r.limits.QueueMax = 0, 2
		r.queued(t)
		return r.cookie(newToken(), 0)
	}, outcome: waits, position: 2, tell: true, kinds: kinds(queue.KindArrive)},
	{name: "unknown with a good proof, and the cluster cannot say", prepare: func(t *testing.T, r *fakeRoom) string {
		r.submitErr = errNoQuorum
		return r.cookie(newToken(), 0)
	}, outcome: failed, kinds: kinds(queue.KindArrive)},
	{name: "told something this node learns in a moment", prepare: func(t *testing.T, r *fakeRoom) string {
		token := newToken()
		r.behind[500] = func(r *fakeRoom) { r.admitLocked(token) }
		return r.cookie(token, 500)
	}, outcome: letIn, touch: true},
	{name: "told something this node does not learn in time", prepare: func(t *testing.T, r *fakeRoom) string {
		return r.cookie(newToken(), 500)
	}, outcome: letIn, tell: true, kinds: kinds(queue.KindArrive), poll: kinds(queue.KindAsk, queue.KindArrive)},
	{name: "waiting here, and told more than this node knows", prepare: func(t *testing.T, r *fakeRoom) string {
		token, _ := r.queued(t)
		r.submitErr = errNoQuorum
		return r.cookie(token, 500)
	}, outcome: failed, kinds: kinds(queue.KindArrive), poll: kinds(queue.KindAsk), unsaid: true},
	{name: "away by this node, which knows less than the visitor was told", prepare: func(t *testing.T, r *fakeRoom) string {
		token := newToken()
		r.set(token, queue.View{State: queue.Absent, Position: 7, Ticket: 7})
		r.submitErr = errNoQuorum
		return r.cookie(token, 500)
	}, outcome: failed, kinds: kinds(queue.KindArrive), poll: kinds(queue.KindAsk), unsaid: true},
	{
		name: "first visit, and a slot is free", prepare: func(t *testing.T, r *fakeRoom) string { return "" },
		outcome: letIn, tell: true, kinds: kinds(queue.KindEnter),
	},
	{name: "first visit, and no slot is free", prepare: func(t *testing.T, r *fakeRoom) string {
		r.limits.MaxActive = 0
		return ""
	}, outcome: waits, position: 1, tell: true},
	{name: "first visit, and somebody waits", prepare: func(t *testing.T, r *fakeRoom) string {
		r.queued(t)
		r.queued(t)
		return ""
	}, outcome: waits, position: 3, tell: true},
	{name: "first visit, and the free slot has just gone", prepare: func(t *testing.T, r *fakeRoom) string {
		yes := true
		r.limits.MaxActive, r.hasRoom = 0, &yes
		return ""
	}, outcome: waits, position: 1, tell: true, kinds: kinds(queue.KindEnter)},
	{name: "first visit, and the line is full", prepare: func(t *testing.T, r *fakeRoom) string {
		r.limits.MaxActive, r.limits.QueueMax = 0, 1
		r.queued(t)
		return ""
	}, outcome: full},
	{name: "first visit, and the cluster cannot say", prepare: func(t *testing.T, r *fakeRoom) string {
		r.submitErr = errNoQuorum
		return ""
	}, outcome: failed, position: 1, tell: true, kinds: kinds(queue.KindEnter)},
	{name: "first visit before the first key", prepare: func(t *testing.T, r *fakeRoom) string {
		r.keys = nil
		return ""
	}, outcome: failed},
	{name: "a foreign id without a proof", prepare: func(t *testing.T, r *fakeRoom) string {
		r.limits.MaxActive = 0
		return "wr_token=" + text(newToken())
	}, outcome: waits, position: 1, tell: true},
	{name: "a foreign id with a forged proof", prepare: func(t *testing.T, r *fakeRoom) string {
		r.limits.MaxActive = 0
		return flip(r.cookie(newToken(), 0), 60)
	}, outcome: waits, position: 1, tell: true},
	{name: "another's proof", prepare: func(t *testing.T, r *fakeRoom) string {
		r.limits.MaxActive = 0
		return "wr_token=" + text(newToken()) + r.cookie(newToken(), 0)[len("wr_token=")+queue.TokenLen:]
	}, outcome: waits, position: 1, tell: true},
	{name: "two of ours: the first valid one counts", prepare: func(t *testing.T, r *fakeRoom) string {
		_, waiting := r.queued(t)
		_, active := r.active(t)
		return "wr_token=bad; wr_token=" + text(newToken()) + "; " + active + "; " + waiting
	}, outcome: letIn},
}

func text(t queue.Token) string { return string(t.AppendText(nil)) }

// flip changes one character of a cookie's proof.
func flip(cookie string, at int) string {
	c := byte('a')
	if cookie[at] == 'a' {
		c = 'b'
	}
	return cookie[:at] + string(c) + cookie[at+1:]
}

func TestGate(t *testing.T) {
	origin := newSite(t, nil)
	for _, c := range gateCases {
		for _, mode := range []string{ModeRedirect, ModeInline} {
			t.Run(mode+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				for _, request := range []string{"navigation", "script", "poll"} {
					room := newRoom(t, 10)
					cookie := c.prepare(t, room)
					s := serve(t, room, origin.URL, func(cfg *Config) { cfg.QueueMode = mode })
					var lines []string
					if cookie != "" {
						lines = append(lines, "Cookie: "+cookie)
					}
					var r reply
					switch request {
					case "navigation":
						r = s.ask("GET", "/shop?item=7", append(lines, "Accept: text/html")...)
					case "script":
						r = s.ask("GET", "/shop?item=7", append(lines, "Accept: application/json")...)
					case "poll":
						r = s.ask("GET", "/wr_check?r=%2Fshop%3Fitem%3D7", append(lines, "Accept: */*")...)
					}
					c.check(t, room, r, request, mode)
				}
			})
		}
	}
}

// What the cluster has said counts, though this replica does not show it yet and nobody can say what comes next.
func TestAReplicaDoesNotOverruleTheCluster(t *testing.T) {
	room := newRoom(t, 10)
	token, cookie := room.queued(t)
	room.set(token, queue.View{State: queue.Active, Reserved: true, Ticket: 1, Seen: room.now, Deadline: room.now + 60_000})
	room.gone = token
	s := serve(t, room, newSite(t, nil).URL, nil)
	r := s.ask("GET", "/shop", "Cookie: "+cookie, "Accept: application/json")
	if r.StatusCode == 200 || r.Header.Get("X-Origin") != "" {
		t.Errorf("a visitor that was taken out: %d from the origin", r.StatusCode)
	}
	if got := room.commands(); !sameKinds(got, kinds(queue.KindClaim, queue.KindArrive)) {
		t.Errorf("submitted %v", got)
	}
}

func (c gateCase) check(t *testing.T, room *fakeRoom, r reply, request, mode string) {
	t.Helper()
	if got := r.ours() != ""; got != c.tell {
		t.Errorf("%s: a cookie is set: got %v, want %v", request, got, c.tell)
	}
	want := c.kinds
	if request == "poll" && c.poll != nil {
		want = c.poll
	}
	if got := room.commands(); !sameKinds(got, want) {
		t.Errorf("%s: submitted %v, want %v", request, got, want)
	}
	asks := c.asked || request == "poll" && c.reserved
	if got := room.touches() > 0; got != (c.touch && !asks) {
		t.Errorf("%s: touched: got %v, want %v", request, got, c.touch && !asks)
	}
	if got := room.asks() > 0; got != asks {
		t.Errorf("%s: noted as asked: got %v, want %v", request, got, asks)
	}
	fromOrigin := r.Header.Get("X-Origin") == "1"
	if fromOrigin != (c.outcome == letIn && request != "poll") {
		t.Errorf("%s: from the origin: %v", request, fromOrigin)
	}
	if !fromOrigin {
		ownAnswer(t, r)
	}
	switch request {
	case "navigation":
		c.checkNavigation(t, room, r, mode)
	case "script":
		c.checkScript(t, r)
	case "poll":
		c.checkPoll(t, r)
	}
}

func sameKinds(got []queue.Command, want []queue.Kind) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i].Kind != want[i] {
			return false
		}
	}
	return true
}

// ownAnswer checks what every answer of owr's own has.
func ownAnswer(t *testing.T, r reply) {
	t.Helper()
	for name, want := range map[string]string{"Cache-Control": "no-store", "Vary": "Cookie", "X-Content-Type-Options": "nosniff"} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%d: %s: got %q, want %q", r.StatusCode, name, got, want)
		}
	}
	if r.Header.Get("Date") == "" {
		t.Errorf("%d: no Date", r.StatusCode)
	}
}

func (c gateCase) checkNavigation(t *testing.T, room *fakeRoom, r reply, mode string) {
	t.Helper()
	retry := r.Header.Get("Retry-After")
	switch {
	case c.outcome == letIn:
		if r.StatusCode != 200 {
			t.Errorf("navigation: got %d", r.StatusCode)
		}
	case c.outcome == full:
		if r.StatusCode != 503 || retry == "" || !strings.Contains(r.text, "line is full") {
			t.Errorf("navigation, full: got %d, Retry-After %q", r.StatusCode, retry)
		}
	case mode == ModeInline || len(room.Keys()) == 0 || c.unsaid:
		if r.StatusCode != 503 || retry == "" || !strings.Contains(r.text, "/wr_check") || r.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("navigation: want the page: got %d, Retry-After %q, %.60q", r.StatusCode, retry, r.text)
		}
		if want := ahead(c.position); !strings.Contains(r.text, want) {
			t.Errorf("navigation: the page does not say %q", want)
		}
	default:
		want := "/queue.html?r=/shop%3Fitem%3D7"
		if c.position > 0 {
			want += "&p=" + string(appendInt(nil, c.position))
		}
		if got := r.Header.Get("Location"); r.StatusCode != 302 || got != want {
			t.Errorf("navigation: got %d %q, want 302 %q", r.StatusCode, got, want)
		}
	}
}

func (c gateCase) checkScript(t *testing.T, r reply) {
	t.Helper()
	status := map[outcome]int{letIn: 200, waits: 429, full: 503, failed: 503}[c.outcome]
	if r.StatusCode != status {
		t.Errorf("script: got %d, want %d", r.StatusCode, status)
	}
	if c.outcome == letIn {
		return
	}
	var p problem
	if err := json.Unmarshal([]byte(r.text), &p); err != nil {
		t.Fatalf("script: %v in %q", err, r.text)
	}
	if r.Header.Get("Content-Type") != "application/problem+json" || p.Status != status || p.RetryAfter < 1 || p.Title != http.StatusText(status) || p.Type == "" {
		t.Errorf("script: got %q as %q", r.text, r.Header.Get("Content-Type"))
	}
	if r.Header.Get("Retry-After") != string(appendInt(nil, p.RetryAfter)) {
		t.Errorf("script: Retry-After %q, in the body %d", r.Header.Get("Retry-After"), p.RetryAfter)
	}
	if p.Position != c.position {
		t.Errorf("script: position: got %d, want %d", p.Position, c.position)
	}
}

func (c gateCase) checkPoll(t *testing.T, r reply) {
	t.Helper()
	if c.outcome == letIn {
		if got := r.Header.Get("Location"); r.StatusCode != 302 || got != "/shop?item=7" {
			t.Errorf("poll: got %d %q, want 302 /shop?item=7", r.StatusCode, got)
		}
		return
	}
	var p struct {
		Status   string `json:"status"`
		Position int    `json:"position"`
	}
	if err := json.Unmarshal([]byte(r.text), &p); err != nil {
		t.Fatalf("poll: %v in %q", err, r.text)
	}
	status := map[outcome]int{waits: 200, full: 503, failed: 503}[c.outcome]
	word := map[outcome]string{waits: "waiting", full: "full", failed: "error"}[c.outcome]
	if r.StatusCode != status || p.Status != word || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Retry-After") == "" {
		t.Errorf("poll: got %d %q, want %d %s", r.StatusCode, r.text, status, word)
	}
	if c.outcome == waits && p.Position != c.position {
		t.Errorf("poll: position: got %d, want %d", p.Position, c.position)
	}
}

// A visitor that is told something new can show at which index it was told, so that no other
// node takes it back (I6).
func TestNewCookieCarriesTheDecisionsIndex(t *testing.T) {
	room := newRoom(t, 0)
	s := serve(t, room, newSite(t, nil).URL, nil)
	first := s.ask("GET", "/wr_check").ours()
	if index, ok := CheckCookie([]byte(first), room.Keys()); !ok || index != 0 {
		t.Errorf("a first visit that is not stored: got index %d (%v), want 0", index, ok)
	}
	second := s.ask("GET", "/wr_check", "Cookie: wr_token="+first).ours()
	if index, ok := CheckCookie([]byte(second), room.Keys()); !ok || index != room.Applied() {
		t.Errorf("after the arrival: got index %d (%v), want %d", index, ok, room.Applied())
	}
	if first[:queue.TokenLen] != second[:queue.TokenLen] {
		t.Errorf("the visitor changed its name: %s, then %s", first, second)
	}
}

// The page of the original polls /wr_check without a query and goes where the redirect ends.
func TestOriginalPagesLogic(t *testing.T) {
	room := newRoom(t, 1)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.MainURL = "/welcome?a=1" })
	inside, _ := room.active(t)
	jar := "Cookie: wr_token=" + s.ask("GET", "/x", "Accept: text/html").ours()
	r := s.ask("GET", "/wr_check", jar)
	if r.StatusCode != 200 || !strings.Contains(r.text, `"position":1`) {
		t.Fatalf("the first poll: got %d %q", r.StatusCode, r.text)
	}
	jar = "Cookie: wr_token=" + r.ours()
	room.set(inside, queue.View{})
	room.do(func(r *fakeRoom) {
		for token, v := range r.views {
			if v.State == queue.Queued {
				r.views[token] = queue.View{State: queue.Released, Ticket: 1}
				r.line = nil
			}
		}
	})
	r = s.ask("GET", "/wr_check", jar)
	if r.StatusCode != 302 || r.Header.Get("Location") != "/welcome?a=1" {
		t.Fatalf("the poll in turn: got %d %q", r.StatusCode, r.Header.Get("Location"))
	}
	if r = s.ask("GET", r.Header.Get("Location"), jar); r.Header.Get("X-Origin") != "1" {
		t.Errorf("behind the redirect: got %d", r.StatusCode)
	}
}

func TestNavigation(t *testing.T) {
	for _, c := range []struct {
		method, accept string
		want           bool
	}{
		{"GET", "", true},
		{"GET", "text/html", true},
		{"GET", "*/*", true},
		{"HEAD", "text/html,application/xhtml+xml,*/*;q=0.8", true},
		{"GET", "TEXT/HTML;q=0.8", true},
		{"GET", "application/json", false},
		{"GET", "image/avif,image/webp", false},
		{"POST", "text/html", false},
		{"PUT", "*/*", false},
		{"DELETE", "", false},
		{"OPTIONS", "*/*", false},
		{"get", "", false},
	} {
		block := "Host: a\r\n"
		if c.accept != "" {
			block += "Accept: image/png\r\nAccept: " + c.accept + "\r\n"
		}
		var h head
		if r := h.read([]byte(c.method), []byte("/"), []byte("HTTP/1.1"), []byte(block+"\r\n")); r != nil {
			t.Fatal(r)
		}
		if got := h.navigation(); got != c.want {
			t.Errorf("%s with Accept %q: got %v, want %v", c.method, c.accept, got, c.want)
		}
	}
}

// A node that has just started knows no key, and then knows it: who is looked at before that and answered after it keeps its cookie. A new
// name would cost it its place.
func TestAKeyThatComesMeanwhile(t *testing.T) {
	room := newRoom(t, 0)
	s := serve(t, room, newSite(t, nil).URL, nil)
	s.ask("GET", pathHealth) // it serves
	token, cookie := room.queued(t)
	look := func() (caller, sender) {
		var h head
		if !laneParse([]byte(request("GET", pathCheck, "", "Cookie: "+cookie)), &h) {
			t.Fatal("not for the lane")
		}
		c := s.identify(h.fields, netip.Addr{})
		if !c.alien {
			t.Fatalf("got %+v", c)
		}
		return c, s.senderOf(netip.Addr{}, h.fields)
	}
	room.set(token, queue.View{}) // its log has not been read
	keys := room.Keys()
	room.do(func(r *fakeRoom) { r.keys = nil })
	early, from := look()
	room.do(func(r *fakeRoom) { r.keys = keys })
	unsaid := verdict{outcome: failed} // which is said where the visitor is, and gives it no cookie
	if v := s.settle(early, &from); v != unsaid {
		t.Errorf("the key came meanwhile: got %+v", v)
	}
	room.do(func(r *fakeRoom) { r.keys, r.ready = seal.Ring{seal.NewKey(9)}, errors.New("not yet") })
	c, from := look()
	if v := s.settle(c, &from); v != unsaid {
		t.Errorf("the node is not ready: got %+v", v)
	}
	room.do(func(r *fakeRoom) { r.ready = nil })
	if v := s.settle(c, &from); v.outcome != waits || v.token == token {
		t.Errorf("a key that is gone: got %+v", v)
	}
}
