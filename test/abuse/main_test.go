// Package abuse attacks one real node as strangers would: floods, slow connections, aborted ones, places that nobody keeps. Each
// test looks at what honest visitors notice, and at what the node holds afterwards.
package abuse

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

var (
	quick = flag.Bool("quick", false, "attack with a few hundred or thousand")
	long  = flag.Bool("abuse", false, "attack with up to a hundred thousand: minutes, and 15,000 descriptors")
)

func TestMain(m *testing.M) {
	if dripping() {
		return
	}
	if flag.Parse(); !*quick && !*long {
		os.Exit(m.Run())
	}
	os.Exit(harness.Main(m))
}

// asked skips a test unless attacks were asked for.
func asked(t *testing.T) {
	t.Helper()
	if !*quick && !*long {
		t.Skip("attacks run with -quick or -abuse: make abuse-quick, make abuse")
	}
	harness.Binary(t)
}

// size is how many attackers there are: a few, or with -abuse many.
func size(few, many int) int {
	if *long {
		return many
	}
	return few
}

// A victim is a node under attack.
type victim struct {
	*harness.Node
	t    *testing.T
	host string // of the public listener

	preface string                  // what a connection begins with
	wrap    func(net.Conn) net.Conn // TLS, or nil

	first bool // it comes before attackers of other processes: see comesFirst
}

// attacked starts a node with so many slots.
func attacked(t *testing.T, slots int, settings harness.Settings) *victim {
	t.Helper()
	asked(t)
	all := harness.Settings{"WR_MAX_ACTIVE": fmt.Sprint(slots), "WR_ACTIVE_TTL": "600", "WR_QUEUE_ABSENT": "600"}
	maps.Copy(all, settings)
	l, err := (&net.ListenConfig{Control: ethernet}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := harness.NewNode(t, "n1", harness.NewOriginOn(t, l).URL, all)
	n.Start()
	n.WaitReady()
	return &victim{Node: n, t: t, host: strings.TrimPrefix(n.URL, "http://")}
}

func (v *victim) metric(name string) float64 {
	v.t.Helper()
	value, err := v.Metric(name)
	if err != nil {
		v.t.Fatal(err)
	}
	return value
}

func (v *victim) status() harness.Status {
	v.t.Helper()
	s, err := v.Status()
	if err != nil {
		v.t.Fatal(err)
	}
	return s
}

const mebi = 1 << 20

// rss is the memory of the node in MiB.
func (v *victim) rss() float64 { return v.metric("process_resident_memory_bytes") / mebi }

// calms waits until goroutines and descriptors are back where they were, but for what a pool or a scrape may hold.
func (v *victim) calms(goroutines, files float64) {
	v.t.Helper()
	harness.WaitFor(v.t, fmt.Sprintf("goroutines and descriptors fall back to about %v and %v", goroutines, files), 90*time.Second, func() bool {
		return v.metric("go_goroutines") <= goroutines+20 && v.metric("process_open_fds") <= files+20 && v.metric("owr_connections") <= 2
	})
}

// A wire is a connection to the node.
type wire struct {
	net.Conn
	reader *bufio.Reader
}

// ethernet has a socket of loopback send segments as an Ethernet carries them. With those of 64 KiB that loopback has, the kernel keeps up to 4 MiB for
// each reader that is slow.
func ethernet(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1460)
	})
	return errors.Join(err, failed)
}

func dial(host string) (*wire, error) {
	d := net.Dialer{Timeout: 20 * time.Second, Control: ethernet}
	c, err := d.Dial("tcp", host)
	if err != nil {
		return nil, err
	}
	return &wire{c, bufio.NewReaderSize(c, 4<<10)}, nil
}

// dial connects to the node as a visitor of the test does.
func (v *victim) dial() (*wire, error) {
	w, err := dial(v.host)
	if err != nil {
		return nil, err
	}
	if v.wrap != nil {
		w.Conn = v.wrap(w.Conn)
		w.reader.Reset(w.Conn)
	}
	if _, err := io.WriteString(w, v.preface); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// ask makes a request without a body and answers status and owr's cookie, as it is or as it is now set.
func (w *wire) ask(method, path, cookie string) (int, string, error) {
	line := ""
	if cookie != "" {
		line = "Cookie: wr_token=" + cookie + "\r\n"
	}
	_ = w.SetDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprintf(w, "%s %s HTTP/1.1\r\nHost: shop.test\r\n%s\r\n", method, path, line); err != nil {
		return 0, cookie, err
	}
	res, err := http.ReadResponse(w.reader, &http.Request{Method: method})
	if err != nil {
		return 0, cookie, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0, cookie, err
	}
	for _, c := range res.Cookies() {
		if c.Name == "wr_token" {
			cookie = c.Value
		}
	}
	return res.StatusCode, cookie, nil
}

// visit is a visitor that comes, and polls once where it has to wait. It answers its cookie and the last status.
func (v *victim) visit() (cookie string, status int) {
	v.t.Helper()
	w, err := v.dial()
	if err != nil {
		v.t.Fatal(err)
	}
	defer w.Close()
	status, cookie, err = w.ask("GET", "/", "")
	if err == nil && status != http.StatusOK {
		status, cookie, err = w.ask("GET", "/wr_check", cookie)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	return cookie, status
}

// each calls f with 0 to n-1, at so many at a time, and fails the test with the first error.
func each(t *testing.T, n, workers int, f func(int) error) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for worker := range workers {
		wg.Go(func() {
			for i := worker; i < n; i += workers {
				if err := f(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
}
