package wire

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A recorded request is one as the origin read it, byte by byte and without mercy.
type recorded struct {
	head  string // from the request line to the last header line, each with its CRLF
	body  string
	whole bool
	conn  *originConn
}

// brief is the request in one line: its method, its target, its body.
func (r *recorded) brief() string {
	line, _, _ := strings.Cut(r.head, "\r\n")
	line = strings.TrimSuffix(line, " HTTP/1.1")
	if r.body != "" {
		line += " " + r.body
	}
	return line
}

// tags are what tells the requests of one exchange from all others. One is in every request that a test sends.
var tags = regexp.MustCompile(`tag[0-9]+z`)

// A recorder is the origin. It keeps every request, and answers "METHOD TARGET" unless a path has an act.
type recorder struct {
	t    testing.TB
	URL  string
	acts map[string]act // by the path up to the tag; not changed once requests come

	lenient bool // what a strict server would refuse is recorded, as a request that begins with an exclamation mark

	mu       sync.Mutex
	requests map[string][]*recorded // by tag
	faults   []string               // what a strict server would refuse
	open     map[net.Conn]bool
}

// An act is what the origin does with a request, in place of an answer. It reports whether the connection goes on.
type act func(c *originConn, r *recorded) (goesOn bool)

// An originConn is a connection that the origin has accepted.
type originConn struct {
	net.Conn
	br *bufio.Reader
}

func newRecorder(t testing.TB, secure *tls.Config, acts map[string]act) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &recorder{t: t, URL: "http://" + l.Addr().String(), acts: acts, requests: map[string][]*recorded{}, open: map[net.Conn]bool{}}
	if secure != nil {
		o.URL = "https://" + l.Addr().String()
		l = tls.NewListener(l, secure)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			o.open[c] = true
			o.mu.Unlock()
			wg.Go(func() {
				o.serve(&originConn{c, bufio.NewReaderSize(c, 64<<10)})
				_ = c.Close()
				o.mu.Lock()
				delete(o.open, c)
				o.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		o.mu.Lock()
		for c := range o.open {
			_ = c.Close()
		}
		o.mu.Unlock()
		wg.Wait()
	})
	return o
}

func (o *recorder) serve(c *originConn) {
	for {
		r, err := o.read(c)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				o.fault(err)
			}
			return
		}
		if r == nil {
			return // cut off, which is known already
		}
		method, rest, _ := strings.Cut(r.head, " ")
		target, _, _ := strings.Cut(rest, " ")
		path := tags.ReplaceAllString(target, "")
		if act := o.acts[path]; act != nil {
			if !act(c, r) {
				return
			}
			continue
		}
		text := method + " " + target + "\n"
		answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(text))
		if method != "HEAD" {
			answer += text
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func (o *recorder) fault(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if tag := tags.FindString(err.Error()); o.lenient && tag != "" {
		o.requests[tag] = append(o.requests[tag], &recorded{head: "!", whole: true})
	} else {
		o.faults = append(o.faults, err.Error())
	}
}

// fieldLine and requestLine are what a proxy has to write. What is no control byte stands for itself.
var (
	fieldLine   = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[^\\x00-\\x08\\x0a-\\x1f\\x7f]*\r\n$")
	requestLine = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^\\x00-\\x20\\x7f]+ HTTP/1\\.1\r\n$")
)

// read reads one request. A nil request has ended before its end. An error is what no proxy may send.
func (o *recorder) read(c *originConn) (*recorded, error) {
	r := &recorded{conn: c}
	length, chunked, hosts := int64(-1), false, 0
	for first := true; ; first = false {
		line, err := c.br.ReadString('\n')
		if err != nil {
			if first && line == "" {
				return nil, io.EOF
			}
			return nil, nil //nolint:nilnil // half a head is nobody's fault: the proxy has been stopped
		}
		if line == "\r\n" && !first {
			break
		}
		if first && !requestLine.MatchString(line) || !first && !fieldLine.MatchString(line) {
			return nil, fmt.Errorf("the origin got the line %q behind %q", line, r.head)
		}
		r.head += line
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), ":")
		value = strings.Trim(value, " \t")
		switch {
		case first:
		case strings.EqualFold(name, "Content-Length"):
			n, err := strconv.ParseInt(value, 10, 63)
			if err != nil || length >= 0 || chunked {
				return nil, fmt.Errorf("the origin got the framing %q", r.head)
			}
			length = n
		case strings.EqualFold(name, "Transfer-Encoding"):
			if value != "chunked" || length >= 0 || chunked {
				return nil, fmt.Errorf("the origin got the framing %q", r.head)
			}
			chunked = true
		case strings.EqualFold(name, "Host"):
			hosts++
		}
	}
	if hosts != 1 || !tags.MatchString(r.head) {
		return nil, fmt.Errorf("the origin got a request that nobody made: %q", r.head)
	}
	o.mu.Lock()
	tag := tags.FindString(r.head)
	o.requests[tag] = append(o.requests[tag], r)
	o.mu.Unlock()

	if act := o.acts["head "+tags.ReplaceAllString(strings.SplitN(r.head, " ", 3)[1], "")]; act != nil && !act(c, r) {
		return nil, nil //nolint:nilnil // the act has ended the connection before the body
	}
	body, err := readBody(c.br, length, chunked)
	o.mu.Lock()
	r.body, r.whole = body, err == nil
	o.mu.Unlock()
	if errors.Is(err, errBadChunk) {
		return nil, fmt.Errorf("the origin got %w behind %q", err, r.head)
	}
	if err != nil {
		return nil, nil //nolint:nilnil // a body that ends before its end is recorded as such
	}
	return r, nil
}

var errBadChunk = errors.New("a malformed chunk")

func readBody(br *bufio.Reader, length int64, chunked bool) (string, error) {
	var body bytes.Buffer
	if !chunked {
		_, err := io.CopyN(&body, br, max(length, 0))
		return body.String(), err
	}
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return body.String(), err
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(line, "\r\n"), 16, 63)
		if err != nil || !strings.HasSuffix(line, "\r\n") {
			return body.String(), errBadChunk
		}
		if _, err := io.CopyN(&body, br, n); err != nil {
			return body.String(), err
		}
		end := make([]byte, 2)
		if _, err := io.ReadFull(br, end); err != nil {
			return body.String(), err
		}
		if string(end) != "\r\n" {
			return body.String(), errBadChunk
		}
		if n == 0 {
			return body.String(), nil
		}
	}
}

// of returns the requests with a tag so far, in the order in which they came.
func (o *recorder) of(tag string) []recorded {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []recorded
	for _, r := range o.requests[tag] {
		out = append(out, *r)
	}
	return out
}

// mustBeFaultless fails the test when anything has reached the origin that a strict server would refuse.
func (o *recorder) mustBeFaultless() {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, fault := range o.faults {
		o.t.Error(fault)
	}
}

// closedBy reports whether the other side ends the connection within d. It belongs into an act.
func (c *originConn) closedBy(d time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(d))
	_, err := io.Copy(io.Discard, c.br)
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}
