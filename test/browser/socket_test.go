package browser

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"

	"github.com/openwaitingroom/owr/test/harness"
)

// chat is a site whose page does nothing, and which says in capitals what it hears at /ws. It takes the handshake of its own pages alone.
func chat(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if _, err := io.WriteString(w, "<p>a quiet site"); err != nil {
			t.Errorf("the site's page: %v", err)
		}
	})
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Errorf("a handshake that the site does not take: %v", err)
			return
		}
		defer func() { _ = c.CloseNow() }() // the browser has closed it, or the test has failed
		c.SetReadLimit(1 << 20)
		for {
			kind, text, err := c.Read(r.Context())
			if err != nil {
				return // the browser has closed it
			}
			if err := c.Write(r.Context(), kind, []byte(strings.ToUpper(string(text)))); err != nil {
				return
			}
		}
	})
	site := httptest.NewServer(mux)
	t.Cleanup(site.Close)
	return site.URL
}

// talk opens a WebSocket from the page, says something in two messages, and answers what came back and how it was closed.
const talk = `
	window.heard = [];
	const socket = new WebSocket("ws://" + location.host + "/ws");
	socket.onopen = () => { socket.send("hello"); socket.send("x".repeat(70000)); };
	socket.onmessage = e => { heard.push(e.data.length > 9 ? "" + e.data.length + e.data[0] : e.data); if (heard.length == 2) socket.close(4000, "enough"); };
	socket.onclose = e => heard.push("closed " + e.code);
	socket.onerror = () => heard.push("an error");
	true`

// A browser's own WebSocket goes through the room of the visitor that is inside, and no other's does.
func TestABrowsersWebSocket(t *testing.T) {
	ctx := open(t)
	node := harness.NewNode(t, "n1", chat(t), harness.Settings{"WR_MAX_ACTIVE": "1"})
	node.Start()
	node.WaitReady()
	heard := func(want string) {
		t.Helper()
		var got []string
		if !harness.Poll(patience, func() bool {
			var err error
			got, err = ask[[]string](ctx, "window.heard || []")
			return err == nil && strings.Join(got, ", ") == want
		}) {
			t.Fatalf("the page has heard %q, want %q", got, want)
		}
	}
	do(t, ctx, chromedp.Navigate(node.URL+"/"))
	shows(t, ctx, "/", "a quiet site")
	if _, err := ask[bool](ctx, talk); err != nil {
		t.Fatal(err)
	}
	heard("HELLO, 70000X, closed 4000")

	// Whoever has no slot has no tunnel either.
	limit, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, res, err := websocket.Dial(limit, "ws"+strings.TrimPrefix(node.URL, "http")+"/ws", nil)
	if err == nil {
		_ = c.CloseNow() // the failure is that there is one
		t.Fatal("a newcomer has a tunnel though no slot is free")
	}
	if res == nil || !strings.HasPrefix(res.Request.URL.Path, "/queue.html") {
		t.Errorf("a newcomer's handshake is not sent to the waiting page: %v", err)
	}
	if res != nil && res.Body != nil {
		_ = res.Body.Close() // nothing of it is wanted
	}
}
