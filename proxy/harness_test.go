package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/internal/certs/certstest"
)

const patience = 5 * time.Second

// A stand is a server, its room, and the way to talk to it.
type stand struct {
	*Server
	t    testing.TB
	room *fakeRoom
	addr string
	log  *lockedBuffer
}

// serve starts a Server in front of an origin and ends it with the test.
func serve(t testing.TB, room *fakeRoom, origin string, change func(*Config)) *stand {
	t.Helper()
	backend, err := url.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	log := &lockedBuffer{}
	cfg := Config{
		Room: room, Backend: backend, DecisionTimeout: time.Second, BackendTimeout: 3 * time.Second,
		Logger: textLogger(log),
	}
	if *goroutines {
		withoutLoops(&cfg)
	}
	if *secure {
		cfg.TLS = ownTLS(t)
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	st := &stand{Server: s, t: t, room: room, addr: l.Addr().String(), log: log}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if text := log.String(); strings.Contains(text, "defect in owr") {
			t.Errorf("a handler panicked:\n%s", text)
		}
	})
	return st
}

// withoutLoops is for tests that look at what the goroutines share.
func withoutLoops(c *Config) { c.Loops = -1 }

func textLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A seen is one request as an origin saw it.
type seen struct {
	method, target, host string
	header               http.Header
	body                 string
	err                  error // of reading the body
}

// A site is an origin that remembers.
type site struct {
	*httptest.Server
	mu   sync.Mutex
	hits []seen
}

// newSite starts an origin; answer may be nil.
func newSite(t testing.TB, answer http.HandlerFunc) *site {
	t.Helper()
	s := &site{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := seen{method: r.Method, target: r.RequestURI, host: r.Host, header: r.Header.Clone()}
		if answer == nil {
			body, err := io.ReadAll(r.Body)
			h.body, h.err = string(body), err
		}
		s.mu.Lock()
		s.hits = append(s.hits, h)
		s.mu.Unlock()
		w.Header().Set("X-Origin", "1")
		if answer != nil {
			answer(w, r)
			return
		}
		fmt.Fprintf(w, "%s %s %d", r.Method, r.URL.Path, len(h.body))
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(s.Close)
	return s
}

func (s *site) seen() []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]seen(nil), s.hits...)
}

func (s *site) last(t testing.TB) seen {
	t.Helper()
	all := s.seen()
	if len(all) == 0 {
		t.Fatal("the origin has seen no request")
	}
	return all[len(all)-1]
}

// rawOrigin is an origin that does to each connection what a test says.
func rawOrigin(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

// answers makes a rawOrigin's function of bytes: it reads one head and body-less request after
// the other and answers each with text; then it closes, or waits for the other side.
func answers(text string, closes bool) func(net.Conn) {
	return func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			if _, err := io.WriteString(c, text); err != nil || closes {
				return
			}
		}
	}
}

// A wire is one client connection, byte by byte.
type wire struct {
	net.Conn
	t  testing.TB
	br *bufio.Reader
}

func (s *stand) dial() *wire {
	s.t.Helper()
	return s.greet(s.dialPlain())
}

// dialPlain is for what goes ahead of TLS; greet goes on from there.
func (s *stand) dialPlain() *wire {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return newWire(s.t, c)
}

func (s *stand) greet(w *wire) *wire {
	if s.tls == nil {
		return w
	}
	return newWire(s.t, tls.Client(w.Conn, clientTLS()))
}

// testCA signs for all tests of this process: keys take time.
var testCA = sync.OnceValues(func() (*certstest.CA, tls.Certificate) {
	ca := certstest.NewCA(&lasting{}, "tests of the proxy")
	return ca, ca.Issue(nil, "shop.test", "127.0.0.1").TLS()
})

// lasting is a testing.TB for what outlives one test. Only its Fatal is used.
type lasting struct{ testing.TB }

func (*lasting) Helper()           {}
func (*lasting) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func ownTLS(t testing.TB) *tls.Config {
	t.Helper()
	_, pair := testCA()
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func clientTLS() *tls.Config {
	ca, _ := testCA()
	return &tls.Config{RootCAs: ca.Pool(), ServerName: "shop.test"}
}

// plainOnly is for tests of what is not there with TLS.
func plainOnly(t testing.TB) {
	t.Helper()
	if *secure {
		t.Skip("not with TLS")
	}
}

// ownScheme is the scheme of a visitor that comes without a proxy.
func ownScheme() string {
	if *secure {
		return "https"
	}
	return "http"
}

// closeWrite ends the client's side.
func (w *wire) closeWrite() {
	w.t.Helper()
	if err := w.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		w.t.Fatal(err)
	}
}

func newWire(t testing.TB, c net.Conn) *wire {
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	return &wire{c, t, bufio.NewReader(c)}
}

func (w *wire) send(format string, args ...any) *wire {
	w.t.Helper()
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	if _, err := io.WriteString(w.Conn, text); err != nil {
		w.t.Logf("send: %v", err)
	}
	return w
}

// A reply is a whole response.
type reply struct {
	*http.Response
	text string
}

// answer reads one response to a request of that method.
func (w *wire) answer(method string) (reply, error) {
	r, err := http.ReadResponse(w.br, &http.Request{Method: method})
	if err != nil {
		return reply{}, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return reply{r, string(body)}, err
}

func (w *wire) mustAnswer(method string) reply {
	w.t.Helper()
	r, err := w.answer(method)
	if err != nil {
		w.t.Fatalf("no answer: %v", err)
	}
	return r
}

// ended reports whether the server has closed the connection.
func (w *wire) ended() bool {
	_, err := w.br.ReadByte()
	return err != nil && !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// ask makes one request on a connection of its own. lines are header lines besides Host.
func (s *stand) ask(method, target string, lines ...string) reply {
	s.t.Helper()
	return s.askBody(method, target, "", lines...)
}

func (s *stand) askBody(method, target, body string, lines ...string) reply {
	s.t.Helper()
	w := s.dial()
	defer w.Close()
	w.send("%s", request(method, target, body, lines...))
	return w.mustAnswer(method)
}

func request(method, target, body string, lines ...string) string {
	head := method + " " + target + " HTTP/1.1\r\n"
	host := true
	for _, l := range lines {
		host = host && !strings.HasPrefix(strings.ToLower(l), "host:")
	}
	if host {
		head += "Host: shop.test\r\n"
	}
	if body != "" {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	for _, l := range lines {
		head += l + "\r\n"
	}
	return head + "\r\n" + body
}

// ours returns the value of the cookie that a response sets, or "".
func (r reply) ours() string {
	for _, c := range r.Cookies() {
		if c.Name == "wr_token" {
			return c.Value
		}
	}
	return ""
}

// eventually polls until ok or the patience has run out.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func mustURL(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func tcpAddr(t testing.TB, text string) net.Addr {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
