package proxy

import (
	"strings"
	"testing"
)

// feed gives an intake a text in pieces of a size, as clientConn does, and returns what of it belongs to the first request.
func feed(text string, piece int) (in intake, n int) {
	for n < len(text) && in.before() == nil {
		k, headEnds := in.take([]byte(text[n:min(n+piece, len(text))]))
		n += k
		if !headEnds {
			continue
		}
		var h head
		if r := h.readRaw(in.head); r != nil {
			in.refuse(r)
		} else {
			in.body(h.length)
		}
	}
	return in, n
}

func TestIntakeEndsWhereTheRequestEnds(t *testing.T) {
	const head = "POST /x HTTP/1.1\r\nHost: shop.test\r\n"
	const chunked = head + "Transfer-Encoding: chunked\r\n\r\n"
	const next = "GET /next HTTP/1.1\nHost: evil.test\r\n\r\n"
	for _, c := range []struct {
		request string
		whole   bool // else it is refused with its last byte
	}{
		{head + "\r\n", true},
		{"\r\n\r\n" + head + "\r\n", true},
		{head + "Content-Length: 5\r\n\r\na\r\n\r\n", true},
		{chunked + "0\r\n\r\n", true},
		{chunked + "3\r\n\r\n0\r\n5;a=\"b\"\r\nhello\r\n0\r\nX-A: b\r\nX-B:\r\n\r\n", true},
		{chunked + "3 \t\r\nabc\r\n00;\r\n\r\n", true},
		{"POST /x HTTP/1.1\n", false},
		{"\n", false},
		{head + "X: a\n", false},
		{head + "X: a\r\n b\r\n\r\n", false},
		{head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", false},
	} {
		for piece := 1; piece < len(c.request)+len(next); piece += 1 + piece/7 {
			in, n := feed(c.request+next, piece)
			if n != len(c.request) || in.whole() != c.whole || (in.refusal == nil) != c.whole {
				t.Errorf("%q in pieces of %d: %d of %d bytes, refused: %v", c.request, piece, n, len(c.request), in.refusal)
			}
		}
	}
	for _, body := range []string{
		"-", "x", "\r", ";", " ", "3\n", "3 ;", "3;\n", "3;\x00", "3\r\r", "3\r\nabcd", "3\r\nabc\n", "3\r\nabc\r\r", "0\r\n\n", "0\r\n\r\r", "0\r\n ", "0\r\n:", "0\r\nX \t", "0\r\nX: \n", "0\r\nX: \x00",
		"0\r\nX\r", "1234567890123456", "3;" + strings.Repeat("a", maxChunkLine),
	} {
		if in, n := feed(chunked+body, 7); in.refusal == nil || n >= len(chunked+body) && !strings.HasPrefix(body, "3;a") {
			t.Errorf("%q: taken as far as %d, refused: %v", body, n-len(chunked), in.refusal)
		}
	}
}

// Where a request ends in a stream of several is not fasthttp's to say: it takes a bare LF for the end of a request line.
func TestPipelinedBareLF(t *testing.T) {
	room := newRoom(t, 10)
	origin := newSite(t, nil)
	s := serve(t, room, origin.URL, nil)
	_, cookie := room.active(t)
	w := s.dial().send("%s", request("POST", "/1", "abc", "Cookie: "+cookie)+"GET /2 HTTP/1.1\nHost: a\r\nCookie: "+cookie+"\r\n\r\n")
	if r := w.mustAnswer("POST"); r.StatusCode != 200 {
		t.Errorf("the first: got %d", r.StatusCode)
	}
	if r := w.mustAnswer("GET"); r.StatusCode != 400 || !w.ended() || len(origin.seen()) != 1 {
		t.Errorf("the second: got %d, %d requests at the origin", r.StatusCode, len(origin.seen()))
	}
}
