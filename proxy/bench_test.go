package proxy

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/openwaitingroom/owr/queue"
)

// echoOrigin answers every request on a connection with the same 127 bytes, and allocates nothing for it.
func echoOrigin(b *testing.B) string {
	b.Helper()
	answer := append([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 127\r\n\r\n"), bytes.Repeat([]byte("x"), 127)...)
	return rawOrigin(b, func(conn net.Conn) {
		buf := make([]byte, 16<<10)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
				if _, err := conn.Write(answer); err != nil {
					return
				}
			}
		}
	})
}

// BenchmarkForward is a whole request of a visitor inside: client, proxy and origin in one process on loopback.
// What it allocates is the proxy's, since neither side does.
func BenchmarkForward(b *testing.B) {
	room := newRoom(b, 10)
	token, cookie := room.active(b)
	room.set(token, queue.View{State: queue.Active, Deadline: 1 << 50, TouchAfter: 1 << 50})
	s := serve(b, room, echoOrigin(b), nil)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request := []byte("GET /shop?item=7 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\nAccept: text/html\r\nCookie: " + cookie + "\r\n\r\n")
	buf := make([]byte, 4096)
	size := 0
	exchange := func() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		if size == 0 {
			n, err := conn.Read(buf)
			if err != nil || !bytes.HasPrefix(buf, []byte("HTTP/1.1 200")) {
				b.Fatalf("%q, %v", buf[:n], err)
			}
			for !bytes.HasSuffix(buf[:n], bytes.Repeat([]byte("x"), 127)) {
				m, err := conn.Read(buf[n:])
				if err != nil {
					b.Fatal(err)
				}
				n += m
			}
			size = n
			return
		}
		if _, err := io.ReadFull(conn, buf[:size]); err != nil {
			b.Fatal(err)
		}
	}
	exchange()
	b.ReportAllocs()
	for b.Loop() {
		exchange()
	}
}
