package proxy

import (
	"context"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// The page gets its visitor a place: with a worker, without one, and without scripts.
func TestPlaceInABrowser(t *testing.T) {
	plainOnly(t) // the browser knows no authority of ours
	chromium, err := exec.LookPath("chromium")
	if err != nil || testing.Short() {
		t.Skip("no browser here, or -short")
	}
	for name, c := range map[string]struct {
		prepare func(context.Context, *chromedp.Target) error
		way     func(*pow) float64
	}{
		"worker": {nil, func(p *pow) float64 { return testutil.ToFloat64(p.solved) }},
		"no worker": {func(ctx context.Context, tab *chromedp.Target) error {
			_, err := cdp.Call(ctx, tab, cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: "delete window.Worker"})
			return err
		}, func(p *pow) float64 { return testutil.ToFloat64(p.solved) }},
		"no scripts": {func(ctx context.Context, tab *chromedp.Target) error {
			_, err := cdp.Call(ctx, tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
			return err
		}, func(p *pow) float64 { return testutil.ToFloat64(p.waited) }},
	} {
		t.Run(name, func(t *testing.T) {
			room := newRoom(t, 1)
			room.active(t)
			site := newSite(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<title>shop</title>")) })
			s := serve(t, room, site.URL, func(c *Config) { c.Pow, c.PowBits = true, 16 })
			allocator, cancel := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox,
				chromedp.WSURLReadTimeout(time.Minute))...)
			defer cancel()
			ctx, cancel := chromedp.NewContext(allocator)
			defer cancel()
			ctx, cancel = context.WithTimeout(ctx, 8*time.Minute)
			defer cancel()
			var steps []chromedp.Action[chromedp.Void]
			if c.prepare != nil {
				steps = append(steps, chromedp.Func(c.prepare))
			}
			if err := chromedp.Do(ctx, append(steps, chromedp.Navigate("http://"+s.addr+"/shop"))...); err != nil {
				t.Fatal(err)
			}
			if name == "no scripts" {
				eventuallyWithin(t, 2*time.Minute, "the page has been asked for", func() bool { return testutil.ToFloat64(s.metrics.decisions[works]) > 0 })
				room.advance(31 * time.Second) // the page comes back by itself
			}
			eventuallyWithin(t, 2*time.Minute, "the visitor is in line", func() bool { return room.waiting() == 1 })
			if got := c.way(s.pow); got != 1 {
				t.Errorf("in this way: got %v, want 1", got)
			}
			// The policy lets the worker of the page's own run: what is made of a blob could not otherwise.
			if name == "worker" {
				eventuallyWithin(t, 2*time.Minute, "the page shows the place", func() bool {
					number, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.getElementById("number").textContent`))
					return err == nil && number == "1"
				})
				if got, err := chromedp.Run(ctx, chromedp.Evaluate[string](workerProbe, chromedp.EvalAwaitPromise)); err != nil || got != "runs" {
					t.Errorf("a worker made of a blob: got %q, %v", got, err)
				}
			}
		})
	}
}

// workerProbe says whether a worker made of a blob runs under the page's policy.
const workerProbe = `new Promise(function (answer) {
  var worker = new Worker(URL.createObjectURL(new Blob(["postMessage('runs')"])));
  worker.onmessage = function (e) { answer(e.data); };
  worker.onerror = function () { answer("refused"); };
})`

// eventuallyWithin is eventually for what takes a browser.
func eventuallyWithin(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
