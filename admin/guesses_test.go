package admin

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func TestWrongTokensAreLimited(t *testing.T) {
	n := &node{}
	cfg := n.config(operateToken)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	s.guard.guesses.now = func() time.Time { return now }
	h := s.Handler()
	put := func(with ...func(*http.Request)) (int, string) {
		got := ask(h, "PUT", "/v1/limits", `{"max_active":3}`, with...)
		return got.Code, got.Header().Get("Retry-After")
	}
	for i := range 2 * guessBurst {
		if code, _ := put(bearer(operateToken)); i < guessBurst && code != 200 {
			t.Fatalf("the right token after %d wrong ones: %d", i, code)
		}
		code, retry := put(bearer(fmt.Sprint("guess", i)))
		if want := map[bool]int{true: 401, false: 429}[i < guessBurst]; code != want || (retry == "1") != (code == 429) {
			t.Fatalf("guess %d: %d, Retry-After %q, want %d", i, code, retry, want)
		}
	}
	for name, c := range map[string]struct {
		with []func(*http.Request)
		want int
	}{
		"the right token from there": {[]func(*http.Request){bearer(operateToken)}, 429},
		"no token from there":        {nil, 401},
		"another address":            {[]func(*http.Request){bearer(operateToken), from("127.0.0.2:1")}, 200},
		"a certificate from there":   {[]func(*http.Request){bearer(operateToken), certificate(true, "operate")}, 200},
	} {
		if code, _ := put(c.with...); code != c.want {
			t.Errorf("%s: %d, want %d", name, code, c.want)
		}
	}
	now = now.Add(guessEvery)
	if code, _ := put(bearer(operateToken)); code != 200 {
		t.Errorf("the right token after Retry-After: %d", code)
	}
	if code, _ := put(bearer("guess")); code != 401 {
		t.Errorf("a guess after it: %d", code)
	}
	if code, _ := put(bearer("guess")); code != 429 {
		t.Errorf("one more at once: %d", code)
	}
}

// An IPv6 subscriber has a /64 to guess from.
func TestGuessersAreNetworks(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"[2001:db8::1]:1", "[2001:db8::ffff:2]:9", true},
		{"[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
		{"[::ffff:192.0.2.1]:1", "192.0.2.1:2", true},
		{"192.0.2.1:1", "192.0.2.2:1", false},
		{"[fe80::1%eth0]:1", "[fe80::2%eth1]:1", true},
	} {
		if same := guesserOf(c.a) == guesserOf(c.b); same != c.same {
			t.Errorf("%s and %s count as one: %v, want %v", c.a, c.b, same, c.same)
		}
	}
}

func TestGuessersAreBounded(t *testing.T) {
	g := newGuesses()
	now := time.Unix(1_700_000_000, 0)
	g.now = func() time.Time { return now }
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range 3 * maxGuessers {
		g.wrong(address(i))
	}
	if len(g.of) > maxGuessers {
		t.Errorf("%d addresses are kept, want no more than %d", len(g.of), maxGuessers)
	}
	now = now.Add(time.Minute)
	for range guessBurst {
		g.wrong(address(0))
	}
	if g.wait(address(0)) == 0 {
		t.Error("the one that guesses may go on")
	}
	for i := range maxGuessers {
		g.wrong(address(i + 1))
	}
	if len(g.of) > maxGuessers {
		t.Errorf("%d addresses are kept once those that are forgiven have gone", len(g.of))
	}
	if g.wait(address(maxGuessers+1)) != 0 || g.wait(netip.Addr{}) != 0 {
		t.Error("an address that has not guessed has to wait")
	}
}
