package test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// TestClientsHangUp cuts connections in every phase of a request. The node must give back what they
// held, and those who stay must not notice.
func TestClientsHangUp(t *testing.T) {
	// While a request is with the origin, only these times end it once its client has gone.
	w := harness.NewWorld(t, 5, harness.Settings{"WR_BACKEND_TIMEOUT": "3", "WR_STALL_TIMEOUT": "3", "WR_HEADER_TIMEOUT": "3"})
	watch := w.Watch()
	inside, waiting := w.LineUp(8)
	node := w.Leader()
	base := goroutines(t, node)

	visitor := inside[0].Headers() // whose slot the cut requests use
	host := strings.TrimPrefix(node.URL, "http://")
	cuts := map[string]string{
		"before a request":        "",
		"inside a head":           "GET / HTTP/1.1\r\nHost: " + host + "\r\nX-Half: ",
		"a poll without reading":  "GET /wr_check HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"a page without reading":  "GET /queue.html HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"a download, unread":      "GET /big HTTP/1.1\r\nHost: " + host + "\r\n" + visitor + "\r\n",
		"while the origin thinks": "GET /slow HTTP/1.1\r\nHost: " + host + "\r\n" + visitor + "\r\n",
		"inside an upload":        "POST /upload HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 100000\r\n" + visitor + "\r\nhalf",
		"inside a chunked upload": "POST /upload HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\n" + visitor + "\r\n5\r\nhal",
	}
	var wg sync.WaitGroup
	for name, request := range cuts {
		for i := range 20 {
			wg.Go(func() {
				if err := hangUp(host, request, i%2 == 0); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
	}
	wg.Wait()

	for _, b := range inside {
		if e := b.Get(node, "/"); e.Outcome != harness.Inside {
			t.Errorf("a visitor inside: %v", e)
		}
	}
	// A handful more is the connections of this test itself, and pools that fill and empty.
	harness.WaitFor(t, fmt.Sprintf("goroutines fall back to about %d", base), 45*time.Second, func() bool { return goroutines(t, node) <= base+15 })
	audit(w, watch, nil, append(inside, waiting...)...)
}

// hangUp sends the beginning of a request and closes the connection: hard, with a reset, or in good order.
func hangUp(host, request string, hard bool) error {
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	if tcp, ok := conn.(*net.TCPConn); ok && hard {
		return tcp.SetLinger(0)
	}
	return nil
}

func goroutines(t *testing.T, n *harness.Node) int {
	t.Helper()
	v, err := n.Metric("go_goroutines")
	if err != nil {
		t.Fatal(err)
	}
	return int(v)
}
