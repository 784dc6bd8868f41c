package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// patience is how long something may take that must happen.
const patience = 20 * time.Second

// A client is one connection to a proxy, byte by byte. seen is all that has come.
type client struct {
	net.Conn
	br   *bufio.Reader
	seen bytes.Buffer
	sent chan struct{} // closed when the last send is over
}

func dial(t testing.TB, address string) *client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := new(client)
	c.over(conn)
	return c
}

// over makes a connection the client's, before a byte of it was read.
func (c *client) over(conn net.Conn) {
	c.Conn = conn
	c.br = bufio.NewReader(io.TeeReader(conn, &c.seen))
}

// send writes while answers may come already: a proxy that refuses a request does not wait for its end.
func (c *client) send(text string) {
	sent := make(chan struct{})
	c.sent = sent
	go func() {
		defer close(sent)
		_, _ = io.WriteString(c.Conn, text)
	}()
}

// An answer is one response.
type answer struct {
	status int
	header http.Header
	body   string
	closes bool // it says that the connection ends with it
}

func (c *client) answer(method string) (answer, error) {
	r, err := http.ReadResponse(c.br, &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	defer r.Body.Close()
	if r.StatusCode < 200 && r.StatusCode != 101 {
		return answer{r.StatusCode, r.Header, "", false}, nil
	}
	body, err := io.ReadAll(r.Body)
	return answer{r.StatusCode, r.Header, string(body), r.Close}, err
}

// told is what a connection brings: the statuses in order, with ! behind one whose answer was cut off, then x when the other side has
// ended the connection, or ? when nothing came in time. It stops after so many answers unless the connection is expected to end.
// methods are those of the requests.
func (c *client) told(methods []string, count int, ends bool) (statuses []string, answers []answer) {
	for len(statuses) < count || ends {
		method := "GET"
		if finals := len(finalOf(answers)); finals < len(methods) {
			method = methods[finals]
		}
		if _, err := c.br.Peek(1); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return append(statuses, "?"), answers
			}
			return append(statuses, "x"), answers // a reset is an end too: who closes with bytes unread resets
		}
		a, err := c.answer(method)
		if err != nil {
			return append(statuses, strconv.Itoa(a.status)+"!"), answers
		}
		statuses, answers = append(statuses, strconv.Itoa(a.status)), append(answers, a)
	}
	return statuses, answers
}

func finalOf(answers []answer) (final []answer) {
	for _, a := range answers {
		if a.status >= 200 || a.status == 101 {
			final = append(final, a)
		}
	}
	return final
}
