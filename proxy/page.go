package proxy

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"net/http"
	"strings"
)

//go:embed page.html
var defaultPage []byte

//go:embed notice.html
var noticePage []byte

// pageRefresh is after how many seconds a browser without scripts asks again.
const pageRefresh = 5

// What a page may hold for the server to fill in. WR_PAGE_FILE pages may use them too,
// outside scripts and styles.
const (
	slotRefresh  = "{{wr:refresh}}"  // in the head: the way on for browsers without scripts
	slotPosition = "{{wr:position}}" // the place in line as a number, or nothing
	slotAhead    = "{{wr:ahead}}"    // the same as a sentence
)

// pages are everything a browser may get to see, made once at the start.
type pages struct {
	waiting      *page
	noticePolicy string
	full         []byte
	limited      []byte
	busy         []byte
	unavailable  []byte
	slow         []byte
}

func newPages(cfg Config) (*pages, error) {
	custom, source := cfg.Page, defaultPage
	policy := "default-src 'none'; script-src %s; style-src %s; img-src data:; connect-src 'self'; base-uri 'none'; " +
		"form-action 'none'"
	if len(custom) > 0 {
		// The operator's own page may fetch what it likes, but no script runs that is not in it
		// or on this site.
		source = custom
		policy = "default-src 'self' https: data: blob:; script-src 'self' https: %s; style-src 'self' https: 'unsafe-inline'; " +
			"object-src 'none'; base-uri 'none'"
	}
	framed := "; frame-ancestors " + cfg.FrameAncestors
	policy += framed
	if cfg.Pow && len(custom) == 0 {
		source = workingPage(source, cfg.PowWait)
		policy += "; worker-src blob:"
	}
	waiting, err := newPage(source, policy)
	if err != nil {
		return nil, fmt.Errorf("waiting page: %w", err)
	}
	style, ok := element(defaultPage, "style")
	if !ok {
		return nil, errors.New("waiting page: no style")
	}
	p := &pages{waiting: waiting}
	p.noticePolicy = "default-src 'none'; style-src " + sourceHash(style) + "; img-src data:; base-uri 'none'; form-action 'none'" + framed
	again := fmt.Sprintf(`<meta http-equiv="refresh" content="%d">`, retryFull)
	p.full = notice(style, "The waiting line is full", "So many people are here that even the line has no place left. "+
		"This page tries again by itself.", again)
	p.limited = notice(style, "One moment, please", "There have been too many requests from here. Try again in a few seconds.", "")
	p.busy = notice(style, "One moment, please", "So many people are arriving that we cannot let everybody in line at once. This page tries again by itself.",
		`<meta http-equiv="refresh" content="10">`)
	p.unavailable = notice(style, "The site cannot be reached", "Something went wrong on the way. Your place inside is kept. Please try again in a moment.", "")
	p.slow = notice(style, "The site takes too long to answer", "Your place inside is kept. Please try again in a moment.", "")
	return p, nil
}

func notice(style []byte, title, text, refresh string) []byte {
	return []byte(strings.NewReplacer(
		"{{style}}", string(style), "{{title}}", html.EscapeString(title), "{{text}}", html.EscapeString(text), "{{refresh}}", refresh,
	).Replace(string(noticePage)))
}

// A page is a waiting page cut where the server fills something in.
type page struct {
	pieces []piece
	size   int
	policy string // its Content-Security-Policy
}

type piece struct {
	text []byte
	slot string // what follows the text; empty at the end
}

// newPage cuts a page up and makes its policy: %s stands for the hashes of its scripts, a
// second one for those of its styles.
func newPage(source []byte, policy string) (*page, error) {
	if len(source) > 1<<20 {
		return nil, fmt.Errorf("%d bytes are more than 1 MiB", len(source))
	}
	if kind := http.DetectContentType(source); !strings.HasPrefix(kind, "text/") {
		return nil, fmt.Errorf("it looks like %s", kind)
	}
	p := &page{size: len(source)}
	for rest := source; ; {
		at, slot := -1, ""
		for _, s := range []string{slotRefresh, slotPosition, slotAhead} {
			if i := bytes.Index(rest, []byte(s)); i >= 0 && (at < 0 || i < at) {
				at, slot = i, s
			}
		}
		if at < 0 {
			p.pieces = append(p.pieces, piece{text: rest})
			break
		}
		p.pieces = append(p.pieces, piece{rest[:at], slot})
		rest = rest[at+len(slot):]
	}
	hashes := []any{elementHashes(source, "script"), elementHashes(source, "style")}
	p.policy = fmt.Sprintf(policy, hashes[:strings.Count(policy, "%s")]...)
	return p, nil
}

// standsStill is what those in line are told while there is no majority; page.html says the same in its script.
const standsStill = "The line stands still at the moment. Your place is kept."

// render fills a page in: where a browser without scripts goes on, in how many seconds, the
// position, 0 for none, and whether the line stands still.
func (p *page) render(target []byte, position, seconds int, still bool) []byte {
	out := make([]byte, 0, p.size+len(target)+256)
	for i := range p.pieces {
		out = append(out, p.pieces[i].text...)
		switch p.pieces[i].slot {
		case slotRefresh:
			out = append(out, `<noscript><meta http-equiv="refresh" content="`...)
			out = appendInt(out, seconds)
			out = append(out, ";url="...)
			out = append(out, html.EscapeString(string(appendLocation(nil, target)))...)
			out = append(out, `"></noscript>`...)
		case slotPosition:
			if position > 0 {
				out = appendInt(out, position)
			}
		case slotAhead:
			out = append(out, ahead(position)...)
			if still {
				out = append(append(out, ". "...), standsStill...)
			}
		}
	}
	return out
}

// ahead says a position in words; page.html says the same in its script.
func ahead(position int) string {
	switch {
	case position <= 0:
		return "Finding your place in line"
	case position == 1:
		return "You are next"
	case position == 2:
		return "1 person ahead of you"
	}
	return fmt.Sprintf("%d people ahead of you", position-1)
}

// element returns the content of the first element of that name.
func element(source []byte, name string) ([]byte, bool) {
	content, _, _, ok := nextElementOf(source, name)
	return content, ok
}

// nextElementOf finds the next element of that name: its content, its attributes, and what
// follows it. Names are matched without regard to case.
func nextElementOf(source []byte, name string) (content, attributes, rest []byte, ok bool) {
	lower := lowerASCII(source)
	start := bytes.Index(lower, []byte("<"+name))
	if start < 0 {
		return nil, nil, nil, false
	}
	open := bytes.IndexByte(lower[start:], '>')
	if open < 0 {
		return nil, nil, nil, false
	}
	body := start + open + 1
	end := bytes.Index(lower[body:], []byte("</"+name))
	if end < 0 {
		return nil, nil, nil, false
	}
	return source[body : body+end], source[start+1+len(name) : body-1], source[body+end:], true
}

// lowerASCII is a copy of text whose letters are small, of the same length: bytes.ToLower shortens what has an İ in it.
func lowerASCII(text []byte) []byte {
	text = bytes.Clone(text)
	for i, c := range text {
		text[i] = lowerByte(c)
	}
	return text
}

// elementHashes are the policy sources of all inline elements of that name.
func elementHashes(source []byte, name string) string {
	var out []string
	for {
		content, attributes, rest, ok := nextElementOf(source, name)
		if !ok {
			break
		}
		if !bytes.Contains(bytes.ToLower(attributes), []byte("src=")) {
			out = append(out, sourceHash(content))
		}
		source = rest
	}
	return strings.Join(out, " ")
}

// sourceHash is how a policy names an inline script or style by its content.
func sourceHash(content []byte) string {
	// Browsers hash the text after they have made line ends uniform.
	sum := sha256.Sum256(bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n")))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
