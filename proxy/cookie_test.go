package proxy

import (
	"bytes"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

func TestCookieRoundTrip(t *testing.T) {
	keys := seal.Ring{seal.NewKey(7), seal.NewKey(6)}
	for _, index := range []uint64{0, 1, 1<<64 - 1} {
		for _, key := range keys {
			token := newToken()
			value := AppendCookie(nil, token, key, index)
			if len(value) != cookieSize {
				t.Errorf("length: got %d, want %d", len(value), cookieSize)
			}
			got, proven, ok := ParseCookie(value)
			if !ok || !proven || got != token {
				t.Errorf("parse: got %v %v %v", got, proven, ok)
			}
			if id, ok := keyOf(value); !ok || id != key.ID {
				t.Error("keyOf does not know the key's number")
			}
			if at, ok := CheckCookie(value, keys); !ok || at != index {
				t.Errorf("check: got %d %v, want %d", at, ok, index)
			}
			if _, ok := CheckCookie(value, seal.Ring{seal.NewKey(key.ID)}); ok {
				t.Error("a proof under another secret is taken")
			}
		}
	}
}

func TestNoByteOfACookieCanChange(t *testing.T) {
	keys := seal.Ring{seal.NewKey(1)}
	value := AppendCookie(nil, newToken(), keys[0], 4711)
	for i := range value {
		for _, c := range []byte("aZ0-_.=/+ \xff") {
			if value[i] == c {
				continue
			}
			changed := bytes.Clone(value)
			changed[i] = c
			if _, ok := CheckCookie(changed, keys); ok {
				t.Errorf("byte %d changed to %q is taken", i, c)
			}
		}
	}
	for _, other := range [][]byte{value[:len(value)-1], append(bytes.Clone(value), 'A'), append(bytes.Clone(value), '='), nil} {
		if _, ok := CheckCookie(other, keys); ok {
			t.Errorf("%q is taken", other)
		}
	}
}

func FuzzCookie(f *testing.F) {
	keys := seal.Ring{seal.NewKey(1)}
	good := AppendCookie(nil, queue.MakeToken([16]byte{1, 2, 3}), keys[0], 9)
	f.Add(good)
	f.Add(good[:36])
	f.Add([]byte{})
	f.Add([]byte(strings.Repeat("x", 5000)))
	f.Fuzz(func(t *testing.T, value []byte) {
		token, _, ok := ParseCookie(value)
		index, good := CheckCookie(value, keys)
		if good && !ok {
			t.Error("checked, and not parsed")
		}
		if good && !bytes.Equal(AppendCookie(nil, token, keys[0], index), value) {
			t.Errorf("%q has two spellings", value)
		}
	})
}

func FuzzCookieLine(f *testing.F) {
	for _, c := range cutCases {
		f.Add([]byte(c.line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		line = trimSpace(line)
		kept := appendWithout(nil, line, "wr_token")
		if len(kept) > len(line) {
			t.Errorf("%q grew to %q", line, kept)
		}
		// What is left holds no cookie of ours, so cutting again changes nothing.
		if again := appendWithout(nil, kept, "wr_token"); !bytes.Equal(again, kept) {
			t.Errorf("%q is cut to %q and that to %q", line, kept, again)
		}
		ours := false
		for rest := line; rest != nil; {
			var value []byte
			_, value, rest = nextCookie(rest, "wr_token")
			ours = ours || value != nil
		}
		if !ours && !bytes.Equal(kept, line) {
			t.Errorf("%q holds nothing of ours and became %q", line, kept)
		}
	})
}

var cutCases = []struct{ line, kept, values string }{
	{"", "", ""},
	{"a=1", "a=1", ""},
	{"wr_token=T", "", "T"},
	{"wr_token=", "", ""},
	{"a=1; wr_token=T; b=2", "a=1; b=2", "T"},
	{"wr_token=T; b=2", "b=2", "T"},
	{"a=1; wr_token=T", "a=1", "T"},
	{"a=1;wr_token=T;b=2", "a=1;b=2", "T"},
	{"wr_token=one; wr_token=two", "", "one,two"},
	{"wr_token=one; x=1; wr_token=two", "x=1", "one,two"},
	{"\twr_token \t= T ; b=2", "b=2", "T"},
	{`prefs={"a":1}; wr_token=A; q="v"; b=c\d; =n`, `prefs={"a":1}; q="v"; b=c\d; =n`, "A"},
	{`a="q\"; j={"x":1}; wr_token=T; d=`, `a="q\"; j={"x":1}; d=`, "T"},
	{`q="a; wr_token=evil; b"; wr_token=T`, `q="a; wr_token=evil; b"`, "T"},
	{`q="open; wr_token=T`, `q="open`, "T"},
	{`q="a"b; wr_token=T`, `q="a"b`, "T"},
	{`wr_token="T"`, "", `"T"`},
	{"wr_token", "wr_token", ""},
	{"=wr_token=T", "=wr_token=T", ""},
	{"WR_TOKEN=z; xwr_token=y; wr_token2=x", "WR_TOKEN=z; xwr_token=y; wr_token2=x", ""},
	{"\u00a0wr_token=T; \x85wr_token=T", "\u00a0wr_token=T; \x85wr_token=T", ""},
	{"$Version=1; wr_token=T", "$Version=1", "T"},
	{"a=\xff\xfe; wr_token=\xff", "a=\xff\xfe", "\xff"},
	{";; a=1;;", ";; a=1;;", ""},
	{"sessionid=evil; =sessionid=good", "sessionid=evil; =sessionid=good", ""},
}

func TestOurCookieIsCutAsBytes(t *testing.T) {
	for _, c := range cutCases {
		if got := string(appendWithout(nil, []byte(c.line), "wr_token")); got != c.kept {
			t.Errorf("%q: got %q, want %q", c.line, got, c.kept)
		}
		var values []string
		for rest := []byte(c.line); rest != nil; {
			var value []byte
			if _, value, rest = nextCookie(rest, "wr_token"); len(value) > 0 {
				values = append(values, string(value))
			}
		}
		if got := strings.Join(values, ","); got != c.values {
			t.Errorf("%q: values: got %q, want %q", c.line, got, c.values)
		}
	}
}

func TestSetsCookie(t *testing.T) {
	for value, want := range map[string]bool{
		"wr_token=evil; Path=/": true, " wr_token =x": true, "wr_token=": true, "wr_token2=b": false, "a=wr_token=b": false,
		"": false, "a=1; wr_token=2": false, "WR_TOKEN=x": false,
		"=wr_token=evil; Path=/": true, "= wr_token =x": true, " \t= \twr_token=": true, "=wr_token=": true, // sent as a value, and read as a name
		"wr_token; Path=/": false, "wr_token": false, "=wr_token": false, "= wr_token ;": false, // sent without an equals sign
		"==wr_token=x": false, "=a=wr_token=x": false, "=wr_token2=x": false, "=a; wr_token=x": false, "=": false, "==": false,
	} {
		if got := setsCookie([]byte(value), "wr_token"); got != want {
			t.Errorf("%q: got %v, want %v", value, got, want)
		}
	}
}

func TestBadCookiesAreFirstVisits(t *testing.T) {
	room := newRoom(t, 0)
	origin := newSite(t, nil)
	s := serve(t, room, origin.URL, nil)
	foreign := "0b0e8c5e-2f4a-4c59-9d3e-7f5a1c2b3d4e"
	for name, value := range map[string]string{
		"empty": "", "a word": "hello", "7 kB": strings.Repeat("x", 7000), "not UTF-8": "\xff\xfe\xfd", "a foreign id": foreign,
		"upper case": strings.ToUpper(foreign), "version 1": "0b0e8c5e-2f4a-1c59-9d3e-7f5a1c2b3d4e", "quotes": `"` + foreign + `"`,
	} {
		r := s.ask("GET", "/wr_check", "Cookie: wr_token="+value)
		if r.StatusCode != 200 || r.ours() == "" || strings.HasPrefix(r.ours(), foreign) {
			t.Errorf("%s: got %d and the cookie %q", name, r.StatusCode, r.ours())
		}
	}
	r := s.ask("GET", "/", "Cookie: wr_token="+strings.Repeat("x", 1<<20))
	if r.StatusCode != 431 {
		t.Errorf("1 MB: got %d, want 431", r.StatusCode)
	}
	if got := room.commands(); len(got) != 0 {
		t.Errorf("submitted %v", got)
	}
}

// Proofs that do not hold are counted, once for a request, wherever they are looked at.
func TestInvalidCookiesAreCounted(t *testing.T) {
	gone := func(token queue.Token) string {
		return "wr_token=" + string(AppendCookie(nil, token, seal.NewKey(9), 5))
	}
	for mode, change := range map[string]func(*Config){"loops": nil, "goroutines": withoutLoops} {
		for _, bind := range []string{BindOff, BindIP} {
			room := newRoom(t, 10)
			s := serve(t, room, newSite(t, nil).URL, func(c *Config) {
				if c.Bind = bind; change != nil {
					change(c)
				}
			})
			inside, pass := room.active(t)
			inLine, place := room.queued(t)
			for _, c := range []struct {
				name, cookie string
				want, bound  float64
			}{
				{"none", "", 0, 0},
				{"another's", "a=b", 0, 0},
				{"no proof", "wr_token=" + text(newToken()), 0, 0},
				{"a good one", room.cookie(newToken(), 0), 0, 0},
				{"forged", flip(room.cookie(newToken(), 0), 60), 1, 1},
				{"no number of a key", "wr_token=" + text(newToken()) + strings.Repeat(".", cookieSize-queue.TokenLen), 1, 1},
				{"under a key that is gone", gone(newToken()), 1, 1},
				{"two of them", gone(newToken()) + "; " + flip(room.cookie(newToken(), 0), 60), 1, 1},
				{"a good one beside a forged one", flip(room.cookie(newToken(), 0), 60) + "; " + place, 0, 0},
				{"in line", place, 0, 0},
				{"in line, forged", flip(place, 60), 1, 1},
				{"in line, under a key that is gone", gone(inLine), 1, 1},
				{"inside", pass, 0, 0},
				{"inside, where nobody looks at a proof unless it is bound", flip(pass, 60), 0, 1},
				{"inside, under a key that is gone", gone(inside), 0, 1},
			} {
				want := c.want
				if s.bind != nil {
					want = c.bound
				}
				for _, target := range []string{"/", pathCheck} {
					before := testutil.ToFloat64(s.metrics.invalid)
					s.ask("GET", target, "Cookie: "+c.cookie)
					if got := testutil.ToFloat64(s.metrics.invalid) - before; got != want {
						t.Errorf("%s, bound to %s, %s: %s: got %v, want %v", mode, bind, target, c.name, got, want)
					}
				}
			}
		}
	}
}

func TestCandidatesAreBounded(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, newSite(t, nil).URL, nil)
	_, active := room.active(t)
	many := strings.Repeat("wr_token="+text(newToken())+"; ", maxCandidates-1)
	if r := s.ask("GET", "/", "Cookie: "+many+active); r.ours() != "" {
		t.Error("the last candidate that counts was not looked at")
	}
	room.do(func(r *fakeRoom) { r.limits.MaxActive = 0 })
	if r := s.ask("GET", "/", "Cookie: "+many+"wr_token="+text(newToken())+"; "+active); r.ours() == "" {
		t.Error("a request made us look at more cookies than it may")
	}
}
