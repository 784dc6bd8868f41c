package abuse

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// A drip is an attack by slow connections. It comes from a process of its own that leaves the processors to all others: attackers have
// machines of their own, and thousands of them in the process that measures would be measured too.
type drip struct {
	Left    int           // connections that nobody has closed
	Longest time.Duration // that one of them has lasted

	over  chan struct{} // closed when all have ended: Left and Longest hold from then on
	stdin io.Closer
}

// hungUp tells the attackers that the node has closed all of them, as it counts them itself.
func (d *drip) hungUp() { _ = d.stdin.Close() } // a second close does no harm

// dripper is the variable that makes an attacker of a test binary: where to, with which cookie, how many of each kind, and the nanoseconds between two.
const dripper = "OWR_TEST_DRIP"

// dripBeat lies between two bytes of a connection: half of what slowhttptest leaves by default.
const dripBeat = 5 * time.Second

// drip attacks the node with n slow connections of each kind, between two of which lies a pause. All at once, and each of them at the same moment whenever
// it goes on, they would be a flood and not slow ones.
func (v *victim) drip(cookie string, n int, pause time.Duration) *drip {
	v.t.Helper()
	d := &drip{over: make(chan struct{})}
	cmd := exec.CommandContext(v.t.Context(), "chrt", "--other", "0", os.Args[0]) // whatever its parent has
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d", dripper, v.host, cookie, n, pause))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	d.stdin = stdin
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	go func() {
		defer close(d.over)
		if err := errors.Join(json.NewDecoder(stdout).Decode(d), cmd.Wait()); err != nil {
			v.t.Errorf("the attackers: %v", err)
		}
	}()
	return d
}

// dripping is the attackers' own process, if this is it.
func dripping() bool {
	var host, cookie string
	var n int
	var pause time.Duration
	if got, _ := fmt.Sscan(os.Getenv(dripper), &host, &cookie, &n, (*int64)(&pause)); got != 4 {
		return false
	}
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil {
		fmt.Fprintln(os.Stderr, "the attackers keep their priority:", err)
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // whatever ends it
		close(ended)
	}()
	own := "Host: shop.test\r\nCookie: wr_token=" + cookie + "\r\n"
	kinds := []slowKind{
		{"GET / HTTP/1.1\r\n" + own + "X-Slow: ", "a"},
		{"POST /upload HTTP/1.1\r\n" + own + "Content-Length: 1000000\r\n\r\n", "a"},
		{"GET /big HTTP/1.1\r\n" + own + "\r\n", ""},
	}
	var d drip
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range len(kinds) * n {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * pause) // and so each has a beat of its own
			closed, lasted := kinds[i%len(kinds)].attack(host, ended)
			mu.Lock()
			defer mu.Unlock()
			d.Longest = max(d.Longest, lasted)
			if !closed {
				d.Left++
			}
		})
	}
	wg.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(&d) // who reads it says so
	return true
}

// A slowKind is what one attacker says at once, and what bit by bit; without the latter it reads bit by bit.
type slowKind struct{ opening, drop string }

// attack lasts until the node closes the connection, ended says that it has, or 250 seconds are over: then it is not closed.
func (k slowKind) attack(host string, ended <-chan struct{}) (closed bool, lasted time.Duration) {
	w, err := dial(host)
	if err != nil {
		return true, 0 // the queue of the listener is full
	}
	defer w.Close()
	if tcp, ok := w.Conn.(*net.TCPConn); ok && k.drop == "" {
		_ = tcp.SetReadBuffer(4 << 10) // with a larger one the test only lasts longer
	}
	from := time.Now()
	_, err = io.WriteString(w, k.opening)
	for err == nil && time.Since(from) < 250*time.Second {
		time.Sleep(dripBeat) // this is the attack
		if k.drop != "" {
			_, err = io.WriteString(w, k.drop)
			continue
		}
		select {
		case <-ended: // what the kernels still hold says nothing
			return true, time.Since(from)
		default:
		}
		var one [1]byte
		_ = w.SetReadDeadline(time.Now().Add(time.Second))
		if _, err = w.Read(one[:]); errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	return err != nil, time.Since(from)
}
