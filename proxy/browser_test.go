package proxy

import (
	"context"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/openwaitingroom/owr/queue"
)

// The page in a real browser: it waits, follows its place, says when something is wrong, and
// takes its visitor to the page it came for. Policy violations show as console errors.
func TestPageInABrowser(t *testing.T) {
	plainOnly(t) // the browser does not know the certificate
	chromium := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			chromium = path
			break
		}
	}
	if chromium == "" || testing.Short() {
		t.Skip("no browser here, or -short")
	}
	for _, mode := range []string{ModeRedirect, ModeInline} {
		t.Run(mode, func(t *testing.T) { followPage(t, chromium, mode) })
	}
}

func followPage(t *testing.T, chromium, mode string) {
	origin := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<title>shop</title>" + r.RequestURI))
	})
	room := newRoom(t, 1)
	s := serve(t, room, origin.URL, func(c *Config) { c.QueueMode = mode })
	inside, _ := room.active(t)
	room.do(func(r *fakeRoom) { r.limits.QueueAbsent = 3 * time.Second }) // asks once a second
	var ahead []queue.Token
	for range 2 {
		token, _ := room.queued(t)
		ahead = append(ahead, token)
	}

	allocator, cancel := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox)...)
	defer cancel()
	ctx, cancel := chromedp.NewContext(allocator)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	defer cancel()
	messages := chromedp.Console(ctx)
	complaints := make(chan []string, 1)
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
		complaints <- heard
	}()

	shows := func(what, expression, want string) {
		t.Helper()
		var got string
		deadline := time.Now().Add(20 * time.Second)
		for got != want && time.Now().Before(deadline) {
			var err error
			if got, err = chromedp.Run(ctx, chromedp.Evaluate[string](expression)); err != nil {
				got = err.Error() // between two pages
			}
		}
		if got != want {
			t.Fatalf("%s: got %q, want %q", what, got, want)
		}
	}
	text := func(id string) string { return `document.getElementById("` + id + `").textContent` }

	if err := chromedp.Do(ctx, chromedp.Navigate("http://"+s.addr+"/shop?item=7&name=a%20b#part")); err != nil {
		t.Fatal(err)
	}
	shows("the place", text("number"), "3")
	shows("the sentence", text("ahead"), "2 people ahead of you")
	shows("the title", "document.title", "3 in line")
	shows("the style is applied", `getComputedStyle(document.querySelector("main")).borderRadius`, "24px")
	room.set(ahead[0], queue.View{})
	shows("the place moves up", text("number"), "2")
	shows("the bar moves", `document.getElementById("bar").getAttribute("aria-valuenow")`, "67")
	room.do(func(r *fakeRoom) { r.limits.QueueMax = 1 })
	room.do(func(r *fakeRoom) { // the node forgets the visitor and the cluster cannot say
		for token, v := range r.views {
			if v.State == queue.Queued && token != ahead[1] {
				delete(r.views, token)
			}
		}
		r.submitErr = errNoQuorum
	})
	shows("trouble is said in plain words", `document.getElementById("state").className`, "state trouble")
	shows("the last place stays", text("number"), "2")
	room.do(func(r *fakeRoom) { r.submitErr = nil })
	shows("a full line is said", text("ahead"), "The line is full at the moment")

	room.do(func(r *fakeRoom) { r.limits.QueueMax, r.limits.MaxActive, r.line = 0, 10, nil })
	room.set(inside, queue.View{})
	room.set(ahead[1], queue.View{})
	// The page goes on asking at the interval it was told, up to 30 s for a full line.
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`window.dispatchEvent(new Event("online"))`)); err != nil {
		t.Fatal(err)
	}
	shows("the visitor arrives where it wanted to go", "location.pathname + location.search + location.hash", "/shop?item=7&name=a%20b#part")
	shows("and the site answers", "document.title", "shop")
	cancel()
	if heard := <-complaints; len(heard) > 0 {
		t.Errorf("the browser complains: %q", heard)
	}
	if got := origin.last(t).target; !strings.HasPrefix(got, "/shop") && got != "/favicon.ico" {
		t.Errorf("the origin saw %q", got)
	}
}
