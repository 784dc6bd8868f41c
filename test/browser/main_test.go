// Package browser opens the waiting page in a real browser.
package browser

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/openwaitingroom/owr/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// patience is how long a page may take to show what it has to; it asks every few seconds.
const patience = 45 * time.Second

// open starts a browser with one tab. It skips the test where there is none.
func open(t *testing.T) context.Context {
	t.Helper()
	harness.Binary(t) // skips the test before a browser is started
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("chromium is missing: make tools")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		// The tests may run as root or in a container, where the sandbox cannot start. The browser
		// sees nothing but owr on loopback.
		chromedp.NoSandbox,
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("lang", "en-US"),
		chromedp.WSURLReadTimeout(time.Minute),
	)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancelAllocator)
	ctx, cancelTab := chromedp.NewContext(ctx)
	t.Cleanup(cancelTab)
	if err := chromedp.Do(ctx); err != nil { // the first call starts the browser, which lives as long as its context
		t.Fatal(err)
	}
	return ctx
}

// do runs steps in the tab and fails the test when one does.
func do(t *testing.T, ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// ask evaluates an expression in the tab.
func ask[T any](ctx context.Context, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression))
}

// see answers where the tab is and what it shows. While the tab is on its way to another page, it shows nothing.
func see(ctx context.Context) (address, text string) {
	seen, err := ask[[]string](ctx, `[location.href, document.body ? document.body.innerText : ""]`)
	if err != nil || len(seen) != 2 {
		return "", ""
	}
	return seen[0], seen[1]
}

// shows waits until the tab is at an address that ends so and shows a text.
func shows(t *testing.T, ctx context.Context, address, text string) {
	t.Helper()
	var at, body string
	if !harness.Poll(patience, func() bool {
		at, body = see(ctx)
		return strings.Contains(at, address) && strings.Contains(body, text)
	}) {
		t.Fatalf("not within %v: %q at %s; the tab is at %s and shows %q", patience, text, address, at, body)
	}
}

// A room is one node with one slot, a visitor inside, and one in line.
type room struct {
	node          *harness.Node
	origin        *harness.Origin
	inside, ahead *harness.Browser
}

func newRoom(t *testing.T, settings harness.Settings) *room {
	t.Helper()
	r := &room{origin: harness.NewOrigin(t)}
	all := harness.Settings{"WR_MAX_ACTIVE": "1"}
	maps.Copy(all, settings)
	r.node = harness.NewNode(t, "n1", r.origin.URL, all)
	r.node.Start()
	r.node.WaitReady()
	r.inside, r.ahead = harness.NewBrowser(t, nil), harness.NewBrowser(t, nil)
	if e := r.inside.Visit(r.node, "/"); e.Outcome != harness.Inside {
		t.Fatalf("the first visitor: %v", e)
	}
	r.ahead.Get(r.node, "/") // brings the cookie; the first poll with it takes the place
	if e := r.ahead.Check(r.node); e.Outcome != harness.Waiting || e.Position != 1 {
		t.Fatalf("the second visitor: %v", e)
	}
	return r
}

// moveUp lets the visitor ahead in, and out again when it had been in before.
func (r *room) moveUp(t *testing.T) {
	t.Helper()
	if err := r.inside.Leave(r.node); err != nil {
		t.Fatal(err)
	}
	if r.ahead == nil {
		return
	}
	harness.WaitFor(t, "the head of the line is let in", 5*time.Second, func() bool { return r.ahead.Enter(r.node).Outcome == harness.Inside })
	r.inside, r.ahead = r.ahead, nil
}
