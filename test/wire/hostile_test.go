package wire

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	fine = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n"
	evil = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil\n"
)

// A hostility is what an origin answers, and what its visitor may see of that.
type hostility struct {
	name   string
	answer string
	then   string // what the origin does next: close, wait for the end of the connection, or keep it for the next request
	want   string // status and body; cut: an answer that must not look whole; an alternative after a bar
	method string // GET
	body   string // of the request
	early  bool   // it answers before it has read the body
}

func hostilities() []hostility {
	ambiguous := func(name, answer string) hostility {
		return hostility{name: name, answer: answer, then: "wait", want: "502"}
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	out := []hostility{
		ambiguous("two lengths that agree", ok+"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
		ambiguous("two lengths that differ", ok+"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokX"),
		ambiguous("a list of lengths", ok+"Content-Length: 2, 2\r\n\r\nok"),
		ambiguous("a length and chunks", ok+"Content-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+evil),
		ambiguous("chunks and a length", ok+"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
		ambiguous("a length of letters", ok+"Content-Length: abc\r\n\r\nok"),
		ambiguous("a negative length", ok+"Content-Length: -1\r\n\r\nok"),
		ambiguous("a length beyond all", ok+"Content-Length: 99999999999999999999\r\n\r\nok"),
		ambiguous("an empty length", ok+"Content-Length:\r\n\r\nok"),
		ambiguous("gzip and chunked", ok+"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
		ambiguous("chunked twice", ok+"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		ambiguous("identity", ok+"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok"),
		ambiguous("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		ambiguous("space behind Content-Length", ok+"Content-Length : 2\r\n\r\nok"),
		ambiguous("a folded line", ok+"X-A: a\r\n b\r\nContent-Length: 2\r\n\r\nok"),
		ambiguous("no colon", ok+"XA\r\nContent-Length: 2\r\n\r\nok"),
		ambiguous("NUL in a value", ok+"X-A: a\x00b\r\nContent-Length: 2\r\n\r\nok"),
		ambiguous("bare CR in a value", ok+"X-A: a\rSet-Cookie: b=c\r\nContent-Length: 2\r\n\r\nok"),
		ambiguous("LF throughout", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
		ambiguous("LF once", ok+"X-A: b\nContent-Length: 2\r\n\r\nok"),
		ambiguous("garbage", "\x00\x01\x02 this is no HTTP\r\n\r\n"),
		ambiguous("another protocol", "SSH-2.0-OpenSSH_9.9\r\n"),
		ambiguous("HTTP/2", "HTTP/2 200\r\n\r\n"),
		ambiguous("HTTP/0.9", "<html>hello</html>\r\n"),
		ambiguous("an empty line first", "\r\n"+fine),
		ambiguous("no status", "HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok"),
		ambiguous("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok"),
		ambiguous("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok"),
		ambiguous("status 099", "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok"),
		ambiguous("a request in place of an answer", "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"),
		ambiguous("101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello"),
		ambiguous("17 interim answers", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 17)+fine),
		ambiguous("a head of 70 kB", ok+"X-A: "+strings.Repeat("a", 70_000)+"\r\nContent-Length: 2\r\n\r\nok"),
		ambiguous("a head of 10,000 lines", ok+strings.Repeat("X-A: a\r\n", 10_000)+"\r\n"),
		ambiguous("a status line without end", "HTTP/1.1 200 "+strings.Repeat("O", 70_000)),

		{name: "nothing", then: "close", want: "502"},
		{name: "a part of a status line", answer: "HTTP/1.", then: "close", want: "502"},
		{name: "a part of a head", answer: ok + "Content-Le", then: "close", want: "502"},
		{name: "an interim answer and nothing", answer: "HTTP/1.1 100 Continue\r\n\r\n", then: "close", want: "502"},
		{name: "a part of a body", answer: ok + "Content-Length: 100\r\n\r\nshort", then: "close", want: "cut"},
		{name: "a part of a large body", answer: ok + "Content-Length: 10000000\r\n\r\n" + strings.Repeat("s", 300_000), then: "close", want: "cut"},
		{name: "a part of a chunk", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nsho", then: "close", want: "cut"},
		{name: "no last chunk", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", then: "close", want: "cut"},
		{name: "no end of the last chunk", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n", then: "close", want: "cut"},
		{name: "a chunk of letters", answer: ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n", then: "wait", want: "cut"},
		{name: "a chunk too long", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nokXX0\r\n\r\n", then: "wait", want: "cut"},
		{name: "a chunk with a sign", answer: ok + "Transfer-Encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n", then: "wait", want: "cut"},
		{name: "a chunk that wraps", answer: ok + "Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n", then: "wait", want: "cut"},
		{name: "chunks ended by LF", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n", then: "wait", want: "cut"},

		{name: "100 and 103 first", answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + fine, then: "keep", want: "200 fine\n"},
		{name: "102 in two lines", answer: "HTTP/1.1 102 Processing\r\nX-A: b\r\n\r\n" + fine, then: "keep", want: "200 fine\n"},
		{name: "until the end of the connection", answer: ok + "\r\nfine\n", then: "close", want: "200 fine\n"},
		{name: "HTTP/1.0", answer: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nfine\n", then: "wait", want: "200 fine\n"},
		{name: "close", answer: ok + "Connection: close\r\nContent-Length: 5\r\n\r\nfine\n", then: "wait", want: "200 fine\n"},
		{name: "a trailer", answer: ok + "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nfine\n\r\n0\r\nX-T: v\r\n\r\n", then: "keep", want: "200 fine\n"},
		{name: "an extension", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nfine\n\r\n0\r\n\r\n", then: "keep", want: "200 fine\n"},
		{name: "no reason", answer: "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nfine\n", then: "keep", want: "200 fine\n"},
		{name: "204 with a length and a body", answer: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nevil\n", then: "wait", want: "204 "},
		{name: "204 with chunks", answer: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevil\n\r\n0\r\n\r\n", then: "wait", want: "204 "},
		{name: "304 with a length and a body", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nevil\n", then: "wait", want: "304 "},
		{name: "304 with a length", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", then: "keep", want: "304 "},
		{name: "an answer and another", answer: fine + evil, then: "wait", want: "200 fine\n"},
		{name: "an answer and a byte", answer: fine + "x", then: "wait", want: "200 fine\n"},
		{name: "chunks and another answer", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nfine\n\r\n0\r\n\r\n" + evil, then: "wait", want: "200 fine\n"},
		{name: "an answer and no end of more", answer: fine + strings.Repeat("x", 1_000_000), then: "wait", want: "200 fine\n"},
		{name: "more than its length", answer: ok + "Content-Length: 5\r\n\r\nfine\nand more", then: "wait", want: "200 fine\n"},
		{name: "HEAD with a body", method: "HEAD", answer: ok + "Content-Length: 5\r\n\r\nevil\n", then: "wait", want: "200 "},
		{name: "HEAD with chunks", method: "HEAD", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nevil\n\r\n0\r\n\r\n", then: "wait", want: "200 "},
		{name: "HEAD with a length", method: "HEAD", answer: ok + "Content-Length: 5\r\n\r\n", then: "keep", want: "200 "},
		{name: "an answer before the body", method: "POST", body: "abc", answer: "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nfine\n", then: "close", want: "413 fine\n", early: true},
		{
			name: "an answer before a large body", method: "POST", body: strings.Repeat("b", 3_000_000), answer: "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nfine\n", then: "close",
			want: "413 fine\n|502", early: true,
		},
		{name: "two answers to a body", method: "POST", body: "abc", answer: fine + evil, then: "wait", want: "200 fine\n"},
		{name: "two lengths for a body", method: "POST", body: "abc", answer: ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nokX", then: "wait", want: "502"},
	}
	return out
}

// What a bad origin does costs one request. What is ambiguous is a 502, its connection is closed, and no visitor gets anything
// that was meant for another request.
func TestHostileOrigins(t *testing.T) {
	all := hostilities()
	acts := map[string]act{}
	var left sync.Map // by the name: the origin's connection was not ended
	for i, h := range all {
		what := func(c *originConn, _ *recorded) bool {
			_, _ = io.WriteString(c, h.answer)
			if h.then == "wait" && !c.closedBy(patience) {
				left.Store(h.name, true)
			}
			return h.then == "keep"
		}
		path := fmt.Sprintf("/hostile%d-", i)
		if h.early {
			path = "head " + path
		}
		acts[path] = what
	}
	onEveryWay(t, acts, nil, func(t *testing.T, w *way) {
		var wg sync.WaitGroup
		free := make(chan struct{}, 24)
		for i, h := range all {
			for _, at := range []position{fresh, kept} {
				free <- struct{}{}
				wg.Go(func() {
					defer func() { <-free }()
					if fault := w.suffer(h, i, at); fault != "" {
						t.Errorf("%s, %s: %s", h.name, at, fault)
					}
				})
			}
		}
		wg.Wait()
		left.Range(func(name, _ any) bool {
			t.Errorf("%s: the connection to the origin was not closed", name)
			return true
		})
	})
}

// suffer sends the request whose answer is a bad one, and good ones before and behind it.
func (w *way) suffer(h hostility, number int, at position) string {
	if h.method == "" {
		h.method = "GET"
	}
	c := w.dial()
	defer c.Close()
	good := func(name string) string {
		tag := newTag()
		c.send("GET /" + name + tag + " HTTP/1.1\r\nHost: shop.test\r\n" + w.inside + w.aside + "\r\n")
		statuses, answers := c.told(nil, 1, false)
		return wrong(statuses, answers, []string{"200"}, tag, []string{name})
	}
	if at == kept {
		if fault := good("before"); fault != "" {
			return "the request before it: " + fault
		}
	}
	tag := newTag()
	length := w.aside
	if h.body != "" {
		length = fmt.Sprintf("Content-Length: %d\r\n", len(h.body))
	}
	c.send(fmt.Sprintf("%s /hostile%d-%s HTTP/1.1\r\nHost: shop.test\r\nAccept: application/json\r\n%s%s\r\n%s", h.method, number, tag, w.inside, length, h.body))
	a, err := c.answer(h.method)
	got := fmt.Sprintf("%d %s", a.status, a.body)
	switch {
	case err != nil:
		got = "cut"
	case a.status == http.StatusBadGateway:
		got = "502"
	}
	if ok := func() bool {
		for want := range strings.SplitSeq(h.want, "|") {
			if got == want {
				return true
			}
		}
		return false
	}(); !ok {
		return fmt.Sprintf("got %.100q (%v), want %q", got, err, h.want)
	}
	if n := len(w.origin.of(tag)); n != 1 && (n != 2 || h.answer != "") {
		return fmt.Sprintf("it reached the origin %d times", n)
	}
	if got == "cut" {
		if _, err := c.br.ReadByte(); err == nil {
			return "something follows an answer that was cut"
		}
	}
	if got == "cut" || h.early {
		c.Close()
		c = w.dial()
		defer c.Close()
	}
	for range 2 {
		if fault := good("behind"); fault != "" {
			return "the request behind it: " + fault
		}
	}
	return ""
}

// Bytes on a connection that nobody has asked for, and connections that have ended, are no answers to the next request.
func TestIdleConnectionsOfTheOrigin(t *testing.T) {
	var after sync.Map // tag → closed when the deed is done
	deed := func(do func(net.Conn)) act {
		return func(c *originConn, r *recorded) bool {
			_, _ = io.WriteString(c, fine)
			done, _ := after.LoadOrStore(tags.FindString(r.head), make(chan struct{}))
			<-time.After(30 * time.Millisecond) // apart from the answer
			do(c.Conn)
			close(done.(chan struct{}))
			return true
		}
	}
	acts := map[string]act{
		"/speaks": deed(func(c net.Conn) { _, _ = io.WriteString(c, evil) }),
		"/ends":   deed(func(c net.Conn) { _ = c.(interface{ CloseWrite() error }).CloseWrite() }),
		"/resets": deed(reset),
	}
	onEveryWay(t, acts, nil, func(t *testing.T, w *way) {
		for _, path := range []string{"/speaks", "/ends", "/resets"} {
			for _, method := range []string{"GET", "POST"} {
				for range 4 {
					tag := newTag()
					c := w.dial()
					c.send("GET " + path + tag + " HTTP/1.1\r\nHost: shop.test\r\n" + w.inside + "\r\n")
					if a, err := c.answer("GET"); err != nil || a.body != "fine\n" {
						t.Errorf("%s: got %+v, %v", path, a, err)
					}
					done, _ := after.LoadOrStore(tag, make(chan struct{}))
					select {
					case <-done.(chan struct{}):
					case <-time.After(patience):
						t.Fatal("the origin has not done its deed")
					}
					next := newTag()
					c.send(method + " /next" + next + " HTTP/1.1\r\nHost: shop.test\r\n" + w.inside + "Content-Length: 3\r\n\r\nabc")
					if a, err := c.answer(method); err != nil || a.body != method+" /next"+next+"\n" {
						t.Errorf("%s, then %s: got %+v, %v", path, method, a, err)
					}
					c.Close()
				}
			}
		}
	})
}

// reset ends a connection as a process that dies does.
func reset(c net.Conn) {
	if secure, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = secure.NetConn()
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// A request reaches the origin twice only when that can do nothing twice: by a method that changes nothing, without a body, on a
// connection that was used before, and without a byte of an answer. Everything else reaches it once at most, whatever happens.
func TestRetries(t *testing.T) {
	var hurt atomic.Int64
	once := func(do func(*originConn)) act {
		return func(c *originConn, _ *recorded) bool {
			hurt.Add(1)
			do(c)
			return false
		}
	}
	acts := map[string]act{
		"/closes":      once(func(*originConn) {}),
		"/resets":      once(func(c *originConn) { reset(c.Conn) }),
		"/byte":        once(func(c *originConn) { _, _ = io.WriteString(c, "H") }),
		"/interim":     once(func(c *originConn) { _, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n") }),
		"/half":        once(func(c *originConn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Le") }),
		"/garbage":     once(func(c *originConn) { _, _ = io.WriteString(c, "garbage\r\n\r\n") }),
		"head /early":  once(func(*originConn) {}),
		"head /earlyr": once(func(c *originConn) { reset(c.Conn) }),
	}
	onEveryWay(t, acts, nil, func(t *testing.T, w *way) {
		var wg sync.WaitGroup
		for _, path := range []string{"/closes", "/resets", "/byte", "/interim", "/half", "/garbage", "/early", "/earlyr"} {
			for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "FOO", "get"} {
				for _, body := range []string{"", "Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "Content-Length: 300000\r\n\r\n" + strings.Repeat("b", 300_000)} {
					wg.Go(func() {
						most := 1
						if silent := path == "/closes" || path == "/resets" || strings.HasPrefix(path, "/early"); silent && body == "" && (method == "GET" || method == "HEAD" || method == "OPTIONS") {
							most = 2
						}
						if fault := w.retried(method, path, body, most); fault != "" {
							t.Errorf("%s %s with %.30q: %s", method, path, body, fault)
						}
					})
				}
			}
			wg.Wait()
		}
		if hurt.Load() == 0 {
			t.Error("the origin has done no harm")
		}
	})
}

func (w *way) retried(method, path, body string, most int) string {
	c := w.dial()
	defer c.Close()
	first := newTag()
	c.send("GET /first" + first + " HTTP/1.1\r\nHost: shop.test\r\n" + w.inside + w.aside + "\r\n") // leaves a connection that was used before
	if a, err := c.answer("GET"); err != nil || !strings.Contains(a.body, first) {
		return fmt.Sprintf("the request before it: %+v, %v", a, err)
	}
	tag := newTag()
	if body == "" {
		body = w.aside + "\r\n"
	}
	c.send(method + " " + path + tag + " HTTP/1.1\r\nHost: shop.test\r\n" + w.inside + body)
	a, err := c.answer(method)
	if err != nil || a.status != http.StatusBadGateway {
		return fmt.Sprintf("got %d %q, %v, want 502", a.status, a.body, err)
	}
	if n := len(w.origin.of(tag)); n < 1 && w.reaches(body) || n > most {
		return fmt.Sprintf("it reached the origin %d times, at most %d are right", n, most)
	}
	return ""
}

// reaches reports whether a request with such a body must have been seen by the origin.
func (w *way) reaches(body string) bool { return len(body) < 1000 }
