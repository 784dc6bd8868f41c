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
	Left int // connections that nobody has closed

	over  chan struct{} // closed when all have ended: Left holds from then on
	stdin io.Closer
}

// hungUp tells the attackers that the node has closed all of them, as it counts them itself.
func (d *drip) hungUp() { _ = d.stdin.Close() } // a second close does no harm

// dripper is the variable that makes an attacker of a test binary. It holds an order.
const dripper = "OWR_TEST_DRIP"

// An order says how to attack. All connections at once, and each at the same moment whenever it goes on, would be a flood and not slow ones.
type order struct {
	Host, Cookie string
	N            int           // of each kind
	Pause        time.Duration // between two connections, so that each has a beat of its own
	Beat         time.Duration // between two bytes of one; slowhttptest has 10 s
	Patience     time.Duration // after which a connection is one that is not closed
}

// drip attacks the node.
func (v *victim) drip(o order) *drip {
	v.t.Helper()
	d := &drip{over: make(chan struct{})}
	text, err := json.Marshal(o)
	if err != nil {
		v.t.Fatal(err)
	}
	command := []string{os.Args[0]}
	if v.first {
		command = []string{"chrt", "--other", "0", os.Args[0]} // and not what its parent has
	}
	cmd := exec.CommandContext(v.t.Context(), command[0], command[1:]...)
	cmd.Env = append(os.Environ(), dripper+"="+string(text))
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
	text, asked := os.LookupEnv(dripper)
	if !asked {
		return false
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, dripper+":", err)
		return true // without an answer, which fails the test
	}
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil {
		fmt.Fprintln(os.Stderr, "the attackers keep their priority:", err)
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // whatever ends it
		close(ended)
	}()
	own := "Host: shop.test\r\nCookie: wr_token=" + o.Cookie + "\r\n"
	kinds := []slowKind{
		{"GET / HTTP/1.1\r\n" + own + "X-Slow: ", "a"},
		{"POST /upload HTTP/1.1\r\n" + own + "Content-Length: 1000000\r\n\r\n", "a"},
		{"GET /big HTTP/1.1\r\n" + own + "\r\n", ""},
	}
	var d drip
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range len(kinds) * o.N {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * o.Pause)
			if !kinds[i%len(kinds)].attack(o, ended) {
				mu.Lock()
				defer mu.Unlock()
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

// attack lasts until the node closes the connection, ended says that it has, or patience is over: then it is not closed.
func (k slowKind) attack(o order, ended <-chan struct{}) (closed bool) {
	w, err := dial(o.Host)
	if err != nil {
		return true // the queue of the listener is full
	}
	defer w.Close()
	if tcp, ok := w.Conn.(*net.TCPConn); ok && k.drop == "" {
		_ = tcp.SetReadBuffer(4 << 10) // with a larger one the test only lasts longer
	}
	from := time.Now()
	_, err = io.WriteString(w, k.opening)
	for err == nil && time.Since(from) < o.Patience {
		time.Sleep(o.Beat) // this is the attack
		if k.drop != "" {
			_, err = io.WriteString(w, k.drop)
			continue
		}
		select {
		case <-ended: // what the kernels still hold says nothing
			return true
		default:
		}
		var one [1]byte
		_ = w.SetReadDeadline(time.Now().Add(time.Second))
		if _, err = w.Read(one[:]); errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	return err != nil
}
