package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/queue"
)

const handshake = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n"

const switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

// echo switches protocols at /ws and sends back what comes; other paths it answers as a site.
func echo(heads chan<- *http.Request) func(net.Conn) {
	return func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if heads != nil {
				heads <- r
			}
			switch r.URL.Path {
			case "/ws":
				if br.Buffered() > 0 {
					_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") // bytes before our 101
					return
				}
				_, _ = io.WriteString(c, switched)
				_, _ = io.Copy(c, br)
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, br)
				return
			case "/refuses":
				_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n")
			case "/other":
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
			default:
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
			}
		}
	}
}

// upgrade asks for a tunnel and returns the wire and the answer's head.
func (s *stand) upgrade(path, cookie, early string) (*wire, *http.Response) {
	s.t.Helper()
	w := s.dial().send("GET %s HTTP/1.1\r\nHost: shop.test\r\nCookie: %s\r\n%s\r\n%s", path, cookie, handshake, early)
	r, err := http.ReadResponse(w.br, &http.Request{Method: "GET"})
	if err != nil {
		s.t.Fatal(err)
	}
	return w, r
}

func (w *wire) echo(text string) {
	w.t.Helper()
	w.send("%s", text)
	w.expect(text)
}

func (w *wire) expect(text string) {
	w.t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(w.br, got); err != nil || string(got) != text {
		w.t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

func TestWebSocketIsTunnelled(t *testing.T) {
	heads := make(chan *http.Request, 10)
	room := newRoom(t, 10)
	s := serve(t, room, rawOrigin(t, echo(heads)), nil)
	_, cookie := room.active(t)
	s.ask("GET", "/", "Cookie: "+cookie) // an idle connection that must not be used
	<-heads
	w, r := s.upgrade("/ws", cookie, "early ")
	if r.StatusCode != 101 || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || r.Header.Get("Sec-WebSocket-Accept") == "" || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
		t.Fatalf("got %d %v", r.StatusCode, r.Header)
	}
	h := (<-heads).Header
	if h.Get("Upgrade") != "websocket" || h.Get("Connection") != "Upgrade" || h.Get("Sec-WebSocket-Key") == "" || h.Get("Sec-WebSocket-Protocol") != "chat" || h.Get("Cookie") != "" || h.Get("X-Real-IP") == "" {
		t.Errorf("the origin got %v", h)
	}
	w.expect("early ")
	w.echo("hello")
	w.echo(strings.Repeat("0123456789", 20_000))
	if got := testutil.ToFloat64(s.metrics.tunnels); got != 1 {
		t.Errorf("owr_tunnels: got %v, want 1", got)
	}
	if r := s.ask("GET", "/", "Cookie: "+cookie); r.text != "fine" {
		t.Errorf("a request beside the tunnel: got %q", r.text)
	}
	// The client's end is passed on, what is under way still comes back, then all is over.
	w.send("last")
	w.closeWrite()
	w.expect("last")
	if !w.ended() {
		t.Error("the tunnel stays open")
	}
	eventually(t, "owr_tunnels is 0", func() bool { return testutil.ToFloat64(s.metrics.tunnels) == 0 })
}

func TestUpgradeThatIsRefused(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, rawOrigin(t, echo(nil)), nil)
	_, cookie := room.active(t)
	w, r := s.upgrade("/refuses", cookie, "")
	if body, _ := io.ReadAll(r.Body); r.StatusCode != 403 || string(body) != "no\n" {
		t.Errorf("got %d %q", r.StatusCode, body)
	}
	if r := w.send("%s", request("GET", "/", "", "Cookie: "+cookie)).mustAnswer("GET"); r.text != "fine" {
		t.Errorf("the connection after it: got %d %q", r.StatusCode, r.text)
	}
	if _, r := s.upgrade("/other", cookie, ""); r.StatusCode != 502 {
		t.Errorf("another protocol than asked for: got %d", r.StatusCode)
	}
	_, r = s.upgrade("/none", cookie, "")
	if body, _ := io.ReadAll(r.Body); string(body) != "fine" {
		t.Errorf("an origin that ignores it: got %q", body)
	}
}

func TestOtherUpgradesAreOrdinaryRequests(t *testing.T) {
	heads := make(chan *http.Request, 10)
	room := newRoom(t, 10)
	s := serve(t, room, rawOrigin(t, echo(heads)), nil)
	_, cookie := room.active(t)
	for name, text := range map[string]string{
		"h2c":                      "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\nCookie: " + cookie + "\r\n\r\n",
		"not named in Connection":  "GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nCookie: " + cookie + "\r\n\r\n",
		"with a body":              "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\nCookie: " + cookie + "\r\n\r\nabc",
		"another method":           "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\nCookie: " + cookie + "\r\n\r\n",
		"HTTP/1.0":                 "GET /x HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: " + cookie + "\r\n\r\n",
		"two protocols, one of us": "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\nCookie: " + cookie + "\r\n\r\n",
	} {
		if r := s.dial().send("%s", text).mustAnswer("GET"); r.StatusCode != 200 {
			t.Errorf("%s: got %d", name, r.StatusCode)
		}
		if h := (<-heads).Header; h.Get("Upgrade") != "" || h.Get("Connection") != "" || h.Get("Http2-Settings") != "" {
			t.Errorf("%s: the origin got %v", name, h)
		}
	}
}

func TestWaitingVisitorGetsNoTunnel(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, rawOrigin(t, echo(nil)), nil)
	_, cookie := room.queued(t)
	if _, r := s.upgrade("/ws", cookie, ""); r.StatusCode != 302 {
		t.Errorf("got %d", r.StatusCode)
	}
}

func TestTunnelKeepsTheSlotAndEndsWithIt(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, rawOrigin(t, echo(nil)), nil)
	token, cookie := room.active(t)
	w, _ := s.upgrade("/ws", cookie, "")
	room.touches()
	room.advance(2 * time.Second)
	w.echo("x")
	if room.touches() == 0 {
		t.Error("bytes in the tunnel are no sign of life")
	}
	room.set(token, queue.View{}) // an operator has taken the slot back
	if !w.ended() {
		t.Error("the tunnel outlives the slot")
	}

	token, cookie = room.active(t)
	w, _ = s.upgrade("/ws", cookie, "")
	room.do(func(r *fakeRoom) { r.submitErr = errNoQuorum })
	room.advance(2 * time.Minute) // past the deadline, and the cluster cannot say (I5)
	if !w.ended() {
		t.Errorf("the tunnel outlives the deadline of %v", token)
	}
}

func TestTunnelIsCutAtTheEndOfADrain(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, rawOrigin(t, echo(nil)), nil)
	_, cookie := room.active(t)
	w, _ := s.upgrade("/ws", cookie, "")
	w.echo("before")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	eventually(t, "draining", s.draining.Load)
	w.echo("meanwhile")
	if err := <-done; err == nil {
		t.Error("the drain did not run out of time")
	}
	if !w.ended() {
		t.Error("the tunnel survived")
	}
}
