package proxy

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/internal/seal"
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
// What it allocates is the proxy's, since neither side does; with -secure the client's side of TLS counts too.
func BenchmarkForward(b *testing.B) {
	room := newRoom(b, 10)
	token, cookie := room.active(b)
	room.set(token, queue.View{State: queue.Active, Deadline: 1 << 50, TouchAfter: 1 << 50})
	s := serve(b, room, echoOrigin(b), nil)
	conn := s.dial().Conn
	if err := conn.SetDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
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

// A tableRoom is a room with a real table, and touches noted as a node notes them.
type tableRoom struct {
	*fakeRoom
	table  *queue.Table
	shards [64]struct {
		mu   sync.Mutex
		seen map[queue.Token]int64
	}
}

func (r *tableRoom) Lookup(t queue.Token) queue.View { return r.table.Lookup(t) }
func (r *tableRoom) Now() int64                      { return 1_000_000 + 5_000 } // every request is a sign of life
func (r *tableRoom) Keys() seal.Ring                 { return r.keys }
func (r *tableRoom) Applied() uint64                 { return 1 << 40 }

func (r *tableRoom) Touch(t queue.Token) {
	s := &r.shards[t[1]%64]
	s.mu.Lock()
	s.seen[t] = 1
	s.mu.Unlock()
}

// BenchmarkDecide is the whole decision for a visitor inside, one of a million, on all cores: cookie found and parsed, looked up, touch
// noted.
func BenchmarkDecide(b *testing.B) {
	const rows = 1_000_000
	limits := queue.DefaultLimits()
	limits.MaxActive = rows
	room := &tableRoom{fakeRoom: newRoom(b, rows), table: queue.NewTable(limits)}
	for i := range room.shards {
		room.shards[i].seen = make(map[queue.Token]int64, rows/64)
	}
	const cookieLen = len("wr_token=") + 71
	cookies := make([]byte, 0, rows*cookieLen)
	batch := make([]queue.Command, 0, 1000)
	for range rows {
		token := newToken()
		cookies = AppendCookie(append(cookies, "wr_token="...), token, room.keys[0], 1)
		if batch = append(batch, queue.Command{Kind: queue.KindArrive, Token: token}); len(batch) == cap(batch) {
			room.table.Apply(queue.Batch{Now: 1_000_000, Commands: batch}, nil)
			batch = batch[:0]
		}
	}
	s, err := New(Config{Room: room, Backend: mustURL(b, "http://127.0.0.1:1")})
	if err != nil {
		b.Fatal(err)
	}
	size := len(cookies) / rows
	b.ReportAllocs()
	b.ResetTimer()
	var seed atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		fields := []field{{name: []byte("Host"), value: []byte("shop.test"), kind: fieldHost}, {name: []byte("Cookie"), kind: fieldCookie}}
		h := &head{fields: fields}
		for n := int(seed.Add(1)) * 7919; pb.Next(); n++ {
			at := n % rows * size
			fields[1].value = cookies[at : at+size]
			if v := s.decide(h, &sender{}, false); v.outcome != letIn || v.tell {
				b.Errorf("verdict %+v", v)
				return
			}
		}
	})
}
