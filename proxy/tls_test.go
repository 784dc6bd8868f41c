package proxy

import (
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
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/internal/certs/certstest"
)

func withTLS(t testing.TB) func(*Config) {
	return func(c *Config) { c.TLS = ownTLS(t) }
}

// handshakes is how many have ended like that.
func (s *stand) handshakes(result string) int {
	return int(testutil.ToFloat64(s.metrics.handshakes[result]))
}

func TestHTTPSVisitors(t *testing.T) {
	room := newRoom(t, 10)
	origin := newSite(t, nil)
	s := serve(t, room, origin.URL, withTLS(t))
	r := s.ask("GET", "/")
	if len(r.Cookies()) != 1 || !r.Cookies()[0].Secure {
		t.Fatalf("a first visit: %d, and the cookie is %v", r.StatusCode, r.Cookies())
	}
	cookie := "Cookie: wr_token=" + r.ours()
	if r = s.ask("GET", "/x", cookie); r.text != "GET /x 0" || origin.last(t).header.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("got %d %q, and the origin got %v", r.StatusCode, r.text, origin.last(t).header)
	}
	if r = s.askBody("POST", "/x", "abc", cookie); r.text != "POST /x 3" || origin.last(t).header.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("got %d %q, and the origin got %v", r.StatusCode, r.text, origin.last(t).header)
	}
	w := s.dial() // several on one connection, and the last one ends it in good order
	for _, path := range []string{"/1", "/wr_check", "/2"} {
		if r := w.send("%s", request("GET", path, "", cookie)).mustAnswer("GET"); r.StatusCode != 200 && r.StatusCode != 302 {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
	if r := w.send("%s", request("GET", "/3", "", cookie, "Connection: close")).mustAnswer("GET"); r.text != "GET /3 0" {
		t.Errorf("the last: %d %q", r.StatusCode, r.text)
	}
	if _, err := w.br.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

// What tunnels, streams, uploads, early answers, draining and the limits promise holds over TLS as well. `go test -secure` runs
// all tests like this.
func TestOverTLS(t *testing.T) {
	defer func(was bool) { *secure = was }(*secure)
	*secure = true
	for name, test := range map[string]func(*testing.T){
		"tunnels": TestWebSocketIsTunnelled, "limit of connections": TestMaxConnsPerIP, "pipelining": TestPipelinedRequestsOfTwoVisitors,
		"draining": TestShutdownFinishesWhatIsUnderWay, "closing while draining": TestAnswersCloseTheConnectionWhileDraining,
		"cutting off": TestShutdownCutsOffWhatTakesTooLong, "large heads": TestHeadLimits, "slow and silent": TestSlowAndSilentClients,
	} {
		t.Run(name, test)
	}
}

func TestSessionsAreResumed(t *testing.T) {
	s := serve(t, newRoom(t, 1), newSite(t, nil).URL, withTLS(t))
	config := clientTLS()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		c, err := tls.Dial("tcp", s.addr, config)
		if err != nil {
			t.Fatal(err)
		}
		if r := newWire(t, c).send("%s", request("GET", "/wr_healthcheck", "")).mustAnswer("GET"); r.StatusCode != 200 {
			t.Errorf("got %d", r.StatusCode)
		}
		_ = c.Close()
	}
	if s.handshakes(handshakeFull) != 1 || s.handshakes(handshakeResumed) != 1 {
		t.Errorf("%d full handshakes and %d resumed", s.handshakes(handshakeFull), s.handshakes(handshakeResumed))
	}
}

func TestHandshakes(t *testing.T) {
	s := serve(t, newRoom(t, 1), newSite(t, nil).URL, withTLS(t))
	for _, c := range []struct {
		name   string
		change func(*tls.Config)
		fails  string // part of what the client is told; empty: it succeeds
	}{
		{"h2 and http/1.1", func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, ""},
		{"no protocols", func(*tls.Config) {}, ""},
		{"h2 alone", func(c *tls.Config) { c.NextProtos = []string{"h2"} }, "no application protocol"},
		{"TLS 1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, ""},
		{"TLS 1.1", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, "protocol version not supported"},
		{"another site", func(c *tls.Config) { c.ServerName = "other.test" }, "certificate is valid for shop.test"},
		{"no name", func(c *tls.Config) { c.ServerName = "127.0.0.1" }, ""},
	} {
		config := clientTLS()
		c.change(config)
		conn, err := tls.Dial("tcp", s.addr, config)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := conn.ConnectionState().NegotiatedProtocol; len(config.NextProtos) > 0 && got != "http/1.1" {
			t.Errorf("%s: they agree on %q", c.name, got)
		}
		if r := newWire(t, conn).send("%s", request("GET", "/wr_healthcheck", "")).mustAnswer("GET"); r.StatusCode != 200 {
			t.Errorf("%s: %d", c.name, r.StatusCode)
		}
		_ = conn.Close()
	}
	eventually(t, "all connections are closed", func() bool { return testutil.ToFloat64(s.metrics.connections) == 0 })
	if text := s.log.String(); strings.Contains(text, "level=WARN") || strings.Contains(text, "level=ERROR") || strings.Contains(text, "level=INFO") {
		t.Errorf("handshakes are in the log:\n%s", text)
	}
}

func TestWhatIsNotTLS(t *testing.T) {
	s := serve(t, newRoom(t, 1), newSite(t, nil).URL, withTLS(t))
	dial := func() *wire {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return newWire(t, c)
	}
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", "POST /x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000),
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		w := dial().send("%s", text)
		r := w.mustAnswer("GET")
		if r.StatusCode != 400 || !strings.Contains(r.text, "HTTPS") || !w.ended() {
			t.Errorf("%.20q: got %d %q", text, r.StatusCode, r.text)
		}
		ownAnswer(t, r)
	}
	hello := firstFlight(t)
	for name, bytes := range map[string]string{
		"garbage":            strings.Repeat("\x00\xff", 500),
		"an SSLv2 hello":     "\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
		"an oversize record": "\x16\x03\x01\xff\xff" + strings.Repeat("x", 0xffff),
		"2^14 and a byte":    "\x16\x03\x01\x40\x01\x01\x00\x3f\xfd" + strings.Repeat("x", 1<<14-3),
		"data before hello":  "\x17\x03\x03\x00\x05hello",
		"a hello twice":      hello + hello,
	} {
		w := dial().send("%s", bytes)
		_ = w.Conn.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, w.br); isTimeout(err) { // an alert, perhaps
			t.Errorf("%s: the connection stays open", name)
		}
	}
	// An oversize record behind a handshake.
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	secure := tls.Client(c, clientTLS())
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "\x17\x03\x03\x48\x00"+strings.Repeat("x", 0x4800))
	_ = c.SetReadDeadline(time.Now().Add(2 * patience))
	if _, err := secure.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("an oversize record: %v", err)
	}
	eventually(t, "all connections are closed", func() bool { return testutil.ToFloat64(s.metrics.connections) == 0 })
	if r := s.ask("GET", "/wr_healthcheck"); r.StatusCode != 200 {
		t.Errorf("afterwards: %d", r.StatusCode)
	}
	if text := s.log.String(); strings.Contains(text, "level=WARN") || strings.Contains(text, "level=ERROR") || strings.Contains(text, "level=INFO") {
		t.Errorf("it is in the log:\n%s", text)
	}
}

// firstFlight is what a client sends first.
func firstFlight(t *testing.T) string {
	t.Helper()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() { _ = tls.Client(ours, clientTLS()).Handshake() }()
	buf := make([]byte, 16<<10)
	n, err := theirs.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// Another implementation agrees, and is refused when it wants to negotiate again.
func TestHandshakesWithOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl here")
	}
	s := serve(t, newRoom(t, 1), newSite(t, nil).URL, withTLS(t))
	for _, c := range []struct {
		name, input string
		args        []string
		want        string
	}{
		{"h2 alone", "", []string{"-alpn", "h2"}, "no application protocol"},
		{"both", "", []string{"-alpn", "h2,http/1.1"}, "ALPN protocol: http/1.1"},
		{"TLS 1.1", "", []string{"-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"}, "alert"},
		{"renegotiation", "R\n", []string{"-tls1_2"}, "RENEGOTIATING"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		cmd := exec.CommandContext(ctx, "openssl", append([]string{"s_client", "-connect", s.addr, "-servername", "shop.test"}, c.args...)...)
		cmd.Stdin = strings.NewReader(c.input)
		out, err := cmd.CombinedOutput()
		cancel()
		if !bytes.Contains(out, []byte(c.want)) {
			t.Errorf("%s: no %q (%v):\n%s", c.name, c.want, err, out)
		}
		if c.input != "" && (err == nil || !bytes.Contains(out, []byte("alert unexpected message"))) {
			t.Errorf("%s: %v:\n%s", c.name, err, out)
		}
	}
	eventually(t, "all connections are closed", func() bool { return testutil.ToFloat64(s.metrics.connections) == 0 })
}

func TestHandshakesHaveADeadline(t *testing.T) {
	s := serve(t, newRoom(t, 1), newSite(t, nil).URL, func(c *Config) {
		c.TLS, c.HeaderTimeout = ownTLS(t), 300*time.Millisecond
	})
	hello := firstFlight(t)
	for _, text := range []string{"", hello[:3], hello[:len(hello)/2], hello} {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		w := newWire(t, c).send("%s", text)
		if _, err := io.Copy(io.Discard, w.br); isTimeout(err) {
			t.Errorf("after %d bytes: the connection stays open", len(text))
		}
	}
	eventually(t, "all are counted", func() bool { return s.handshakes(handshakeSlow) == 4 })
}

// Who waits for a client's next flight holds nothing that others need.
func TestSilentClientsHoldNoHandshakeUp(t *testing.T) {
	s := serve(t, newRoom(t, 1), newSite(t, nil).URL, func(c *Config) { c.TLS, c.Loops = ownTLS(t), 1 })
	hello := firstFlight(t)
	for i := range 60 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		newWire(t, c).send("%s", []string{"", hello[:len(hello)/2], hello}[i%3])
	}
	eventually(t, "all are there", func() bool { return testutil.ToFloat64(s.metrics.connections) == 60 })
	if r := s.ask("GET", "/wr_healthcheck"); r.StatusCode != 200 {
		t.Errorf("got %d", r.StatusCode)
	}
	eventually(t, "no turn is taken", func() bool { return len(s.turns.free) == 0 })
	// None of them has a request under way, so none holds up the end.
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFewHandshakesComputeAtOnce(t *testing.T) {
	gate := make(chan struct{})
	var now, most atomic.Int32
	s := serve(t, newRoom(t, 1), newSite(t, nil).URL, func(c *Config) {
		pair := &ownTLS(t).Certificates[0]
		c.Loops, c.TLS = 2, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			most.Store(max(most.Load(), now.Add(1)))
			<-gate
			now.Add(-1)
			return pair, nil
		}}
	})
	s.turns.limit = 6
	var wg sync.WaitGroup
	var served, refused atomic.Int32
	for range 12 {
		wg.Go(func() {
			c, err := tls.Dial("tcp", s.addr, clientTLS())
			if err != nil {
				refused.Add(1)
				return
			}
			served.Add(1)
			_ = c.Close()
		})
	}
	eventually(t, "two compute, six wait, four are refused", func() bool {
		return now.Load() == 2 && s.turns.waiting.Load() == 6 && refused.Load() == 4
	})
	close(gate)
	wg.Wait()
	if most.Load() > 2 || served.Load() != 8 || s.handshakes(handshakeCrowded) != 4 {
		t.Errorf("%d at once; %d served, %d refused for the crowd", most.Load(), served.Load(), s.handshakes(handshakeCrowded))
	}
}

// A client that takes a kilobyte now and then makes progress, though a record has sixteen of them.
func TestSlowReaderOfRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := certstest.NewCA(t, "a root of the year 2000") // that is what time it is in here
		near, far := net.Pipe()
		server := tls.Server(&pacedConn{Conn: near, stall: time.Second}, &tls.Config{Certificates: []tls.Certificate{ca.Issue(nil, "shop.test").TLS()}})
		client := tls.Client(&sip{far}, &tls.Config{RootCAs: ca.Pool(), ServerName: "shop.test"})
		sent := make(chan error, 1)
		body := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
		go func() {
			_, err := server.Write(body)
			_ = near.Close()
			sent <- err
		}()
		got, err := io.ReadAll(client)
		if !bytes.Equal(got, body) {
			t.Errorf("%d of %d bytes came (%v)", len(got), len(body), err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		begun := time.Now()
		p := &pacedConn{Conn: near, stall: time.Second}
		if _, err := p.Write([]byte("x")); !isTimeout(err) || time.Since(begun) > 2*time.Second {
			t.Errorf("a reader that takes nothing: %v after %v", err, time.Since(begun))
		}
		p.finish(lastWords)
		begun = time.Now()
		if _, err := p.Write([]byte("x")); !isTimeout(err) || time.Since(begun) > lastWords {
			t.Errorf("the last words: %v after %v", err, time.Since(begun))
		}
	})
}

// A sip takes a kilobyte every 200 ms.
type sip struct{ net.Conn }

func (s *sip) Read(p []byte) (int, error) {
	<-time.After(200 * time.Millisecond)
	return s.Conn.Read(p[:min(len(p), 1<<10)])
}

// An upload whose connection is cut, between two records or within one, never looks whole to the origin.
func TestCutUploadsOverTLS(t *testing.T) {
	room := newRoom(t, 10)
	origin := newSite(t, nil)
	s := serve(t, room, origin.URL, withTLS(t))
	_, cookie := room.active(t)
	for i, tail := range []string{"", "\x17\x03\x03\x00\x40half of it"} {
		for _, framing := range []string{"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "Content-Length: 10\r\n\r\nhello"} {
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			w := newWire(t, tls.Client(c, clientTLS()))
			w.send("POST /upload HTTP/1.1\r\nHost: shop.test\r\nCookie: %s\r\n%s", cookie, framing)
			before := len(origin.seen())
			_, _ = io.WriteString(c, tail)
			_ = c.Close()
			eventually(t, "it is over", func() bool {
				return testutil.ToFloat64(s.metrics.connections) == 0 && testutil.ToFloat64(s.metrics.inFlight) == 0
			})
			for _, h := range origin.seen()[min(before, len(origin.seen())):] {
				if h.err == nil {
					t.Errorf("tail %d, %.20q: the origin has %q for a whole body", i, framing, h.body)
				}
			}
		}
	}
}

func TestOriginThatCannotBeTrusted(t *testing.T) {
	_, pair := testCA()
	room := newRoom(t, 10)
	_, cookie := room.active(t)
	for _, c := range []struct {
		name   string
		server *tls.Config
		client *tls.Config
		says   string
	}{
		{"known", &tls.Config{Certificates: []tls.Certificate{pair}}, clientTLS(), ""},
		{"an unknown issuer", &tls.Config{Certificates: []tls.Certificate{pair}}, nil, "unknown authority"},
		{"another name", &tls.Config{Certificates: []tls.Certificate{pair}}, &tls.Config{RootCAs: clientTLS().RootCAs, ServerName: "other.test"}, "not other.test"},
		{"TLS 1.1", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, &tls.Config{RootCAs: clientTLS().RootCAs, ServerName: "shop.test", MinVersion: tls.VersionTLS10}, "version"},
	} {
		origin := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "fine") }))
		origin.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		origin.TLS = c.server
		origin.StartTLS()
		s := serve(t, room, origin.URL, func(cfg *Config) { cfg.BackendTLS = c.client })
		for range 2 {
			r := s.ask("GET", "/", "Cookie: "+cookie)
			if c.says == "" && r.text != "fine" || c.says != "" && r.StatusCode != 502 {
				t.Errorf("%s: got %d %q", c.name, r.StatusCode, r.text)
			}
		}
		if text := s.log.String(); c.says != "" && (strings.Count(text, "origin is unreachable") != 1 || !strings.Contains(text, c.says)) {
			t.Errorf("%s: the log has %s", c.name, text)
		}
		origin.Close()
	}
}

func TestTLSNeedsACertificate(t *testing.T) {
	_, err := New(Config{Room: newRoom(t, 1), Backend: mustURL(t, "http://127.0.0.1:1"), TLS: &tls.Config{}})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}
