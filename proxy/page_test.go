package proxy

import (
	"bytes"
	"html"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const markup = `"'><script>alert(7)</script>`

func TestPageIsSmallAndStandsAlone(t *testing.T) {
	if n := len(defaultPage); n > 14<<10 {
		t.Errorf("the page has %d bytes", n)
	}
	for _, bad := range []string{`\son\w+\s*=\s*["']`, `(?i)src=`, `(?i)https?://`, `(?i)@import`, `url\(`} {
		for name, page := range map[string][]byte{"page": defaultPage, "notice": noticePage} {
			if m := regexp.MustCompile(bad).Find(page); m != nil {
				t.Errorf("%s: %q", name, m)
			}
		}
	}
}

func TestPagesPolicyNamesItsScript(t *testing.T) {
	p, err := newPages(Config{FrameAncestors: "'self'"})
	if err != nil {
		t.Fatal(err)
	}
	policy := p.waiting.policy
	script, _ := element(defaultPage, "script")
	style, _ := element(defaultPage, "style")
	for _, want := range []string{"default-src 'none'", "script-src " + sourceHash(script), "style-src " + sourceHash(style), "connect-src 'self'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("%q is missing in %q", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "%") {
		t.Errorf("policy: %q", policy)
	}
	// What is filled in must not change what is hashed.
	rendered := p.waiting.render([]byte("/x"), 7, 5, false)
	if again, _ := element(rendered, "script"); !bytes.Equal(again, script) {
		t.Error("the script of the rendered page is another one")
	}
	for name, notice := range map[string][]byte{"full": p.full, "limited": p.limited, "unavailable": p.unavailable, "slow": p.slow} {
		if got, ok := element(notice, "style"); !ok || !strings.Contains(p.noticePolicy, sourceHash(got)) || bytes.Contains(notice, []byte("{{")) {
			t.Errorf("%s: its style is not in its policy, or a slot is left", name)
		}
	}
}

func TestQueuePage(t *testing.T) {
	room := newRoom(t, 1)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.MainURL = "/welcome" })
	for _, c := range []struct{ query, url, number, ahead string }{
		{"?r=/shop%3Fa%3D1%26b%3D2&p=12", "/shop?a=1&b=2", "12", "11 people ahead of you"},
		{"?r=/x&p=2", "/x", "2", "1 person ahead of you"},
		{"?p=1", "/welcome", "1", "You are next"},
		{"", "/welcome", "", "Finding your place in line"},
		{"?r=//evil.test&p=NaN", "/welcome", "", "Finding your place in line"},
		{"?r=/%22%3E%3Cscript%3Ealert(7)%3C/script%3E&p=%3Cb%3E", "/%22%3E%3Cscript%3Ealert(7)%3C/script%3E", "", "Finding your place in line"},
		{"?r=/x%27y%26amp", "/x'y&amp", "", "Finding your place in line"},
		{"?x=" + markup, "/welcome", "", "Finding your place in line"},
	} {
		r := s.ask("GET", "/queue.html"+c.query)
		ownAnswer(t, r)
		if r.StatusCode != 200 || r.Header.Get("Content-Type") != typeHTML || r.ours() != "" || r.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: got %d %v", c.query, r.StatusCode, r.Header)
		}
		for _, want := range []string{
			`<noscript><meta http-equiv="refresh" content="5;url=` + html.EscapeString(c.url) + `"></noscript>`,
			`id="number">` + c.number + `</strong>`, `id="ahead">` + c.ahead + `</p>`,
		} {
			if !strings.Contains(r.text, want) {
				t.Errorf("%s: %q is missing", c.query, want)
			}
		}
		if strings.Contains(r.text, "<script>alert") || strings.Contains(r.text, "{{") {
			t.Errorf("%s: markup of the request is in the page, or a slot is left", c.query)
		}
	}
	if n := len(room.commands()) + room.touches(); n != 0 {
		t.Errorf("the page changed the room %d times", n)
	}
}

func TestNothingOfARequestComesBackUnescaped(t *testing.T) {
	room := newRoom(t, 0)
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.QueueMode = ModeInline })
	_, cookie := room.queued(t)
	for _, lines := range [][]string{
		{"Accept: text/html"}, {"Accept: application/json"}, {"User-Agent: " + markup, "Referer: " + markup}, {"Cookie: wr_token=" + markup}, {"X-Forwarded-Host: " + markup},
	} {
		for _, target := range []string{"/x?q=" + markup, "/" + markup, "/wr_check?r=/" + markup, "/wr_check?r=/x&q=" + markup} {
			w := s.dial().send("%s", request("GET", target, "", append(lines, "Cookie: "+cookie)...))
			head := w.rawHead()
			rest := make([]byte, w.br.Buffered())
			_, _ = w.br.Read(rest)
			if strings.Contains(head+string(rest), "<script>alert") {
				t.Errorf("%s with %q: it comes back", target, lines)
			}
		}
	}
}

func TestInlinePageLeadsBackToItself(t *testing.T) {
	room := newRoom(t, 0)
	for _, status := range []int{200, 202, 429, 503} {
		s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.QueueMode, c.QueueStatus = ModeInline, status })
		r := s.ask("GET", "/shop?item=7&x=%22")
		if r.StatusCode != status || r.Header.Get("Retry-After") == "" || !strings.Contains(r.text, `;url=/shop?item=7&amp;x=%22"`) {
			t.Errorf("got %d", r.StatusCode)
		}
	}
}

func TestCustomPage(t *testing.T) {
	room := newRoom(t, 0)
	page := []byte("<!doctype html><html><head>{{wr:refresh}}<SCRIPT>one()</SCRIPT><script src=\"/x.js\"></script></head><body>{{wr:position}} {{wr:ahead}} 100% {{other}}<script>two()\r\n</script></body></html>")
	s := serve(t, room, newSite(t, nil).URL, func(c *Config) { c.Page = page })
	r := s.ask("GET", "/queue.html?r=/a&p=3")
	for _, want := range []string{`content="5;url=/a"`, "3 2 people ahead of you 100% {{other}}"} {
		if !strings.Contains(r.text, want) {
			t.Errorf("%q is missing in %q", want, r.text)
		}
	}
	policy := r.Header.Get("Content-Security-Policy")
	script := regexp.MustCompile(`script-src ([^;]*)`).FindStringSubmatch(policy)
	if script == nil || !strings.Contains(script[1], sourceHash([]byte("one()"))) || !strings.Contains(script[1], sourceHash([]byte("two()\n"))) || strings.Contains(script[1], "unsafe") || strings.Contains(script[1], "*") {
		t.Errorf("policy: %q", policy)
	}
	for name, bad := range map[string][]byte{"an image": []byte("\x89PNG\r\n\x1a\n\x00\x00"), "too large": bytes.Repeat([]byte("a"), 1<<20+1)} {
		if _, err := New(Config{Room: room, Backend: mustURL(t, "http://x"), Page: bad}); err == nil {
			t.Errorf("%s is taken for a page", name)
		}
	}
}

func TestFullPage(t *testing.T) {
	room := newRoom(t, 0)
	s := serve(t, room, newSite(t, nil).URL, nil)
	_, _ = room.queued(t)
	room.do(func(r *fakeRoom) { r.limits.QueueMax = 1 })
	r := s.ask("GET", "/x", "Accept: text/html")
	ownAnswer(t, r)
	if r.StatusCode != 503 || !strings.Contains(r.text, `http-equiv="refresh" content="30"`) || strings.Contains(r.text, "<script") {
		t.Errorf("got %d %q", r.StatusCode, r.text)
	}
}

// The words on the page are the same whether the server or the script has put them there.
func TestServerAndScriptSayTheSame(t *testing.T) {
	script, _ := element(defaultPage, "script")
	for _, position := range []int{1, 2} {
		if !bytes.Contains(script, []byte(`"`+ahead(position)+`"`)) {
			t.Errorf("the script does not say %q", ahead(position))
		}
	}
	if !bytes.Contains(script, []byte(`" people ahead of you"`)) || ahead(12) != "11 people ahead of you" {
		t.Error("the script says something else")
	}
}

// A letter whose small one has another length does not move what is found behind it.
func TestPageOfAnyLanguage(t *testing.T) {
	p, err := newPage([]byte("<!doctype html><title>SIRADASINIZ, L\u00dcTFEN BEKLEY\u0130N\u0130Z 300 \u212a</title><script>one()</script>"), "script-src %s")
	if err != nil || p.policy != "script-src "+sourceHash([]byte("one()")) {
		t.Errorf("%v, %+v", err, p)
	}
}

var inlineScript = regexp.MustCompile(`(?s)<[sS][cC][rR][iI][pP][tT]([^>]*)>(.*?)</[sS][cC][rR][iI][pP][tT]`)

// Any page comes back as it is, with what the server fills in where its slots are; its policy names its scripts; and no way back
// gets out of the attribute that it stands in.
func FuzzPage(f *testing.F) {
	f.Add(defaultPage, []byte("/shop?a=1&b=\"><script>"), 3)
	f.Add([]byte("<p>{{wr:ahead}}{{wr:position}}{{wr:refresh}}<SCRIPT>x</SCRIPT>"), []byte("/'onload=x//"), 0)
	f.Add([]byte("\u0130<script>a</script>{{wr:{{wr:ahead}}"), []byte("/&quot;<"), 1)
	f.Fuzz(func(t *testing.T, source, target []byte, position int) {
		p, err := newPage(source, "script-src %s")
		if err != nil || !safeTarget(target) {
			return
		}
		var scripts []string
		for _, m := range inlineScript.FindAllSubmatch(source, -1) {
			if !strings.Contains(strings.ToLower(string(m[1])), "src=") {
				scripts = append(scripts, sourceHash(m[2]))
			}
		}
		if want := "script-src " + strings.Join(scripts, " "); p.policy != want {
			t.Errorf("policy %q, want %q", p.policy, want)
		}
		rest, again := p.render(target, position, 5, false), []byte(nil)
		cut := func(what string) {
			var ok bool
			if rest, ok = bytes.CutPrefix(rest, []byte(what)); !ok {
				t.Fatalf("%q is missing before %q", what, rest)
			}
		}
		for _, piece := range p.pieces {
			again = append(append(again, piece.text...), piece.slot...)
			cut(string(piece.text))
			switch piece.slot {
			case slotAhead:
				cut(ahead(position))
			case slotPosition:
				if position > 0 {
					cut(strconv.Itoa(position))
				}
			case slotRefresh:
				cut(`<noscript><meta http-equiv="refresh" content="5;url=`)
				url, _, _ := bytes.Cut(rest, []byte(`"`))
				if bytes.ContainsAny(url, "<>'") || html.UnescapeString(string(url)) != string(appendLocation(nil, target)) {
					t.Errorf("%q leads to %q", target, url)
				}
				cut(string(url) + `"></noscript>`)
			}
		}
		if len(rest) > 0 || !bytes.Equal(again, source) {
			t.Errorf("%q became %q", source, again)
		}
	})
}
