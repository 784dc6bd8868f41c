package proxy

import (
	"fmt"
	"testing"
)

// T13: what only looks like the visitor's cookie is none. It names nobody, and goes to the site as it came.
func TestLookAlikesNameNobody(t *testing.T) {
	for mode, way := range map[string]struct {
		change func(*Config)
		aside  []string // a line that only fasthttp takes
	}{"loops": {nil, nil}, "goroutines": {withoutLoops, nil}, "fasthttp": {nil, []string{"Content-Length: 0"}}} {
		room := newRoom(t, 1)
		origin := newSite(t, nil)
		s := serve(t, room, origin.URL, way.change)
		ask := func(lines ...string) reply { return s.ask("GET", "/", append(lines, way.aside...)...) }
		token, pair := room.active(t)
		value := pair[len("wr_token="):]
		for _, line := range []string{
			"\u00a0wr_token=%s", "\u2000wr_token=%s", "\x85wr_token=%s", "\xa0wr_token=%s", "wr_token\u00a0=%s", // white space to some
			"=wr_token=%s", "wr_token", "wr_token:%s", "wr_token%%3d%s", // no name, or no value
			"WR_TOKEN=%s", "Wr_Token=%s", "wr-token=%s", "xwr_token=%s", "wr_token2=%s", "$wr_token=%s", "__Host-wr_token=%s", "a.wr_token=%s",
			`a="x; wr_token=%s; y"`, `a="\"; wr_token=%s"`, "a=wr_token=%s", "a=1&wr_token=%s", "a=1, wr_token=%s", // inside another
			`wr_token="%s"`, "wr_token= %.20s", "wr_token=x%s", // ours by name, and nobody's by value
		} {
			look := fmt.Sprintf(line, value)
			if line == "wr_token" {
				look = line
			}
			if r := ask("Accept: text/html", "Cookie: "+look); r.StatusCode != 302 || r.ours() == "" || r.ours()[:36] == text(token) {
				t.Errorf("%s: %q names the visitor: got %d %q", mode, line, r.StatusCode, r.ours())
			}
			// Beside the visitor's own it changes nothing.
			for _, both := range []string{pair + "; " + look, look + "; " + pair} {
				if r := ask("Cookie: " + both); r.StatusCode != 200 || r.ours() != "" {
					t.Errorf("%s: %q beside the visitor's: got %d %q", mode, line, r.StatusCode, r.ours())
				}
			}
			want := look
			for rest := []byte(look); rest != nil; { // those that are ours by name are cut
				var got []byte
				if _, got, rest = nextCookie(rest, "wr_token"); got != nil {
					want = ""
				}
			}
			if got := origin.last(t).header.Get("Cookie"); got != want {
				t.Errorf("%s: %q reaches the site as %q", mode, look, got)
			}
		}
	}
}
