package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

const (
	firefox    = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
	firefox2   = "Mozilla/5.0 (X11; Linux x86_64; rv:152.0) Gecko/20100101 Firefox/152.0"
	chromeLin  = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
	chromeWin  = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
	edge       = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0"
	safariMac  = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15"
	safariIOS  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1"
	chromeDroi = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"
)

func TestAgentsOfOneFamily(t *testing.T) {
	if agentOf([]byte(firefox)) != agentOf([]byte(firefox2)) || agentOf([]byte("app/1.2 x")) != agentOf([]byte("app/1.3 y")) {
		t.Error("an update makes another agent")
	}
	seen := map[uint64]string{}
	for _, agent := range []string{firefox, chromeLin, chromeWin, edge, safariMac, safariIOS, chromeDroi, "curl/8.5.0", "app/1.2", "", "Mozilla/5.0"} {
		n := agentOf([]byte(agent))
		if other, ok := seen[n]; ok {
			t.Errorf("%q and %q are the same agent", agent, other)
		}
		seen[n] = agent
	}
}

func TestAddressMarks(t *testing.T) {
	mark := func(a string) [addressMark]byte { return addressMarkOf(netip.MustParseAddr(a)) }
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.200", true},
		{"192.0.2.1", "192.0.3.1", false},
		{"2001:db8:1:2::3", "2001:db8:1:ffff::4", true},
		{"2001:db8:1::", "2001:db8:2::", false},
		{"32.1.13.184", "2001:db8::", false}, // the same bytes
	} {
		if got := mark(c.a) == mark(c.b); got != c.same {
			t.Errorf("%s and %s: the same: got %v, want %v", c.a, c.b, got, c.same)
		}
	}
}

func TestWideCookieRoundTrip(t *testing.T) {
	keys := seal.Ring{seal.NewKey(7), seal.NewKey(6)}
	rapid.Check(t, func(t *rapid.T) {
		want := wideProof{
			index: rapid.Uint64().Draw(t, "index"), issued: rapid.Uint32().Draw(t, "issued"), bound: bindMode(rapid.Uint8().Draw(t, "bound")),
			tie: [tieSize]byte(rapid.SliceOfN(rapid.Byte(), tieSize, tieSize).Draw(t, "tie")),
		}
		key := rapid.SampledFrom(keys).Draw(t, "key")
		want.key = key.ID
		token := newToken()
		value := appendWideCookie(nil, token, key, want)
		if len(value) != wideCookieSize || string(value[:queue.TokenLen]) != text(token) || len(value) > 128 {
			t.Fatalf("got %q", value)
		}
		if got, ok := checkWide(value, token, keys); !ok || got != want {
			t.Fatalf("got %+v %v, want %+v", got, ok, want)
		}
		if id, ok := keyOf(value); !ok || id != key.ID {
			t.Fatalf("keyOf: got %d %v", id, ok)
		}
		if index, ok := CheckCookie(value, keys); !ok || index != want.index {
			t.Fatalf("CheckCookie: got %d %v", index, ok)
		}
		at := rapid.IntRange(0, len(value)-1).Draw(t, "at")
		changed := []byte(flip(string(value), at))
		if _, ok := CheckCookie(changed, keys); ok {
			t.Fatalf("byte %d changed is taken", at)
		}
	})
}

// cookieOf is the pair that a browser sends after that answer.
func cookieOf(r reply) string { return "wr_token=" + r.ours() }

// bindStand is a room with one slot behind a proxy that is believed, so that a test may come from anywhere.
func bindStand(t *testing.T, bind string) *stand {
	t.Helper()
	room := newRoom(t, 1)
	return serve(t, room, newSite(t, nil).URL, func(c *Config) {
		c.Bind, c.TrustedProxies = bind, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
}

func place(from, agent string) []string {
	return []string{"X-Forwarded-For: " + from, "User-Agent: " + agent, "Accept: text/html"}
}

// A cookie is worth something where it was given, and nothing elsewhere. There it is a first visit, and the slot stays whose it is.
func TestBinding(t *testing.T) {
	const here, near, far = "192.0.2.1", "192.0.2.77", "198.51.100.1"
	for _, c := range []struct {
		bind, from, agent string
		taken             bool
	}{
		{"off", far, chromeWin, true},
		{"ip", here, firefox, true},
		{"ip", near, chromeWin, true},
		{"ip", far, firefox, false},
		{"ip", "2001:db8::1", firefox, false},
		{"ua", far, firefox2, true},
		{"ua", here, chromeLin, false},
		{"ua", here, "", false},
		{"ip+ua", near, firefox2, true},
		{"ip+ua", near, chromeWin, false},
		{"ip+ua", far, firefox, false},
	} {
		s := bindStand(t, c.bind)
		first := s.ask("GET", "/", place(here, firefox)...)
		if first.StatusCode != 200 || first.ours() == "" || !strings.Contains(first.Header.Get("Cache-Control"), "private") {
			t.Fatalf("%s: the first visit: %d %v", c.bind, first.StatusCode, first.Header)
		}
		for range 3 { // the lane and the loops alike
			r := s.ask("GET", "/", append(place(c.from, c.agent), "Cookie: "+cookieOf(first))...)
			if got := r.StatusCode == 200; got != c.taken {
				t.Errorf("%s from %s with %.20s: taken: got %v, want %v", c.bind, c.from, c.agent, got, c.taken)
			}
			if got := r.ours() == ""; got != c.taken {
				t.Errorf("%s from %s with %.20s: sets %q", c.bind, c.from, c.agent, r.ours())
			}
			if id := first.ours()[:36]; !c.taken && strings.Contains(r.ours(), id) {
				t.Errorf("%s: a stranger gets the visitor's id", c.bind)
			}
		}
		// Nothing that was done elsewhere has cost the visitor its slot.
		if r := s.ask("GET", "/", append(place(here, firefox), "Cookie: "+cookieOf(first))...); r.StatusCode != 200 || r.ours() != "" {
			t.Errorf("%s: the visitor itself: got %d", c.bind, r.StatusCode)
		}
		if s.bind != nil {
			want := 0.0
			if !c.taken {
				want = 3
			}
			if got := testutil.ToFloat64(s.bind.refused); got != want {
				t.Errorf("%s: refused: got %v, want %v", c.bind, got, want)
			}
		}
	}
}

// What a visitor has from before the setting was changed is good once more, and is written anew; nothing unproved is.
func TestCookiesFromBeforeTheBinding(t *testing.T) {
	const here, far = "192.0.2.1", "198.51.100.1"
	s := bindStand(t, "ip")
	token, plain := s.room.active(t)
	keys := s.room.Keys()
	m := markOf(bindAddress|bindAgent, nil, netip.MustParseAddr(here))
	for name, c := range map[string]struct {
		value        string
		taken, again bool
	}{
		"plain":                     {plain, true, true},
		"plain, under the old key":  {"wr_token=" + string(AppendCookie(nil, token, keys[1], 5)), true, true},
		"plain, forged":             {flip(plain, len(plain)-3), false, true},
		"plain, a key that is gone": {"wr_token=" + string(AppendCookie(nil, token, seal.NewKey(9), 5)), false, true},
		"a bare id":                 {"wr_token=" + text(token), false, true},
		"wide, bound to nothing":    {"wr_token=" + string(appendWideCookie(nil, token, keys[0], wideProof{index: 5})), true, true},
		"wide, another setting": {"wr_token=" + string(appendWideCookie(nil, token, keys[0], wideProof{
			index: 5, bound: bindAddress | bindAgent, tie: (bindAddress | bindAgent).tie(keys[0], token, m),
		})), true, true},
		"wide, under the old key": {"wr_token=" + string(appendWideCookie(nil, token, keys[1], wideProof{
			index: 5, bound: bindAddress, tie: bindAddress.tie(keys[1], token, m),
		})), true, true},
		"wide": {"wr_token=" + string(appendWideCookie(nil, token, keys[0], wideProof{
			index: 5, bound: bindAddress, tie: bindAddress.tie(keys[0], token, m),
		})), true, false},
		"another's tie": {"wr_token=" + string(appendWideCookie(nil, token, keys[0], wideProof{
			index: 5, bound: bindAddress, tie: bindAddress.tie(keys[0], newToken(), m),
		})), false, true},
		"a tie that says to be of another kind": {"wr_token=" + string(appendWideCookie(nil, token, keys[0], wideProof{
			index: 5, bound: bindAgent, tie: bindAddress.tie(keys[0], token, m),
		})), false, true},
		"an unknown kind": {"wr_token=" + string(appendWideCookie(nil, token, keys[0], wideProof{index: 5, bound: 4})), false, true},
	} {
		r := s.ask("GET", "/", append(place(here, ""), "Cookie: "+c.value)...)
		if got := r.StatusCode == 200; got != c.taken {
			t.Errorf("%s: taken: got %v, want %v", name, got, c.taken)
		}
		if got := r.ours() != ""; got != c.again {
			t.Errorf("%s: written anew: got %v, want %v", name, got, c.again)
		}
		if !c.taken || !c.again {
			continue
		}
		if r := s.ask("GET", "/", append(place(here, ""), "Cookie: "+cookieOf(r))...); r.StatusCode != 200 || r.ours() != "" {
			t.Errorf("%s: the new cookie at home: got %d", name, r.StatusCode)
		}
		if r := s.ask("GET", "/", append(place(far, ""), "Cookie: "+cookieOf(r))...); r.StatusCode != 302 {
			t.Errorf("%s: the new cookie elsewhere: got %d", name, r.StatusCode)
		}
	}
}

// A place in line is bound too, and a bound cookie is as good as any once the setting is off.
func TestPlacesAreBound(t *testing.T) {
	const here, far = "192.0.2.1", "198.51.100.1"
	s := bindStand(t, "ip")
	s.room.active(t)
	named := s.ask("GET", "/wr_check", place(here, "")...)
	placed := s.ask("GET", "/wr_check", append(place(here, ""), "Cookie: "+cookieOf(named))...)
	if placed.StatusCode != 200 || placed.ours() == "" || s.room.waiting() != 1 {
		t.Fatalf("got %d, %d in line", placed.StatusCode, s.room.waiting())
	}
	if r := s.ask("GET", "/wr_check", append(place(far, ""), "Cookie: "+cookieOf(placed))...); r.ours()[:36] == placed.ours()[:36] {
		t.Error("the place is another's too")
	}
	if r := s.ask("GET", "/wr_check", append(place(here, ""), "Cookie: "+cookieOf(placed))...); r.ours() != "" {
		t.Error("the cookie is written anew each time")
	}
	off := serve(t, s.room, newSite(t, nil).URL, nil)
	if r := off.ask("GET", "/wr_check", "Cookie: "+cookieOf(placed)); r.StatusCode != 200 || r.ours() != "" {
		t.Errorf("with the setting off: got %d and %q", r.StatusCode, r.ours())
	}
}

func BenchmarkDecideInside(b *testing.B) {
	for _, bind := range []string{"off", "ip", "ip+ua"} {
		b.Run(bind, func(b *testing.B) {
			s, x := insideOf(b, bind)
			b.ReportAllocs()
			for b.Loop() {
				if v := s.decideCounted(&x.head, x); v.outcome != letIn || v.tell {
					b.Fatalf("got %+v", v)
				}
			}
		})
	}
}

// insideOf is a request of a visitor inside, with a cookie that is bound as the server wants it.
func insideOf(t testing.TB, bind string) (*Server, *exchange) {
	t.Helper()
	room := newRoom(t, 10)
	s, err := New(Config{Room: room, Backend: mustURL(t, "http://127.0.0.1:1"), Bind: bind})
	if err != nil {
		t.Fatal(err)
	}
	token, cookie := room.active(t)
	room.set(token, queue.View{State: queue.Active, Deadline: 1 << 50, TouchAfter: 1 << 50})
	x := &exchange{}
	peer := peerAddr(tcpAddr(t, "192.0.2.1:99"))
	read := func() {
		block := []byte("Host: shop.test\r\nUser-Agent: " + chromeWin + "\r\nAccept: text/html\r\nCookie: theme=dark; " + cookie + "\r\nX-A: b\r\n\r\n")
		if r := x.head.read([]byte("GET"), []byte("/shop?item=7"), []byte("HTTP/1.1"), block); r != nil {
			t.Fatal(r)
		}
		x.from = s.senderOf(peer, x.head.fields)
	}
	read()
	if s.bind != nil {
		mode := s.bind.mode
		cookie = "wr_token=" + string(appendWideCookie(nil, token, room.keys[0], wideProof{
			index: 5, bound: mode, tie: mode.tie(room.keys[0], token, markOf(mode, x.head.fields, x.from.client)),
		}))
		read()
	}
	return s, x
}
