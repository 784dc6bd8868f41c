package abuse

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// latency makes requests of a visitor inside for as long as it is wanted, and answers the 99th percentile of their times.
func (v *victim) latency(cookie string, until <-chan struct{}) time.Duration {
	w, err := dial(v.host)
	if err != nil {
		v.t.Error(err)
		return 0
	}
	defer w.Close()
	var times []time.Duration
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		select {
		case <-until:
			tick.Stop()
			slices.Sort(times)
			if len(times) == 0 {
				return 0
			}
			return times[len(times)*99/100]
		default:
		}
		begun := time.Now()
		if status, _, err := w.ask("GET", "/", cookie); err != nil || status != http.StatusOK {
			v.t.Errorf("a visitor inside: %d, %v", status, err)
			return 0
		}
		times = append(times, time.Since(begun))
	}
}

// Thousands of slow connections of every kind are closed when their time is over, and those inside do not notice.
func TestSlowConnections(t *testing.T) {
	v := attacked(t, 10, harness.Settings{"WR_HEADER_TIMEOUT": "3", "WR_STALL_TIMEOUT": "3"})
	cookie, _ := v.visit()
	goroutines, files, rss := v.metric("go_goroutines"), v.metric("process_open_fds"), v.rss()
	rest := make(chan struct{})
	time.AfterFunc(time.Second, func() { close(rest) })
	quiet := v.latency(cookie, rest)

	n := size(200, 1700) // of each kind
	stop, p99 := make(chan struct{}), make(chan time.Duration, 1)
	go func() { p99 <- v.latency(cookie, stop) }()
	peak := rss
	begun := time.Now()
	attack := v.drip(cookie, n)
	crowd, hungUp := 0.0, false
	for waiting := true; waiting; {
		select {
		case <-attack.over:
			waiting = false
		case <-time.After(250 * time.Millisecond):
			peak = max(peak, v.rss())
			open := v.metric("owr_connections")
			if crowd = max(crowd, open); !hungUp && crowd > float64(n) && open <= 2 {
				hungUp = true
				attack.hungUp()
			}
		}
	}
	close(stop)
	busy := <-p99
	t.Logf("%d slow connections, all over after %v (longest %v): p99 of those inside %v, %v before; RSS grew by %.1f MiB at the most", 3*n,
		time.Since(begun).Round(time.Second), attack.Longest.Round(time.Second), busy.Round(100*time.Microsecond), quiet.Round(100*time.Microsecond), peak-rss)
	if attack.Left > 0 {
		t.Errorf("%d connections were not closed", attack.Left)
	}
	// A machine that does much else has pauses of its own.
	if most := max(2*quiet, 500*time.Millisecond); busy > most {
		t.Errorf("p99 of those inside: %v, want at most %v", busy, most)
	}
	if most := float64(30 + 3*n*100/1024); peak-rss > most {
		t.Errorf("RSS grew by %.1f MiB, want at most %.0f", peak-rss, most)
	}
	v.calms(goroutines, files)
}

// Connections that are aborted at every stage of a request leave nothing behind.
func TestAborts(t *testing.T) {
	v := attacked(t, 10, harness.Settings{"WR_BACKEND_TIMEOUT": "5", "WR_STALL_TIMEOUT": "5", "WR_HEADER_TIMEOUT": "5"})
	cookie, _ := v.visit()
	own := "Host: shop.test\r\nCookie: wr_token=" + cookie + "\r\n"
	stages := []string{
		"",                           // before a byte
		"GET / HTTP/1.1\r\nHost: sh", // in the head
		"POST /upload HTTP/1.1\r\n" + own + "Content-Length: 100000\r\n\r\nhalf",                     // in the body
		"POST /upload HTTP/1.1\r\n" + own + "Transfer-Encoding: chunked\r\n\r\n5\r\nhal",             // in a chunk
		"POST /upload HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000\r\n\r\nhalf",             // of one outside
		"GET /new HTTP/1.1\r\nHost: shop.test\r\n\r\n",                                               // while a decision is waited for
		"GET /slow HTTP/1.1\r\n" + own + "\r\n",                                                      // while the origin works
		"GET /big HTTP/1.1\r\n" + own + "\r\n",                                                       // in the answer
		"POST /upload HTTP/1.1\r\n" + own + "Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n", // while it waits for our leave
		"GET /slow HTTP/1.1\r\n" + own + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", // before the 101
		"GET /wr_check HTTP/1.1\r\n" + own + "\r\n",                                          // in an answer of owr's own
		"GET / HTTP/1.1\r\n" + own + "\r\nGET / HTTP/1.1\r\n" + own + "\r\nGET / HTTP/1.1\r", // in a pipeline
	}
	abort := func(i int) error {
		w, err := dial(v.host)
		if err != nil {
			return err
		}
		defer w.Close()
		if _, err := io.WriteString(w, stages[i%len(stages)]); err != nil && !errors.Is(err, net.ErrClosed) {
			return nil // it was quicker than we
		}
		if tcp, ok := w.Conn.(*net.TCPConn); ok && i/len(stages)%2 == 0 {
			return tcp.SetLinger(0)
		}
		return nil
	}
	each(t, 200, 16, abort) // pools fill
	harness.WaitFor(t, "the first ones are over", 60*time.Second, func() bool { return v.metric("owr_connections") <= 2 && v.metric("owr_origin_connections") == 0 })
	goroutines, files, rss := v.metric("go_goroutines"), v.metric("process_open_fds"), v.rss()
	n, begun := size(3000, 100_000), time.Now()
	each(t, n, 64, abort)
	took := time.Since(begun)
	v.calms(goroutines, files)
	grown := v.rss() - rss
	t.Logf("%d aborted connections in %v: goroutines %.0f, then %.0f; descriptors %.0f, then %.0f; RSS grew by %.1f MiB", n, took.Round(time.Millisecond),
		goroutines, v.metric("go_goroutines"), files, v.metric("process_open_fds"), grown)
	if most := float64(size(60, 120)); grown > most {
		t.Errorf("RSS grew by %.1f MiB", grown)
	}
	if got := v.metric("owr_panics_total"); got > 0 {
		t.Errorf("%v panics", got)
	}
	if status := v.reask(cookie); status != http.StatusOK {
		t.Errorf("the visitor inside: got %d", status)
	}
}

func (v *victim) reask(cookie string) int {
	w, err := dial(v.host)
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

// What a client says that it will send costs nothing before it comes.
func TestDeclaredLengths(t *testing.T) {
	v := attacked(t, 10, nil)
	cookie, _ := v.visit()
	for name, own := range map[string]string{"outside": "", "inside": "Cookie: wr_token=" + cookie + "\r\n"} {
		rss := v.rss()
		var all []*wire
		for range 1000 {
			w, err := dial(v.host)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, w)
			if _, err := fmt.Fprintf(w, "POST /upload HTTP/1.1\r\nHost: shop.test\r\n%sContent-Length: 4294967296\r\n\r\n", own); err != nil {
				t.Fatal(err)
			}
		}
		peak := rss
		harness.Poll(3*time.Second, func() bool { peak = max(peak, v.rss()); return false })
		t.Logf("%s, 1,000 times 4 GiB declared: RSS grew by %.1f MiB", name, peak-rss)
		if peak-rss > 50 && name == "outside" || peak-rss > 150 {
			t.Errorf("%s: RSS grew by %.1f MiB", name, peak-rss)
		}
		for _, w := range all {
			w.Close()
		}
	}
}

// A client that asks ten thousand times and never reads fills the kernel's buffers and is closed.
func TestPipelineWithoutReading(t *testing.T) {
	v := attacked(t, 10, harness.Settings{"WR_STALL_TIMEOUT": "2"})
	cookie, _ := v.visit()
	rss := v.rss()
	c, err := net.Dial("tcp", v.host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	one := "GET /big HTTP/1.1\r\nHost: shop.test\r\nCookie: wr_token=" + cookie + "\r\n\r\n"
	_ = c.SetWriteDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.WriteString(c, strings.Repeat(one, 10_000)) // fails once the node has hung up
	harness.WaitFor(t, "it is closed at the write deadline", 30*time.Second, func() bool { return v.metric("owr_connections") == 0 })
	if grown := v.rss() - rss; grown > 30 {
		t.Errorf("RSS grew by %.1f MiB", grown)
	}
	if room := v.status().Room; room.Active != 1 {
		t.Errorf("got %+v", room)
	}
}

// With few descriptors and many clients a cluster keeps its leader, and serves again when they have gone.
func TestFewDescriptors(t *testing.T) {
	asked(t)
	script := filepath.Join(t.TempDir(), "owr")
	text := fmt.Sprintf("#!/bin/sh\nulimit -n 256\nexec %s \"$@\"\n", harness.Binary(t))
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	c := harness.NewCluster(t, 3, harness.NewOrigin(t).URL, harness.Settings{"WR_MAX_ACTIVE": "1000", "WR_ACTIVE_TTL": "600"})
	for _, n := range c.Nodes {
		n.SetBinary(script)
	}
	c.Start()
	leader := c.Leader()
	v := &victim{leader, t, strings.TrimPrefix(leader.URL, "http://")}
	term := v.status().Term
	var all []*wire
	served := 0
	for range 400 {
		w, err := dial(v.host)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
		if status, _, err := w.ask("GET", "/", ""); err == nil && status == http.StatusOK {
			served++
		}
	}
	if served < 50 {
		t.Errorf("%d of 400 were served", served)
	}
	files := v.metric("process_open_fds")
	cpu := v.metric("process_cpu_seconds_total")
	begun := time.Now()
	harness.Poll(2*time.Second, func() bool { return false })
	if used := (v.metric("process_cpu_seconds_total") - cpu) / time.Since(begun).Seconds(); used > 0.8 {
		t.Errorf("the node is busy with nothing: %.2f cores", used)
	}
	if err := leader.TryLimits(map[string]any{"max_active": 900}); err != nil {
		t.Errorf("no commit: %v", err)
	}
	if s := v.status(); s.Role != "leader" || s.Term != term {
		t.Errorf("term %d, then %d; role %s", term, s.Term, s.Role)
	}
	t.Logf("%d of 400 were served with 256 descriptors, of which %.0f are used", served, files)
	if files > 250 {
		t.Errorf("%.0f of 256 descriptors are used", files)
	}
	for _, w := range all {
		w.Close()
	}
	harness.WaitFor(t, "a visitor is served again", 30*time.Second, func() bool { _, status := v.visit(); return status == http.StatusOK })
	if n := strings.Count(leader.Log(), "cannot accept connections"); n > 4 {
		t.Errorf("the log says %d times that no connection can be accepted", n)
	}
}
