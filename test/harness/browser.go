package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// An Outcome is what an answer means for the visitor.
type Outcome int

// The outcomes.
const (
	Failed  Outcome = iota // no answer, or one that says to come back
	Waiting                // to the queue, or still in it
	LetIn                  // /wr_check sends it on to the site
	Inside                 // an answer of the origin
	Left                   // it gave up its place or slot
)

func (o Outcome) String() string {
	return [...]string{"failed", "waiting", "let in", "inside", "left"}[o]
}

// An Event is one request of a visitor and what came of it.
type Event struct {
	Visitor  string
	Node     string
	Sent     time.Time
	Got      time.Time
	Known    bool // the request carried a cookie of owr's
	Outcome  Outcome
	Position int // zero when none was told
	Status   int // of the answer; zero when there was none
	Location string
	Err      error
}

func (e Event) String() string {
	return fmt.Sprintf("%s on %s: %v at %d (%d %s %v)", e.Visitor, e.Node, e.Outcome, e.Position, e.Status, e.Location, e.Err)
}

// A Browser is one visitor: a cookie jar that follows it from node to node, and a name that the
// origin gets to see. It is used by one goroutine at a time.
type Browser struct {
	Name string

	client *http.Client
	query  string // of the waiting page, which it hands on to /wr_check
	note   func(Event)
}

var browsers atomic.Int64

// NewBrowser makes a visitor that has never been here. Each of its requests is told to note.
func NewBrowser(t testing.TB, note func(Event)) *Browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	if note == nil {
		note = func(Event) {}
	}
	return &Browser{
		Name: fmt.Sprintf("v%d", browsers.Add(1)), note: note,
		client: &http.Client{
			Jar: jar, Transport: transport, Timeout: 10 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// token is the value of owr's cookie. The jar knows no ports, so any node's address finds it.
func (b *Browser) token() string {
	for _, c := range b.client.Jar.Cookies(&url.URL{Scheme: "http", Host: Host, Path: "/"}) {
		if c.Name == "wr_token" {
			return c.Value
		}
	}
	return ""
}

// ID is the visitor's id as Redis shows it; empty before the first answer.
func (b *Browser) ID() string {
	if v := b.token(); len(v) >= 36 {
		return v[:36]
	}
	return ""
}

// Headers are the lines that make a request written by hand one of this visitor's.
func (b *Browser) Headers() string {
	return fmt.Sprintf("Cookie: wr_token=%s\r\n%s: %s\r\n", b.token(), visitorHeader, b.Name)
}

// Get asks a node for a page, as one types an address.
func (b *Browser) Get(n *Node, path string) Event {
	return b.do(n, path, "text/html,application/xhtml+xml,*/*;q=0.8")
}

// Check asks a node whether it is this visitor's turn, as the waiting page does.
func (b *Browser) Check(n *Node) Event {
	return b.do(n, "/wr_check"+b.query, "*/*")
}

// Visit asks for a page and, when told to wait, makes the first poll, with which a visitor gets
// its ticket. Whoever is let in follows to the page.
func (b *Browser) Visit(n *Node, path string) Event {
	if e := b.Get(n, path); e.Outcome != Waiting {
		return e
	}
	return b.Enter(n)
}

// Enter makes one poll and, when let in, follows to the page.
func (b *Browser) Enter(n *Node) Event {
	e := b.Check(n)
	if e.Outcome == LetIn {
		return b.Get(n, e.Location)
	}
	return e
}

// Leave gives up the place or the slot by way of a node's admin API.
func (b *Browser) Leave(n *Node) error {
	e := Event{Visitor: b.Name, Node: n.ID, Sent: time.Now(), Outcome: Left}
	e.Err = n.Leave(b.ID())
	e.Got = time.Now()
	b.note(e)
	return e.Err
}

// do makes one request, reads the whole answer, and notes what it means.
func (b *Browser) do(n *Node, target, accept string) Event {
	e := Event{Visitor: b.Name, Node: n.ID, Sent: time.Now(), Known: b.token() != ""}
	e.Err = b.exchange(&e, n.URL+target, accept)
	e.Got = time.Now()
	b.note(e)
	return e
}

func (b *Browser) exchange(e *Event, address, accept string) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", accept)
	req.Header.Set(visitorHeader, b.Name)
	res, err := b.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	e.Status, e.Location = res.StatusCode, res.Header.Get("Location")
	poll := strings.HasPrefix(req.URL.Path, "/wr_check")
	switch {
	case res.StatusCode == http.StatusOK && !poll: // owr's own answer to a visitor outside is never 200 there
		e.Outcome = Inside
	case res.StatusCode == http.StatusFound && strings.HasPrefix(e.Location, "/queue.html"):
		e.Outcome = Waiting
		b.query = strings.TrimPrefix(e.Location, "/queue.html")
	case res.StatusCode == http.StatusFound && poll:
		e.Outcome = LetIn
	case res.StatusCode == http.StatusOK && poll:
		var answer struct {
			Status   string
			Position int
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return fmt.Errorf("answer of /wr_check: %w: %.100s", err, body)
		}
		if answer.Status != "waiting" || answer.Position < 1 {
			return fmt.Errorf("answer of /wr_check: %.100s", body)
		}
		e.Outcome, e.Position = Waiting, answer.Position
	}
	return nil
}
