package abuse

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/internal/certs/certstest"
	"github.com/openwaitingroom/owr/test/harness"
)

// A stage is how far a connection gets before it is aborted: what it sends, and what it then waits for, if anything, and sends still.
type stage struct {
	send, await, then string
}

// requests are the stages of a visitor's requests, with a cookie of one inside.
func requests(cookie string) []stage {
	own := "Host: shop.test\r\nCookie: wr_token=" + cookie + "\r\n"
	upgrade := "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	return []stage{
		{},                                   // before a byte
		{send: "GET / HTTP/1.1\r\nHost: sh"}, // in the head
		{send: "POST /upload HTTP/1.1\r\n" + own + "Content-Length: 100000\r\n\r\nhalf"},                                            // in the body
		{send: "POST /upload HTTP/1.1\r\n" + own + "Transfer-Encoding: chunked\r\n\r\n5\r\nhal"},                                    // in a chunk
		{send: "POST /upload HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000\r\n\r\nhalf"},                                    // of one outside
		{send: "GET /new HTTP/1.1\r\nHost: shop.test\r\n\r\n"},                                                                      // while a decision is waited for
		{send: "GET /slow HTTP/1.1\r\n" + own + "\r\n"},                                                                             // while the origin works
		{send: "GET /big HTTP/1.1\r\n" + own + "\r\n"},                                                                              // in the answer
		{send: "POST /upload HTTP/1.1\r\n" + own + "Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n"},                        // while it waits for our leave
		{send: "POST /upload HTTP/1.1\r\n" + own + "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n", await: "100", then: "half"}, // and with that
		{send: "GET /slow HTTP/1.1\r\n" + own + upgrade},                                                                            // before the 101
		{send: "GET /echo HTTP/1.1\r\n" + own + upgrade, await: "101"},                                                              // in a tunnel nobody has used
		{send: "GET /echo HTTP/1.1\r\n" + own + upgrade, await: "101", then: "a word"},                                              // in one with bytes under way
		{send: "GET /wr_check HTTP/1.1\r\n" + own + "\r\n"},                                                                         // in an answer of owr's own
		{send: "GET / HTTP/1.1\r\n" + own + "\r\nGET / HTTP/1.1\r\n" + own + "\r\nGET / HTTP/1.1\r"},                                // in a pipeline
		{send: "GET / HTTP/1.0\r\nCookie: wr_tok"},                                                                                  // in a head of HTTP/1.0
		{send: "GET /big HTTP/1.0\r\n" + own + "\r\n", await: "200"},                                                                // in its answer, which ends with the connection
		{send: "POST /upload HTTP/1.0\r\n" + own + "Content-Length: 100000\r\n\r\nhalf"},                                            // in its body
	}
}

// over puts a preface before every stage, and adds what aborts in the midst of that.
func over(preface string, stages []stage, more ...stage) []stage {
	for _, s := range stages {
		more = append(more, stage{preface + s.send, s.await, s.then})
	}
	return more
}

// run goes through a stage on a connection, and reports whether it got to its end.
func (s stage) run(c net.Conn) bool {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, s.send); err != nil {
		return false // the node was quicker than we
	}
	if s.await == "" {
		return true
	}
	line := make([]byte, len("HTTP/1.1 ")+len(s.await))
	if _, err := io.ReadFull(c, line); err != nil || !bytes.HasSuffix(line, []byte(s.await)) {
		return false
	}
	_, err := io.WriteString(c, s.then)
	return err == nil
}

// aborted goes through the stages again and again until there were n, each on a connection of its own, of which every other is reset and the rest
// closed. None leaves anything behind.
func (v *victim) aborted(n int, stages []stage, wrap func(net.Conn) net.Conn) {
	v.t.Helper()
	abort := func(i int) error {
		raw, err := net.DialTimeout("tcp", v.host, 20*time.Second)
		if err != nil {
			return err
		}
		defer raw.Close()
		if s := stages[i%len(stages)]; !s.run(wrap(raw)) && i < len(stages) {
			return fmt.Errorf("it does not get to the end of %q, %q", s.send, s.await)
		}
		if tcp, ok := raw.(*net.TCPConn); ok && i/len(stages)%2 == 0 {
			return tcp.SetLinger(0)
		}
		return nil
	}
	each(v.t, len(stages), 1, abort) // each stage is one
	before := v.rss()
	each(v.t, n, 64, abort) // the heap gets as large as so many at a time make it, and keeps that for minutes
	harness.WaitFor(v.t, "the first ones are over", 60*time.Second, func() bool {
		return v.metric("owr_connections") <= 2 && v.metric("owr_origin_connections") == 0
	})
	goroutines, files, rss := v.metric("go_goroutines"), v.metric("process_open_fds"), v.rss()
	begun := time.Now()
	each(v.t, n, 64, abort)
	took := time.Since(begun)
	v.calms(goroutines, files)
	grown := v.rss() - rss
	v.t.Logf("twice %d aborted connections, the second time in %v: goroutines %.0f, then %.0f; descriptors %.0f, then %.0f; RSS grew by %.1f MiB, then by %.1f", n,
		took.Round(time.Millisecond), goroutines, v.metric("go_goroutines"), files, v.metric("process_open_fds"), rss-before, grown)
	if rss-before > float64(size(60, 250)) || grown > 40 {
		v.t.Errorf("RSS grew by %.1f MiB, then by %.1f", rss-before, grown)
	}
	if got := v.metric("owr_panics_total"); got > 0 {
		v.t.Errorf("%v panics", got)
	}
}

// aborts are the settings of a node whose timeouts a test can wait for.
func aborts(more ...string) harness.Settings {
	s := harness.Settings{"WR_BACKEND_TIMEOUT": "5", "WR_STALL_TIMEOUT": "5", "WR_HEADER_TIMEOUT": "5"}
	for pair := range slices.Chunk(more, 2) {
		s[pair[0]] = pair[1]
	}
	return s
}

// Connections that are aborted at every stage of a request leave nothing behind.
func TestAborts(t *testing.T) {
	v := attacked(t, 10, aborts())
	cookie, _ := v.visit()
	v.aborted(size(3000, 100_000), requests(cookie), func(c net.Conn) net.Conn { return c })
	if status := v.reask(cookie); status != http.StatusOK {
		t.Errorf("the visitor inside: got %d", status)
	}
}

// Nor do those that begin with a header of the PROXY protocol, or end in it.
func TestAbortsOfPROXY(t *testing.T) {
	v := attacked(t, 10, aborts("WR_PROXY_PROTOCOL", "on", "WR_TRUSTED_PROXIES", "127.0.0.0/8"))
	const v1 = "PROXY TCP4 198.51.100.7 10.0.0.1 12345 80\r\n"
	const v2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\x0a\x00\x00\x01\x30\x39\x00\x50"
	v.preface = v1
	cookie, status := v.visit()
	if status != http.StatusOK {
		t.Fatalf("the first visitor: got %d", status)
	}
	stages := over(v1, requests(cookie), stage{send: v1[:9]}, stage{send: v1[:len(v1)-1]}, stage{send: v2[:5]}, stage{send: v2[:20]})
	v.aborted(size(3000, 100_000), over(v2, requests(cookie), stages...), func(c net.Conn) net.Conn { return c })
	if status := v.reask(cookie); status != http.StatusOK {
		t.Errorf("the visitor inside: got %d", status)
	}
}

// Nor do those over TLS, which may also end in the midst of a handshake.
func TestAbortsOfTLS(t *testing.T) {
	ca := certstest.NewCA(t, "tests of owr")
	cert, key := ca.Issue(nil, "shop.test").Files(t.TempDir())
	v := attacked(t, 10, aborts("WR_TLS_CERT", cert, "WR_TLS_KEY", key))
	config := &tls.Config{RootCAs: ca.Pool(), ServerName: "shop.test", MinVersion: tls.VersionTLS12}
	secure := func(c net.Conn) net.Conn { return tls.Client(c, config) }
	v.wrap = secure
	cookie, status := v.visit()
	if status != http.StatusOK {
		t.Fatalf("the first visitor: got %d", status)
	}
	v.aborted(size(1000, 20_000), requests(cookie), secure) // whose handshakes are most of the work
	hello := clientHello(t, config)
	v.aborted(size(3000, 100_000), []stage{
		{send: hello[:3]}, {send: hello[:len(hello)/2]}, {send: hello}, // and no answer is read
		{send: hello + "\x15\x03\x03\x00\x02\x02\x28"}, // an alert in the midst
		{send: hello + hello}, {send: "GET / HTTP/1.1\r\n\r\n"}, {},
	}, func(c net.Conn) net.Conn { return c })
	if status := v.reask(cookie); status != http.StatusOK {
		t.Errorf("the visitor inside: got %d", status)
	}
}

// clientHello is the first flight of a handshake.
func clientHello(t *testing.T, config *tls.Config) string {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	ended := make(chan error, 1)
	go func() { ended <- tls.Client(theirs, config).Handshake() }()
	hello := make([]byte, 16<<10)
	n, err := ours.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	ours.Close()
	if <-ended == nil {
		t.Error("a handshake that nobody answered succeeded")
	}
	return string(hello[:n])
}

func (v *victim) reask(cookie string) int {
	w, err := v.dial()
	if err != nil {
		v.t.Fatal(err)
	}
	defer w.Close()
	status, _, err := w.ask("GET", "/", cookie)
	if err != nil {
		v.t.Fatal(err)
	}
	return status
}
