//go:build !race

package proxy

import (
	"testing"

	"github.com/openwaitingroom/owr/queue"
)

func TestHotPathAllocatesNothing(t *testing.T) {
	room := newRoom(t, 10)
	s, err := New(Config{Room: room, Backend: mustURL(t, "http://127.0.0.1:1")})
	if err != nil {
		t.Fatal(err)
	}
	_, cookie := room.active(t)
	block := []byte("Host: shop.test\r\nUser-Agent: x\r\nAccept: text/html\r\nCookie: theme=dark; a={\"b\":1}\r\nCookie: b=2; " + cookie + "\r\nX-A: b\r\n\r\n")
	x := &exchange{}
	method, target, proto := []byte("GET"), []byte("/shop?item=7"), []byte("HTTP/1.1")
	peer := peerAddr(tcpAddr(t, "192.0.2.1:99"))
	admitted := 0
	if n := testing.AllocsPerRun(100, func() {
		if r := x.head.read(method, target, proto, block); r != nil {
			t.Fatal(r)
		}
		x.from = s.senderOf(peer, x.head.fields)
		if v := s.decideCounted(&x.head, x); v.outcome == letIn && !v.tell {
			admitted++
		}
	}); n != 0 {
		t.Errorf("the gate allocates %v times per request", n)
	}
	if admitted == 0 {
		t.Error("the visitor was not let in")
	}
	value := []byte(cookie[len("wr_token="):])
	var token queue.Token
	if n := testing.AllocsPerRun(100, func() { token, _, _ = ParseCookie(value) }); n != 0 {
		t.Errorf("ParseCookie allocates %v times", n)
	}
	if token == (queue.Token{}) {
		t.Error("no token")
	}
	out := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { out = s.appendOriginHead(out[:0], &x.head, &x.from) }); n > 2 {
		t.Errorf("the head to the origin allocates %v times", n)
	}
}

func TestBindingAllocatesNothing(t *testing.T) {
	for _, bind := range []string{"off", "ip+ua"} {
		s, x := insideOf(t, bind)
		if n := testing.AllocsPerRun(1000, func() {
			if v := s.decideCounted(&x.head, x); v.outcome != letIn || v.tell {
				t.Fatalf("got %+v", v)
			}
		}); n != 0 {
			t.Errorf("%s: the gate allocates %v times per request", bind, n)
		}
	}
}
