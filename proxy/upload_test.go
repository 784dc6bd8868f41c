package proxy

import (
	"bufio"
	"net"
	"net/http"
	"testing"
	"time"
)

// An origin that hangs up while the client is still sending is the origin's fault, however the end of the upload and
// the end of the connection fall together: 502, and never a 400 or a 408 that blames the client.
func TestOriginHangsUpDuringAnUpload(t *testing.T) {
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	s := serve(t, room, rawOrigin(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c)) // the head, and then the end
	}), nil)
	for range 50 {
		w := s.dial()
		w.send("POST /upload HTTP/1.1\r\nHost: shop.example\r\nCookie: %s\r\nContent-Length: 100000\r\n\r\nhalf", cookie)
		if err := w.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if r := w.mustAnswer("POST"); r.StatusCode != 502 {
			t.Fatalf("got %d, want 502", r.StatusCode)
		}
		w.Close()
	}
}
