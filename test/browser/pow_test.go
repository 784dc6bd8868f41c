package browser

import (
	"context"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/openwaitingroom/owr/test/harness"
)

// newPowRoom is one node with one slot and a visitor inside. Newcomers have to work.
func newPowRoom(t *testing.T, wait string) *room {
	t.Helper()
	r := &room{origin: harness.NewOrigin(t), inside: harness.NewBrowser(t, nil)}
	r.node = harness.NewNode(t, "n1", r.origin.URL, harness.Settings{"WR_MAX_ACTIVE": "1", "WR_ACTIVE_TTL": "600", "WR_POW": "auto", "WR_POW_WAIT": wait})
	r.node.Start()
	r.node.WaitReady()
	if e := r.inside.Visit(r.node, "/"); e.Outcome != harness.Inside {
		t.Fatalf("the first visitor: %v", e)
	}
	return r
}

// queued waits until that many are in line, and checks in which way the last one got there.
func queued(t *testing.T, r *room, want int, way string) {
	t.Helper()
	var got int
	if !harness.Poll(patience, func() bool {
		s, err := r.node.Status()
		got = s.Room.Queued
		return err == nil && got == want
	}) {
		t.Fatalf("not within %v: %d in line; there are %d", patience, want, got)
	}
	if n, err := r.node.Metric(`owr_pow_total{result="` + way + `"}`); err != nil || n != float64(want) {
		t.Errorf("%s: got %v, %v; want %d", way, n, err, want)
	}
}

// complaints collects what the browser says of scripts and policies until the function it answers is called.
func complaints(ctx context.Context) func() []string {
	ctx, cancel := context.WithCancel(ctx)
	messages, all := chromedp.Console(ctx), make(chan []string, 1)
	go func() {
		var heard []string
		for m, err := range messages {
			if err != nil {
				break
			}
			if m.IsException() || m.Source == "security" || strings.Contains(m.Text, "Content Security Policy") {
				heard = append(heard, m.String())
			}
		}
		all <- heard
	}()
	return func() []string {
		cancel()
		return <-all
	}
}

func TestPageWorksForItsPlace(t *testing.T) {
	ctx := open(t)
	r := newPowRoom(t, "600")
	heard := complaints(ctx)
	do(t, ctx, chromedp.Navigate(r.node.URL+target))
	queued(t, r, 1, "solved")
	number(t, ctx, "1")
	if live, err := ask[string](ctx, `document.getElementById("ahead").closest("[aria-live]").getAttribute("aria-live")`); err != nil || live != "polite" {
		t.Errorf("what the page says is not read out: %q, %v", live, err)
	}
	r.moveUp(t)
	shows(t, ctx, target, "/shop/item")
	quiet(t, ctx, r)
	if all := heard(); len(all) > 0 {
		t.Errorf("the browser complains: %q", all)
	}
}

// TestPageWorksWithoutAWorker is for browsers whose policy knows no workers, and for those that have none.
func TestPageWorksWithoutAWorker(t *testing.T) {
	ctx := open(t)
	r := newPowRoom(t, "600")
	do(t, ctx, chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: "delete window.Worker"})
		return err
	}), chromedp.Navigate(r.node.URL+target))
	queued(t, r, 1, "solved")
	number(t, ctx, "1")
}

func TestPatienceWithoutScripts(t *testing.T) {
	ctx := open(t)
	r := newPowRoom(t, "5")
	off := emulation.SetScriptExecutionDisabledParams{Value: true}
	do(t, ctx, send(emulation.SetScriptExecutionDisabled, off), chromedp.Navigate(r.node.URL+target))
	shows(t, ctx, "/queue.html", "You get a place in line without them too")
	queued(t, r, 1, "waited")
	r.moveUp(t)
	shows(t, ctx, target, "/shop/item")
}
