package proxy

import (
	"crypto/sha256"
	"encoding/json"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// solve does the work that a challenge asks for.
func solve(challenge string, bits int) string {
	for n := 0; ; n++ {
		if text := challenge + "." + strconv.Itoa(n); zeroBits(sha256.Sum256([]byte(text))) >= bits {
			return text
		}
	}
}

// A polled is what /wr_check says.
type polled struct {
	Status     string
	Position   int
	RetryAfter int `json:"retry_after"`
	Pow        *struct {
		Challenge  string
		Bits, Wait int
	}
}

func (s *stand) poll(query string, lines ...string) (reply, polled) {
	s.t.Helper()
	r := s.ask("GET", "/wr_check"+query, lines...)
	ownAnswer(s.t.(*testing.T), r)
	var p polled
	if r.StatusCode == 200 {
		if err := json.Unmarshal([]byte(r.text), &p); err != nil {
			s.t.Fatalf("%q: %v", r.text, err)
		}
	}
	return r, p
}

// powStand is a full room whose newcomers have to work, behind a proxy that is believed.
func powStand(t *testing.T, change func(*Config)) *stand {
	t.Helper()
	room := newRoom(t, 1)
	room.active(t)
	return serve(t, room, newSite(t, nil).URL, func(c *Config) {
		c.Pow, c.PowBits, c.TrustedProxies = true, 10, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		if change != nil {
			change(c)
		}
	})
}

const home = "X-Forwarded-For: 192.0.2.1"

// waiting is how many are in line.
func (r *fakeRoom) waiting() int { return r.Counts().Queued }

func TestAPlaceTakesWork(t *testing.T) {
	for name, change := range map[string]func(*Config){"loops": nil, "goroutines": withoutLoops} {
		t.Run(name, func(t *testing.T) {
			s := powStand(t, change)
			first := s.ask("GET", "/shop", home, "Accept: text/html")
			if first.StatusCode != 302 || first.Header.Get("Location") != "/queue.html?r=/shop&p=1" || first.ours() == "" {
				t.Fatalf("the first visit: %d %v", first.StatusCode, first.Header)
			}
			cookie := "Cookie: " + cookieOf(first)
			r, p := s.poll("?r=/shop&p=1", home, cookie)
			if p.Status != "waiting" || p.Position != 1 || r.Header.Get("Retry-After") == "" || p.Pow == nil || p.Pow.Bits != 10 || p.Pow.Wait != 30 || r.ours() != "" {
				t.Fatalf("the first poll: %d %s, cookie %q", r.StatusCode, r.text, r.ours())
			}
			for _, lines := range [][]string{{"Accept: text/html"}, {"Accept: application/json"}} { // no other request takes a place either
				if r := s.ask("GET", "/shop", append(lines, home, cookie)...); r.StatusCode != 302 && r.StatusCode != 429 || r.Header.Get("X-Origin") != "" {
					t.Errorf("%q: got %d", lines, r.StatusCode)
				}
			}
			if n, c := s.room.waiting(), s.room.commands(); n != 0 || len(c) != 0 {
				t.Fatalf("%d are in line before the work is done; submitted %v", n, c)
			}
			solution := solve(p.Pow.Challenge, p.Pow.Bits)
			r, p = s.poll("?r=/shop&p=1&pow="+solution, home, cookie)
			if p.Status != "waiting" || p.Position != 1 || p.Pow != nil || s.room.waiting() != 1 {
				t.Fatalf("with the solution: %d %s, %d in line", r.StatusCode, r.text, s.room.waiting())
			}
			for range 2 { // again it is harmless
				if _, p = s.poll("?pow="+solution, home, "Cookie: "+cookieOf(r)); p.Position != 1 || p.Pow != nil || s.room.waiting() != 1 {
					t.Errorf("again: %+v, %d in line", p, s.room.waiting())
				}
			}
			if got := testutil.ToFloat64(s.pow.solved); got != 1 {
				t.Errorf("solved: got %v", got)
			}
		})
	}
}

// W43: each of these gets no place, and the next challenge.
func TestSolutionsThatAreNone(t *testing.T) {
	s := powStand(t, nil)
	named := func() (string, polled) {
		r := s.ask("GET", "/shop", home)
		cookie := "Cookie: " + cookieOf(r)
		_, p := s.poll("", home, cookie)
		return cookie, p
	}
	mine, p := named()
	_, other := named()
	token, _, _ := ParseCookie([]byte(strings.TrimPrefix(mine, "Cookie: wr_token=")))
	keys, now, client := s.room.Keys(), s.room.Now(), netip.MustParseAddr("192.0.2.1")
	good := solve(p.Pow.Challenge, p.Pow.Bits)
	challenge, nonce, _ := strings.Cut(good, ".")
	at := func(when time.Duration) string {
		return string(s.pow.challenge(keys[0], token, client, now+when.Milliseconds()))
	}
	easy := &pow{bits: 0}
	wrongNonce := 0
	for zeroBits(sha256.Sum256([]byte(challenge+"."+strconv.Itoa(wrongNonce)))) >= 10 {
		wrongNonce++
	}
	for name, solution := range map[string]string{
		"a wrong nonce":                 challenge + "." + strconv.Itoa(wrongNonce),
		"another's solution":            solve(other.Pow.Challenge, 10),
		"too old":                       solve(at(-workFor-time.Second), 10),
		"from the future":               solve(at(powSkew+2*time.Second), 10),
		"less work, as the client says": solve(string(easy.challenge(keys[0], token, client, now)), 0),
		"less work, claimed":            flipBits(challenge) + ".0",
		"another cluster's":             solve(string(s.pow.challenge(seal.NewKey(keys[0].ID), token, client, now)), 10),
		"a key that is gone":            solve(string(s.pow.challenge(seal.NewKey(9), token, client, now)), 10),
		"nothing":                       "",
		"no nonce":                      challenge + ".",
		"a nonce that is no number":     challenge + ".x" + nonce,
		"a long nonce":                  challenge + "." + strings.Repeat("1", maxNonce+1),
		"no challenge":                  "." + nonce,
		"not base64":                    strings.Repeat("*", challengeLen) + "." + nonce,
		"long":                          strings.Repeat("A", 4000) + "." + nonce,
	} {
		r, p := s.poll("?pow="+solution, home, mine)
		if p.Status != "waiting" || p.Pow == nil {
			t.Errorf("%s: got %d %s", name, r.StatusCode, r.text)
		}
	}
	if r, p := s.poll("?pow="+good, "X-Forwarded-For: 198.51.100.1", mine); p.Pow == nil {
		t.Errorf("from another network: got %d %s", r.StatusCode, r.text)
	}
	if r := s.ask("GET", "/shop?pow="+good, home, mine); r.StatusCode != 302 {
		t.Errorf("on a path of the site: got %d", r.StatusCode)
	}
	if _, p := s.poll("?pow="+good, home); p.Pow == nil {
		t.Errorf("without the cookie: %+v", p)
	}
	if n, c := s.room.waiting(), s.room.commands(); n != 0 || len(c) != 0 {
		t.Errorf("%d are in line; submitted %v", n, c)
	}
	if got := testutil.ToFloat64(s.pow.failed); got != 16 {
		t.Errorf("refused: got %v, want 16", got)
	}
	if _, p := s.poll("?pow="+good, "X-Forwarded-For: 192.0.2.99", mine); p.Pow != nil || s.room.waiting() != 1 {
		t.Errorf("the solution itself, from the next address: %+v, %d in line", p, s.room.waiting())
	}
}

// flipBits changes the number of bits that a challenge names.
func flipBits(challenge string) string { return challenge[:2] + "A" + challenge[3:] }

// Who sends nonsense is not looked at any more for a while; others are.
func TestWrongSolutionsAreLimited(t *testing.T) {
	s := powStand(t, nil)
	r := s.ask("GET", "/shop", home)
	cookie := "Cookie: " + cookieOf(r)
	_, p := s.poll("", home, cookie)
	for range wrongPerMinute {
		s.poll("?pow=x", home, cookie)
	}
	good := solve(p.Pow.Challenge, p.Pow.Bits)
	if _, p := s.poll("?pow="+good, home, cookie); p.Pow == nil {
		t.Error("a solution is looked at")
	}
	s.room.advance(time.Minute + time.Second)
	if _, p := s.poll("?pow="+good, home, cookie); p.Pow != nil {
		t.Error("a minute later it is not")
	}
	if got := testutil.ToFloat64(s.pow.failed); got != wrongPerMinute {
		t.Errorf("refused: got %v, want %v", got, wrongPerMinute)
	}
}

// Without work it takes patience: any request with the cookie will do, and so a browser without scripts gets in line.
func TestAPlaceTakesPatience(t *testing.T) {
	s := powStand(t, nil)
	first := s.ask("GET", "/shop", home, "Accept: text/html")
	cookie := "Cookie: " + cookieOf(first)
	for i, step := range []time.Duration{10 * time.Second, 19 * time.Second} {
		s.room.advance(step)
		r, p := s.poll("", home, cookie)
		if want := []int{20, 1}[i]; p.Pow == nil || p.Pow.Wait != want || p.RetryAfter > want || r.ours() != "" {
			t.Errorf("got %s, cookie %q", r.text, r.ours())
		}
	}
	s.room.advance(time.Second)
	if r := s.ask("GET", "/shop", home, cookie, "Accept: text/html"); r.StatusCode != 302 || r.ours() == "" || s.room.waiting() != 1 {
		t.Errorf("after the wait: got %d, %d in line", r.StatusCode, s.room.waiting())
	}
	if got := testutil.ToFloat64(s.pow.waited); got != 1 {
		t.Errorf("waited: got %v", got)
	}
	// A cookie kept for later begins to wait when it is shown.
	old := s.ask("GET", "/shop", home, "Accept: text/html")
	s.room.advance(30*time.Second + patienceFor + time.Second)
	r, p := s.poll("", home, "Cookie: "+cookieOf(old))
	if p.Pow == nil || p.Pow.Wait != 30 || r.ours() == "" || r.ours()[:36] != old.ours()[:36] || s.room.waiting() != 1 {
		t.Errorf("a cookie of long ago: %s, %q, %d in line", r.text, r.ours(), s.room.waiting())
	}
	s.room.advance(31 * time.Second)
	if _, p := s.poll("", home, "Cookie: "+cookieOf(r)); p.Pow != nil || s.room.waiting() != 2 {
		t.Errorf("after its wait: %+v, %d in line", p, s.room.waiting())
	}
}

func TestPatienceOfOneAddressIsLimited(t *testing.T) {
	s := powStand(t, nil)
	s.pow.slow.now = func() int64 { return 0 }
	var cookies []string
	for range slowPerMinute + 3 {
		cookies = append(cookies, "Cookie: "+cookieOf(s.ask("GET", "/", home)))
	}
	s.room.advance(31 * time.Second)
	for _, c := range cookies {
		s.poll("", home, c)
	}
	if got := s.room.waiting(); got != slowPerMinute {
		t.Errorf("%d of one address are in line, want %d", got, slowPerMinute)
	}
	if _, p := s.poll("", "X-Forwarded-For: 198.51.100.9", cookies[len(cookies)-1]); p.Pow != nil {
		t.Error("another address waits for the first")
	}
}

// Work is for a place in line alone.
func TestWhoNeedsNoWork(t *testing.T) {
	s := powStand(t, nil)
	_, inside := s.room.active(t)
	queued, inLine := s.room.queued(t)
	s.room.do(func(r *fakeRoom) { r.limits.MaxActive = 2 })
	if r := s.ask("GET", "/", home, "Cookie: "+inside); r.StatusCode != 200 {
		t.Errorf("inside: got %d", r.StatusCode)
	}
	if _, p := s.poll("", home, "Cookie: "+inLine); p.Position != 1 || p.Pow != nil {
		t.Errorf("in line: %+v", p)
	}
	s.room.set(queued, queue.View{State: queue.Absent, Ticket: 1, Position: 1})
	if _, p := s.poll("", home, "Cookie: "+inLine); p.Position != 1 || p.Pow != nil {
		t.Errorf("absent: %+v", p)
	}
	s.room.set(queued, queue.View{State: queue.Released, Ticket: 1})
	if r, _ := s.poll("", home, "Cookie: "+inLine); r.StatusCode != 302 {
		t.Errorf("released: got %d", r.StatusCode)
	}
	// A slot is free: for a first visit, and for one with a cookie, which asks for a slot and never for a place.
	s.room.do(func(r *fakeRoom) { r.limits.MaxActive = 10 })
	if r := s.ask("GET", "/", home); r.StatusCode != 200 {
		t.Errorf("a free slot, a first visit: got %d", r.StatusCode)
	}
	s.room.commands()
	back := newToken()
	if r := s.ask("GET", "/", home, "Cookie: "+s.room.cookie(back, 0)); r.StatusCode != 200 || !strings.HasPrefix(r.ours(), text(back)) {
		t.Errorf("a free slot, with a cookie: got %d %q", r.StatusCode, r.ours())
	}
	if got := s.room.commands(); !sameKinds(got, kinds(queue.KindEnter)) {
		t.Errorf("submitted %v", got)
	}
	truth := true
	s.room.do(func(r *fakeRoom) { r.limits.MaxActive, r.hasRoom = 0, &truth }) // this replica is a moment behind
	for name, change := range map[string]func(*Config){"loops": nil, "goroutines": withoutLoops} {
		s := serve(t, s.room, newSite(t, nil).URL, func(c *Config) {
			c.Pow, c.PowBits = true, 10
			if change != nil {
				change(c)
			}
		})
		token := newToken()
		r, p := s.poll("", "Cookie: "+s.room.cookie(token, 0))
		if p.Pow == nil || !strings.HasPrefix(r.ours(), text(token)) || s.room.waiting() != 0 {
			t.Errorf("%s: a slot that was free: %s, cookie %q, %d in line", name, r.text, r.ours(), s.room.waiting())
		}
	}
}

// Nor does it take work or patience, which would be for nothing: they count when there is a place.
func TestAFullLineAsksForNoWork(t *testing.T) {
	for name, change := range map[string]func(*Config){"loops": nil, "goroutines": withoutLoops} {
		s := powStand(t, change)
		first := s.ask("GET", "/", home)
		_, p := s.poll("", home, "Cookie: "+cookieOf(first))
		solution := "?pow=" + solve(p.Pow.Challenge, p.Pow.Bits)
		token, _ := s.room.queued(t)
		s.room.do(func(r *fakeRoom) { r.limits.QueueMax = 1 })
		s.room.advance(s.pow.wait + time.Second)
		for range slowPerMinute + 1 {
			for _, query := range []string{"", solution} {
				r := s.ask("GET", "/wr_check"+query, home, "Cookie: "+cookieOf(first))
				if r.StatusCode != 503 || !strings.Contains(r.text, `"full"`) || strings.Contains(r.text, "pow") {
					t.Fatalf("%s: got %d %s", name, r.StatusCode, r.text)
				}
			}
		}
		if c := s.room.commands(); len(c) > 0 {
			t.Errorf("%s: submitted %v", name, c)
		}
		if solved, waited := testutil.ToFloat64(s.pow.solved), testutil.ToFloat64(s.pow.waited); solved+waited > 0 {
			t.Errorf("%s: %v solved and %v waited for nothing", name, solved, waited)
		}
		s.room.set(token, queue.View{})
		if _, p := s.poll("", home, "Cookie: "+cookieOf(first)); p.Pow != nil || s.room.waiting() != 1 || testutil.ToFloat64(s.pow.waited) != 1 {
			t.Errorf("%s: with a place free: %+v, %d in line", name, p, s.room.waiting())
		}
	}
}

// Which addresses share a cell is another matter in each process.
func TestWrongCellsCannotBeGuessed(t *testing.T) {
	var both [2]*wrongs
	for i := range both {
		s, err := New(Config{Room: newRoom(t, 1), Backend: mustURL(t, "http://127.0.0.1:1"), Pow: true})
		if err != nil {
			t.Fatal(err)
		}
		both[i] = &s.pow.wrong
	}
	same := 0
	for i := range 64 {
		a := netip.AddrFrom4([4]byte{192, 0, byte(i), 1})
		at := func(w *wrongs) uintptr { return uintptr(unsafe.Pointer(w.cell(a))) - uintptr(unsafe.Pointer(&w.cells)) }
		if at(both[0]) == at(both[1]) {
			same++
		}
		if both[0].cell(a) != both[0].cell(a.Next()) {
			t.Errorf("%v and the next one are two", a)
		}
	}
	if same > 8 {
		t.Errorf("%d of 64 addresses have the same cell in two processes", same)
	}
}

// With both settings on a newcomer's cookie says both.
func TestWorkAndBinding(t *testing.T) {
	s := powStand(t, func(c *Config) { c.Bind = BindIP })
	first := s.ask("GET", "/", home)
	wide, ok := readWide([]byte(first.ours()))
	if !ok || wide.bound != bindAddress || int64(wide.issued) != s.room.Now()/1000 {
		t.Fatalf("got %+v %v", wide, ok)
	}
	cookie := "Cookie: " + cookieOf(first)
	r, p := s.poll("", home, cookie)
	if p.Pow == nil || r.ours() != "" {
		t.Fatalf("got %s, cookie %q", r.text, r.ours())
	}
	r, p = s.poll("?pow="+solve(p.Pow.Challenge, p.Pow.Bits), home, cookie)
	if wide, ok := readWide([]byte(r.ours())); p.Pow != nil || !ok || wide.bound != bindAddress || wide.issued != 0 {
		t.Errorf("got %s and %+v", r.text, wide)
	}
}

// The script finds the first nonce that there is, so its SHA-256 is the right one.
func TestScriptSolvesAChallenge(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is missing")
	}
	s := powStand(t, nil)
	challenge := string(s.pow.challenge(s.room.Keys()[0], newToken(), netip.MustParseAddr("192.0.2.1"), s.room.Now()))
	script := "var window = globalThis; window.Worker = undefined;\n" + string(powScript) +
		"window.owrWork(" + strconv.Quote(challenge) + ", 13, function (share) { if (!(share > 0 && share < 1)) { throw share; } }, console.log);"
	out, err := exec.CommandContext(t.Context(), node, "-e", script).CombinedOutput()
	if got, want := strings.TrimSpace(string(out)), solve(challenge, 13); err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestPageThatWorks(t *testing.T) {
	s := powStand(t, nil)
	r := s.ask("GET", "/queue.html?r=/x")
	policy := r.Header.Get("Content-Security-Policy")
	for rest, n := []byte(r.text), 0; ; n++ {
		script, _, after, ok := nextElementOf(rest, "script")
		if !ok {
			if n != 2 {
				t.Errorf("%d scripts", n)
			}
			break
		}
		if rest = after; !strings.Contains(policy, sourceHash(script)) {
			t.Errorf("script %d is not in %q", n, policy)
		}
	}
	for _, want := range []string{"owrWork", "Scripts are off", "about 30 seconds"} {
		if !strings.Contains(r.text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if !strings.Contains(policy, "; worker-src blob:") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy: %q", policy)
	}
	off := serve(t, s.room, newSite(t, nil).URL, nil).ask("GET", "/queue.html?r=/x")
	if strings.Contains(off.Header.Get("Content-Security-Policy"), "worker-src") || strings.Contains(off.text, "window.owrWork = ") || strings.Contains(off.text, "Scripts are off") {
		t.Error("the page works though nobody asks it to")
	}
}

// RELIABILITY asks for less than 50 µs.
func BenchmarkVerify(b *testing.B) {
	p := &pow{bits: 18, wait: time.Minute}
	keys, token, client, now := seal.Ring{seal.NewKey(2), seal.NewKey(1)}, newToken(), netip.MustParseAddr("192.0.2.1"), int64(1_700_000_000_000)
	good := []byte(solve(string(p.challenge(keys[1], token, client, now)), 18))
	b.ReportAllocs()
	for b.Loop() {
		if !p.verify(good, keys, token, client, now) {
			b.Fatal("the solution is refused")
		}
	}
}
