package proxy

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/queue"
)

// acceptOf is the answer to a key: RFC 6455, section 4.2.2.
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// frames is an origin that speaks WebSocket: it sends each text frame back, and ends when it is told to.
func frames(c net.Conn) {
	br := bufio.NewReader(c)
	r, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptOf(r.Header.Get("Sec-WebSocket-Key")))
	for {
		op, text, err := readFrame(br)
		if err != nil {
			return
		}
		_, _ = c.Write(frame(op, false, text))
		if op == 8 {
			return
		}
	}
}

// frame is one whole frame of at most 125 bytes: RFC 6455, section 5.2.
func frame(op byte, masked bool, text []byte) []byte {
	out := []byte{0x80 | op, byte(len(text))}
	if !masked {
		return append(out, text...)
	}
	out[1] |= 0x80
	mask := make([]byte, 4)
	_, _ = rand.Read(mask)
	out = append(out, mask...)
	for i, b := range text {
		out = append(out, b^mask[i%4])
	}
	return out
}

func readFrame(br *bufio.Reader) (op byte, text []byte, err error) {
	var head [2]byte
	if _, err = io.ReadFull(br, head[:]); err != nil {
		return 0, nil, err
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err = io.ReadFull(br, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	text = make([]byte, head[1]&0x7f)
	_, err = io.ReadFull(br, text)
	for i := range text {
		text[i] ^= mask[i%4]
	}
	return head[0] & 0xf, text, err
}

func TestAWebSocketFromHandshakeToClose(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, rawOrigin(t, frames), nil)
	for range 3 {
		_, cookie := room.active(t)
		nonce := make([]byte, 16)
		_, _ = rand.Read(nonce)
		key := base64.StdEncoding.EncodeToString(nonce)
		w := s.dial().send("GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nCookie: %s\r\n\r\n", key, cookie)
		r, err := http.ReadResponse(w.br, &http.Request{Method: "GET"})
		if err != nil || r.StatusCode != 101 || r.Header.Get("Sec-WebSocket-Accept") != acceptOf(key) {
			t.Fatalf("the handshake: %v, %v", r, err)
		}
		for _, text := range []string{"hello", "", strings.Repeat("x", 125)} {
			_, _ = w.Write(frame(1, true, []byte(text)))
			if op, got, err := readFrame(w.br); op != 1 || string(got) != text || err != nil {
				t.Fatalf("frame %q: %d %q, %v", text, op, got, err)
			}
		}
		_, _ = w.Write(frame(8, true, binary.BigEndian.AppendUint16(nil, 1000)))
		if op, _, err := readFrame(w.br); op != 8 || err != nil {
			t.Errorf("the close frame: %d, %v", op, err)
		}
		if !w.ended() {
			t.Error("the origin's end does not reach the client")
		}
		_ = w.Close()
	}
	eventually(t, "owr_tunnels is 0", func() bool { return testutil.ToFloat64(s.metrics.tunnels) == 0 })
}

func TestA101ThatAnswersAnotherHandshake(t *testing.T) {
	room := newRoom(t, 10)
	for name, accept := range map[string]string{
		"of another key": "Sec-WebSocket-Accept: " + acceptOf("AAAAAAAAAAAAAAAAAAAAAA==") + "\r\n",
		"none":           "",
		"empty":          "Sec-WebSocket-Accept: \r\n",
		"the key":        "Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==\r\n",
	} {
		reached := make(chan string, 1)
		s := serve(t, room, rawOrigin(t, func(c net.Conn) {
			br := bufio.NewReader(c)
			if _, err := http.ReadRequest(br); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+accept+"\r\nleaked")
			rest, _ := io.ReadAll(br)
			reached <- string(rest)
		}), nil)
		_, cookie := room.active(t)
		w, r := s.upgrade("/ws", cookie, "early")
		body, _ := io.ReadAll(r.Body)
		if r.StatusCode != 502 || strings.Contains(string(body), "leaked") {
			t.Errorf("%s: %d %q, want 502 and nothing of the origin's", name, r.StatusCode, body)
		}
		if got := <-reached; got != "" {
			t.Errorf("%s: the origin got %q", name, got)
		}
		_ = w.Close()
	}
}

// What the client sends early stays here until the origin's 101, whatever its size, and an origin that never says it is too slow.
func TestNothingPassesBeforeThe101(t *testing.T) {
	room := newRoom(t, 10)
	early := strings.Repeat("early ", 5000)
	answer, first := make(chan bool), make(chan []byte, 1)
	s := serve(t, room, rawOrigin(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		got := make([]byte, 1)
		n, _ := br.Read(got)
		first <- got[:n]
		if !<-answer {
			_, _ = io.Copy(io.Discard, br)
			return
		}
		_ = c.SetReadDeadline(time.Time{})
		_, _ = io.WriteString(c, switched)
		_, _ = io.Copy(c, br)
	}), func(c *Config) { c.BackendTimeout = time.Second })
	_, cookie := room.active(t)

	w := s.dial().send("GET /ws HTTP/1.1\r\nHost: shop.test\r\nCookie: %s\r\n%s\r\n%s", cookie, handshake, early)
	if got := <-first; len(got) > 0 {
		t.Errorf("%q passed before the 101", got)
	}
	answer <- true
	if r, err := http.ReadResponse(w.br, nil); err != nil || r.StatusCode != 101 {
		t.Fatalf("%v, %v", r, err)
	}
	w.expect(early)

	w = s.dial().send("GET /ws HTTP/1.1\r\nHost: shop.test\r\nCookie: %s\r\n%s\r\n", cookie, handshake)
	<-first
	if r, err := http.ReadResponse(w.br, nil); err != nil || r.StatusCode != 504 {
		t.Errorf("an origin that is silent: %v, %v, want 504", r, err)
	}
	answer <- false
}

// The origin's end is passed on as well, what the client still sends reaches it, and a side that fails ends both.
func TestATunnelEndsFromTheOriginsSide(t *testing.T) {
	room := newRoom(t, 10)
	rest := make(chan string, 1)
	s := serve(t, room, rawOrigin(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, switched+"bye")
		if r.URL.Path == "/fails" {
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		}
		_ = c.(*net.TCPConn).CloseWrite()
		all, _ := io.ReadAll(br)
		rest <- string(all)
	}), nil)
	_, cookie := room.active(t)
	w, _ := s.upgrade("/ws", cookie, "")
	w.expect("bye")
	if _, err := w.br.ReadByte(); err != io.EOF {
		t.Errorf("after the origin's end: %v, want EOF", err)
	}
	w.send("the last word")
	w.closeWrite()
	if got := <-rest; got != "the last word" {
		t.Errorf("the origin got %q", got)
	}
	w, _ = s.upgrade("/fails", cookie, "")
	_, _ = io.Copy(io.Discard, w.br)
	eventually(t, "no tunnel is left", func() bool { return testutil.ToFloat64(s.metrics.tunnels) == 0 })
}

// A side that has ended may not keep the other for ever.
func TestAHalfOpenTunnelEndsWhenItIsIdle(t *testing.T) {
	room := newRoom(t, 10)
	over := make(chan struct{})
	s := serve(t, room, rawOrigin(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		if _, err := http.ReadRequest(br); err == nil {
			_, _ = io.WriteString(c, switched)
			_, _ = io.Copy(io.Discard, br)
			<-over // it does not end its own side
		}
	}), func(c *Config) { c.IdleTimeout = 100 * time.Millisecond })
	defer close(over)
	_, cookie := room.active(t)
	w, _ := s.upgrade("/ws", cookie, "")
	w.closeWrite()
	if !w.ended() {
		t.Error("the tunnel stays open")
	}
}

// An operator takes the slot of a visitor whose tunnel is busy in both directions: it ends within a few seconds all the same.
func TestABusyTunnelEndsWithItsSlot(t *testing.T) {
	room := newRoom(t, 10)
	s := serve(t, room, rawOrigin(t, echo(nil)), nil)
	token, cookie := room.active(t)
	w, _ := s.upgrade("/ws", cookie, "")
	w.echo("x")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := io.WriteString(w.Conn, "busy "); err != nil {
				return
			}
			if _, err := io.ReadFull(w.br, make([]byte, 5)); err != nil {
				return
			}
		}
	}()
	room.set(token, queue.View{})
	select {
	case <-done:
	case <-time.After(2 * patience):
		t.Error("the tunnel outlives the slot")
		_ = w.Close()
		<-done
	}
}
