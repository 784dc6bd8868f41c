package browser

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/openwaitingroom/owr/test/harness"
)

// target is where the visitor wants to go; what follows the # never reaches a server.
const target = "/shop/item?id=7&name=a%20b"

func TestPageTakesItsVisitorIn(t *testing.T) {
	ctx := open(t)
	r := newRoom(t, nil)
	do(t, ctx, chromedp.Navigate(r.node.URL+target))
	shows(t, ctx, "/queue.html", "2")
	number(t, ctx, "2")
	screenshots(t, ctx)

	r.moveUp(t)
	number(t, ctx, "1")
	r.moveUp(t)
	shows(t, ctx, target, "/shop/item")
	quiet(t, ctx, r)
}

func TestPageInlineTakesItsVisitorIn(t *testing.T) {
	ctx := open(t)
	r := newRoom(t, harness.Settings{"WR_QUEUE_MODE": "inline"})
	do(t, ctx, chromedp.Navigate(r.node.URL+target))
	number(t, ctx, "2")
	shows(t, ctx, target, "2")
	r.moveUp(t)
	number(t, ctx, "1")
	r.moveUp(t)
	shows(t, ctx, target, "/shop/item")
}

// TestPageWithoutScripts waits and comes in with nothing but HTML.
func TestPageWithoutScripts(t *testing.T) {
	ctx := open(t)
	r := newRoom(t, nil)
	off := emulation.SetScriptExecutionDisabledParams{Value: true}
	do(t, ctx, send(emulation.SetScriptExecutionDisabled, off), chromedp.Navigate(r.node.URL+target))
	shows(t, ctx, r.node.URL, "2")
	number(t, ctx, "2")
	r.moveUp(t)
	number(t, ctx, "1")
	r.moveUp(t)
	shows(t, ctx, target, "/shop/item")
}

// TestPageOfOnesOwn has a page that knows nothing of owr but /wr_check and its redirect.
func TestPageOfOnesOwn(t *testing.T) {
	path, err := filepath.Abs("testdata/page.html")
	if err != nil {
		t.Fatal(err)
	}
	ctx := open(t)
	r := newRoom(t, harness.Settings{"WR_PAGE_FILE": path})
	do(t, ctx, chromedp.Navigate(r.node.URL+target))
	shows(t, ctx, "/queue.html", "Please wait: 2")
	r.moveUp(t)
	shows(t, ctx, "/queue.html", "Please wait: 1")
	r.moveUp(t)
	shows(t, ctx, r.node.URL, "/")
	harness.WaitFor(t, "the site's page", patience, func() bool {
		at, body := see(ctx)
		return !regexp.MustCompile(`queue\.html|wr_check`).MatchString(at) && body != ""
	})
}

// number waits until the page shows a place, big and alone.
func number(t *testing.T, ctx context.Context, want string) {
	t.Helper()
	var got string
	if !harness.Poll(patience, func() bool {
		got, _ = ask[string](ctx, `document.getElementById("number").innerText`) // another page has none
		return got == want
	}) {
		t.Fatalf("not within %v: place %s; the page shows %q", patience, want, got)
	}
}

// quiet checks that the visitor's way back asked the origin for the page once, and not for anything of owr's.
func quiet(t *testing.T, ctx context.Context, r *room) {
	t.Helper()
	pages := 0
	for _, hit := range r.origin.Hits() {
		if hit.Target == target {
			pages++
		}
		if regexp.MustCompile(`^/(wr_|queue\.html)`).MatchString(hit.Target) {
			t.Errorf("the origin was asked for %s", hit.Target)
		}
	}
	if pages != 1 {
		t.Errorf("the page was asked for %d times, not once", pages)
	}
	if title, err := ask[string](ctx, "document.title"); err != nil || title != "the site" {
		t.Errorf("the title is %q, %v", title, err)
	}
}

// screenshots keeps pictures of the waiting page on a phone and on a desk, in light and in dark, for people to
// look at, and checks of each what can be checked.
func screenshots(t *testing.T, ctx context.Context) {
	t.Helper()
	dir, err := os.MkdirTemp("", "owr-screenshots-") //nolint:usetesting // they are to outlive the test
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("screenshots in %s", dir)
	for _, size := range [][2]int64{{390, 844}, {1280, 800}} {
		for _, scheme := range []string{"light", "dark"} {
			name := fmt.Sprintf("%dx%d-%s", size[0], size[1], scheme)
			media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
			}}
			do(t, ctx, chromedp.EmulateViewport(size[0], size[1]), send(emulation.SetEmulatedMedia, media))
			if wide, err := ask[bool](ctx, "document.documentElement.scrollWidth > innerWidth"); err != nil || wide {
				t.Errorf("%s: the page is wider than the window (%v)", name, err)
			}
			shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
			if err != nil {
				t.Fatal(err)
			}
			if got := brightness(t, shot); (got > 128) != (scheme == "light") {
				t.Errorf("%s: the mean brightness is %.0f of 255", name, got)
			}
			if err := os.WriteFile(filepath.Join(dir, name+".png"), shot, 0o600); err != nil {
				t.Error(err)
			}
		}
	}
}

// brightness is the mean of a picture's pixels, from 0 to 255.
func brightness(t *testing.T, shot []byte) float64 {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	var sum, count float64
	area := picture.Bounds()
	for y := area.Min.Y; y < area.Max.Y; y += 4 {
		for x := area.Min.X; x < area.Max.X; x += 4 {
			r, g, b, _ := picture.At(x, y).RGBA()
			sum += float64(r+g+b) / 3 / 257
			count++
		}
	}
	return sum / count
}

// send makes a step of a command of the browser's protocol that answers nothing.
func send[P any](command cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, command, params)
		return err
	})
}
