package proxy

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// names is a name server that knows one address, for every name.
type names struct {
	address atomic.Pointer[net.IP]
	asked   atomic.Int32
}

// serve answers DNS queries (RFC 1035, section 4) for A records until the connection is closed.
func (n *names) serve(conn net.PacketConn) {
	buf := make([]byte, 512)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		query := buf[:size]
		end := 12
		for end < size && query[end] != 0 {
			end += int(query[end]) + 1
		}
		end += 5 // the root label, type and class
		if end > size {
			continue
		}
		isA := binary.BigEndian.Uint16(query[end-4:]) == 1
		answer := append([]byte(nil), query[:end]...)
		binary.BigEndian.PutUint16(answer[2:], 0x8180) // a response, recursion done, no error
		clear(answer[6:12])
		if isA {
			n.asked.Add(1)
			answer[7] = 1                                                   // one answer:
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4) // the same name, A, IN, 1 s, 4 bytes
			answer = append(answer, (*n.address.Load()).To4()...)
		}
		_, _ = conn.WriteTo(answer, from)
	}
}

// A host name is resolved at every dial, so an origin that moves is followed as soon as the old one ends its
// connections.
func TestOriginMoves(t *testing.T) {
	dns, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done, n := make(chan struct{}), &names{}
	go func() {
		defer close(done)
		n.serve(dns)
	}()
	usual := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", dns.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = usual
		dns.Close()
		<-done
	})

	first, second := net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	at := func(l net.Listener, says string) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(says)) }))
		s.Listener.Close()
		s.Listener = l
		s.Start()
		t.Cleanup(s.Close)
		return s
	}
	old := at(l, "old")
	l, err = net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	at(l, "new")

	n.address.Store(&first)
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	s := serve(t, room, "http://site.example:"+port, func(c *Config) { c.Loops = 1 })
	if r := s.ask("GET", "/", "Cookie: "+cookie); r.text != "old" {
		t.Fatalf("first: %d %q", r.StatusCode, r.text)
	}
	n.address.Store(&second)
	if r := s.ask("GET", "/", "Cookie: "+cookie); r.text != "old" {
		t.Errorf("a connection that works is used on: %d %q", r.StatusCode, r.text)
	}
	old.Close()
	if r := s.ask("GET", "/", "Cookie: "+cookie); r.text != "new" {
		t.Errorf("after the old one has gone: %d %q, asked %d times", r.StatusCode, r.text, n.asked.Load())
	}
}
