package abuse

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// latency makes requests of a visitor inside for as long as it is wanted, and answers the 99th percentile of their times.
func (v *victim) latency(cookie string, until <-chan struct{}) time.Duration {
	w, err := v.dial()
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

// Thousands of slow connections of every kind are closed when their time is over, however fast they come, and those inside are served meanwhile.
func TestSlowConnections(t *testing.T) {
	v := attacked(t, 10, harness.Settings{"WR_HEADER_TIMEOUT": "3", "WR_STALL_TIMEOUT": "3"})
	// As fast as slowhttptest makes them when it is asked to hurry, and twenty times as busy as it is by default.
	s := v.besieged(order{N: size(200, 1700), Pause: time.Millisecond, Beat: 500 * time.Millisecond, Patience: 45 * time.Second}, time.Second, 250*time.Millisecond)
	// A machine that does much else has pauses of its own.
	if most := max(2*s.quiet, 500*time.Millisecond); s.busy > most {
		t.Errorf("p99 of those inside: %v, want at most %v", s.busy, most)
	}
}

// Those inside do not notice that thousands of slow connections are there, if the attackers have machines of their own.
func TestSlowConnectionsFromAfar(t *testing.T) {
	if !*long {
		t.Skip("it takes four minutes, and a machine that does nothing else: make abuse")
	}
	v := attacked(t, 10, harness.Settings{"WR_HEADER_TIMEOUT": "55", "WR_STALL_TIMEOUT": "55"}) // so all are there at once
	v.comesFirst()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the pauses of the measure are none of the node's
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(2 << 30))
	o := order{N: 1700, Pause: 10 * time.Millisecond, Beat: 5 * time.Second, Patience: 220 * time.Second}
	s := v.besieged(o, 5*time.Second, 5*time.Second) // a look is work for the node: it counts its descriptors
	if all := 3 * o.N; s.crowd < float64(all) {
		t.Errorf("%.0f of %d connections at once", s.crowd, all)
	}
	if s.busy > 2*s.quiet {
		t.Errorf("p99 of those inside: %v, want at most twice %v", s.busy, s.quiet)
	}
}

// A siege is what a visitor inside, and the node, saw of an attack by slow connections.
type siege struct {
	quiet, busy time.Duration // p99 of the visitor before, and while at least half of them were there
	crowd       float64       // connections at once
}

// besieged has the node attacked after so long without, and looks at it every so often. All attackers have to be closed, and leave nothing behind.
func (v *victim) besieged(o order, before, look time.Duration) (s siege) {
	v.t.Helper()
	cookie, _ := v.visit()
	goroutines, files, rss := v.metric("go_goroutines"), v.metric("process_open_fds"), v.rss()
	rest := make(chan struct{})
	time.AfterFunc(before, func() { close(rest) })
	s.quiet = v.latency(cookie, rest)

	stop := make(chan struct{})
	var visitor sync.WaitGroup
	visitor.Go(func() { s.busy = v.latency(cookie, stop) })
	measured := sync.OnceFunc(func() {
		close(stop)
		visitor.Wait()
	})
	defer measured() // also where the node cannot be asked
	peak, begun := rss, time.Now()
	o.Host, o.Cookie = v.host, cookie
	attack := v.drip(o)
	for hungUp, waiting := false, true; waiting; {
		select {
		case <-attack.over:
			waiting = false
		case <-time.After(look):
			peak = max(peak, v.rss())
			open := v.metric("owr_connections")
			if s.crowd = max(s.crowd, open); open < s.crowd/2 {
				measured()
			}
			if !hungUp && s.crowd > float64(o.N) && open <= 2 {
				hungUp = true
				attack.hungUp()
			}
		}
	}
	measured()
	n := 3 * o.N
	v.t.Logf("%d slow connections, %.0f at once, all over after %v: p99 of those inside %v, %v before; RSS grew by %.1f MiB at the most", n, s.crowd,
		time.Since(begun).Round(time.Second), s.busy.Round(10*time.Microsecond), s.quiet.Round(10*time.Microsecond), peak-rss)
	if s.quiet == 0 || s.busy == 0 {
		v.t.Error("no request of those inside was measured")
	}
	if attack.Left > 0 {
		v.t.Errorf("%d connections were not closed within %v", attack.Left, o.Patience)
	}
	if most := float64(30 + n*100/1024); peak-rss > most {
		v.t.Errorf("RSS grew by %.1f MiB, want at most %.0f", peak-rss, most)
	}
	v.calms(goroutines, files)
	return s
}

// comesFirst has node, origin and measure come before all attackers on the processors, as if those had machines of their own, until the test ends, and skips
// the test where that is not allowed. A lower priority is not enough: a kernel without preemption lets an attacker that computes go on for up to 4 ms.
func (v *victim) comesFirst() {
	v.t.Helper()
	schedule := func(pid int, policy, priority string) error {
		out, err := exec.Command("chrt", "--all-tasks", policy, "--pid", priority, strconv.Itoa(pid)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := errors.Join(schedule(v.Pid(), "--rr", "1"), schedule(os.Getpid(), "--rr", "1")); err != nil {
		v.t.Skipf("chrt of util-linux and the right to run in real time (CAP_SYS_NICE) are needed here: %v", err)
	}
	v.t.Cleanup(func() {
		if err := schedule(os.Getpid(), "--other", "0"); err != nil {
			v.t.Error(err)
		}
	})
	v.first = true
}

// What a client says that it will send costs nothing before it comes.
func TestDeclaredLengths(t *testing.T) {
	v := attacked(t, 10, nil)
	cookie, _ := v.visit()
	for name, own := range map[string]string{"outside": "", "inside": "Cookie: wr_token=" + cookie + "\r\n"} {
		rss := v.rss()
		var all []*wire
		for range 1000 {
			w, err := v.dial()
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
	v := &victim{Node: leader, t: t, host: strings.TrimPrefix(leader.URL, "http://")}
	term := v.status().Term
	var all []*wire
	served := 0
	for range 400 {
		w, err := v.dial()
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
