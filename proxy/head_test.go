package proxy

import (
	"bytes"
	"strings"
	"testing"
)

func TestHeadRefusesWhatReadersDisagreeAbout(t *testing.T) {
	const host = "Host: shop.test\r\n"
	for _, c := range []struct {
		name, method, target, proto, block string
		want                               int // 0: taken
	}{
		{"plain", "GET", "/x?a=1", "HTTP/1.1", host, 0},
		{"query with backslash and bad percent", "GET", `/x?a=%zz&c=\|{}`, "HTTP/1.1", host, 0},
		{"bytes above 127", "GET", "/x\xff", "HTTP/1.1", host + "X-A: \xe9\xff\r\n", 0},
		{"tab in a value", "GET", "/", "HTTP/1.1", host + "X-A: b\tc\r\n", 0},
		{"HTTP/1.0 without Host", "GET", "/", "HTTP/1.0", "", 0},
		{"options *", "OPTIONS", "*", "HTTP/1.1", host, 0},
		{"absolute-form with the same host", "GET", "http://shop.test/x?a=1", "HTTP/1.1", host, 0},
		{"IPv6 host", "GET", "/", "HTTP/1.1", "Host: [::1]:8080\r\n", 0},
		{"the shortest IPv6 host", "GET", "/", "HTTP/1.1", "Host: [::]\r\n", 0},
		{"host with the highest port", "GET", "/", "HTTP/1.1", "Host: shop.test:65535\r\n", 0},
		{"host with an empty port", "GET", "/", "HTTP/1.1", "Host: shop.test:\r\n", 0},
		{"IPv6 host with an empty port", "GET", "/", "HTTP/1.1", "Host: [::1]:\r\n", 0},
		{"as many names in Connection as may be", "GET", "/", "HTTP/1.1", host + "Connection: " + strings.Repeat("a, ,", maxNamed) + "\r\n", 0},
		{"chunked in capitals", "POST", "/", "HTTP/1.1", host + "Transfer-Encoding: CHUNKED\r\n", 0},

		{"HTTP/2.0", "GET", "/", "HTTP/2.0", host, 505},
		{"HTTP/1.2", "GET", "/", "HTTP/1.2", host, 505},
		{"long target", "GET", "/" + strings.Repeat("a", maxTarget), "HTTP/1.1", host, 414},
		{"CONNECT", "CONNECT", "shop.test:443", "HTTP/1.1", host, 405},
		{"TRACE", "TRACE", "/", "HTTP/1.1", host, 405},
		{"GET *", "GET", "*", "HTTP/1.1", host, 400},
		{"no slash", "GET", "x", "HTTP/1.1", host, 400},
		{"absolute-form with another host", "GET", "http://evil.test/x", "HTTP/1.1", host, 400},
		{"absolute-form with a user", "GET", "http://u:p@shop.test/x", "HTTP/1.1", host, 400},
		{"absolute-form of another scheme", "GET", "ftp://shop.test/x", "HTTP/1.1", host, 400},
		{"backslash in the path", "GET", `/a\..\b`, "HTTP/1.1", host, 400},
		{"NUL in the path", "GET", "/x%00y", "HTTP/1.1", host, 400},
		{"NUL in the query", "GET", "/x?%00", "HTTP/1.1", host, 0},
		{"fragment", "GET", "/x?a#b", "HTTP/1.1", host, 400},
		{"something behind the empty line", "GET", "/", "HTTP/1.1", host + "\r\nX-A: b\r\n", 400},
		{"a version that is none", "GET", "/", "HTTP/1.1x", host, 400},
		{"method with a delimiter", "GE(T", "/", "HTTP/1.1", host, 400},
		{"no host", "GET", "/", "HTTP/1.1", "X: y\r\n", 400},
		{"two hosts", "GET", "/", "HTTP/1.1", host + host, 400},
		{"empty host", "GET", "/", "HTTP/1.1", "Host: \r\n", 400},
		{"host with a user", "GET", "/", "HTTP/1.1", "Host: u:p@shop.test\r\n", 400},
		{"host with a path", "GET", "/", "HTTP/1.1", "Host: shop.test/evil\r\n", 400},
		{"host list", "GET", "/", "HTTP/1.1", "Host: shop.test, evil.test\r\n", 400},
		{"host with a bad port", "GET", "/", "HTTP/1.1", "Host: shop.test:99999x\r\n", 400},
		{"host with a port too high", "GET", "/", "HTTP/1.1", "Host: shop.test:65536\r\n", 400},
		{"host with a long port", "GET", "/", "HTTP/1.1", "Host: shop.test:000080\r\n", 400},
		{"host with two ports", "GET", "/", "HTTP/1.1", "Host: shop.test:80:80\r\n", 400},
		{"IPv6 host with a port too high", "GET", "/", "HTTP/1.1", "Host: [::1]:65536\r\n", 400},
		{"a port alone", "GET", "/", "HTTP/1.1", "Host: :80\r\n", 400},
		{"a colon alone", "GET", "/", "HTTP/1.1", "Host: :\r\n", 400},
		{"brackets alone", "GET", "/", "HTTP/1.1", "Host: []\r\n", 400},
		{"empty brackets and a port", "GET", "/", "HTTP/1.1", "Host: []:80\r\n", 400},
		{"one name too many in Connection", "GET", "/", "HTTP/1.1", host + "Connection: " + strings.Repeat("a,", maxNamed+1) + "\r\n", 400},
		{"one too many in two lines", "GET", "/", "HTTP/1.1", host + "Connection: " + strings.Repeat("a,", maxNamed) + "\r\nConnection: close\r\n", 400},
		{"host behind brackets", "GET", "/", "HTTP/1.1", "Host: [::1]evil\r\n", 400},
		{"bare LF", "GET", "/", "HTTP/1.1", host + "X-A: b\nX-B: c\r\n", 400},
		{"bare CR", "GET", "/", "HTTP/1.1", host + "X-A: b\rX-Evil: 1\r\n", 400},
		{"folded", "GET", "/", "HTTP/1.1", host + "X-A: b\r\n c\r\n", 400},
		{"space before the colon", "GET", "/", "HTTP/1.1", host + "X-A : b\r\n", 400},
		{"space in a name", "GET", "/", "HTTP/1.1", host + "X A: b\r\n", 400},
		{"no name", "GET", "/", "HTTP/1.1", host + ": b\r\n", 400},
		{"no colon", "GET", "/", "HTTP/1.1", host + "XAB\r\n", 400},
		{"NUL", "GET", "/", "HTTP/1.1", host + "X-A: b\x00c\r\n", 400},
		{"two lengths", "POST", "/", "HTTP/1.1", host + "Content-Length: 3\r\nContent-Length: 3\r\n", 400},
		{"length list", "POST", "/", "HTTP/1.1", host + "Content-Length: 3, 3\r\n", 400},
		{"signed length", "POST", "/", "HTTP/1.1", host + "Content-Length: +3\r\n", 400},
		{"huge length", "POST", "/", "HTTP/1.1", host + "Content-Length: 18446744073709551619\r\n", 400},
		{"length and coding", "POST", "/", "HTTP/1.1", host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400},
		{"coding and length", "POST", "/", "HTTP/1.1", host + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400},
		{"two codings", "POST", "/", "HTTP/1.1", host + "Transfer-Encoding: gzip, chunked\r\n", 400},
		{"identity", "POST", "/", "HTTP/1.1", host + "Transfer-Encoding: identity\r\n", 400},
		{"coding in HTTP/1.0", "POST", "/", "HTTP/1.0", host + "Transfer-Encoding: chunked\r\n", 400},
	} {
		var h head
		got := 0
		if r := h.read([]byte(c.method), []byte(c.target), []byte(c.proto), []byte(c.block+"\r\n")); r != nil {
			got = r.status
		}
		if got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
	var h head
	if r := h.read([]byte("GET"), []byte("http://shop.test?a=1"), []byte("HTTP/1.1"), []byte("Host: shop.test\r\n\r\n")); r != nil || string(h.target) != "/?a=1" || string(h.path) != "/" {
		t.Errorf("absolute-form without a path: got %q, %v", h.target, r)
	}
}

// Looking at eight bytes at a time finds what looking at one finds, whatever the byte and wherever it stands.
func TestEightBytesAtATime(t *testing.T) {
	for c := range 256 {
		for at := range 20 {
			for _, fill := range []byte("a-Z7") {
				b := bytes.Repeat([]byte{fill}, 20)
				b[at] = byte(c)
				token, text := len(b), len(b)
				if !tokenBytes[c] {
					token = at
				}
				if !textByte(byte(c)) {
					text = at
				}
				if got := tokenEnd(b, 0); got != token {
					t.Fatalf("%q: a token ends at %d, got %d", b, token, got)
				}
				if got := textEnd(b, 0); got != text {
					t.Fatalf("%q: a text ends at %d, got %d", b, text, got)
				}
				name := token == len(b) || c == ':' && at > 0
				if _, err := parseFields(append(bytes.Clone(b), ": v\r\n\r\n"...), nil); (err == nil) != name {
					t.Fatalf("a line named %q: %v", b, err)
				}
				line := append(append([]byte("X:"), b...), "\r\n\r\n"...)
				if _, err := parseFields(line, nil); (err == nil) != (text == len(b)) {
					t.Fatalf("%q: %v", line, err)
				}
			}
		}
	}
}

func FuzzParseFields(f *testing.F) {
	f.Add([]byte("Host: a\r\nX-A: b\r\n\r\n"))
	f.Add([]byte("A: b\nC: d\r\n"))
	f.Fuzz(func(t *testing.T, block []byte) {
		fields, err := parseFields(block, nil)
		if err != nil {
			return
		}
		var out []byte
		for i := range fields {
			out = appendField(out, &fields[i])
		}
		again, err := parseFields(out, nil)
		if err != nil || len(again) != len(fields) {
			t.Fatalf("%q is read, written as %q, and read as %d lines (%v)", block, out, len(again), err)
		}
		for i := range again {
			if string(again[i].name) != string(fields[i].name) || string(again[i].value) != string(fields[i].value) || again[i].kind != fields[i].kind {
				t.Errorf("line %d: %q became %q", i, fields[i], again[i])
			}
		}
	})
}

func TestKindOf(t *testing.T) {
	for name, want := range map[string]fieldKind{
		"Cookie": fieldCookie, "cOOkie": fieldCookie, "X-Forwarded-For": fieldForwardedFor, "X_Forwarded_For": fieldRewrite, "x-forwarded_for": fieldRewrite,
		"X-Forwarded-Port": fieldForwarded, "x-forwarded-client-cert": fieldForwarded, "X-FORWARDED-A-NAME-THAT-NO-TABLE-HAS-ROOM-FOR": fieldForwarded,
		"X_Forwarded-User": fieldRewrite, "X-Forwarded_Email": fieldRewrite, "X-Forwarded-": fieldOther, "X-Forwarder": fieldOther,
		"X_Real_IP": fieldRewrite, "Content_Length": fieldOther, "X-A": fieldOther, "": fieldOther, "Transfer-Encoding": fieldTransferEncoding, strings.Repeat("x", 99): fieldOther,
	} {
		if got := kindOf([]byte(name)); got != want {
			t.Errorf("%q: got %d, want %d", name, got, want)
		}
		if name == "" {
			continue // no line has it
		}
		if fields, err := parseFields([]byte(name+": v\r\n\r\n"), nil); err != nil || fields[0].kind != want {
			t.Errorf("a line named %q: got %+v, %v, want %d", name, fields, err, want)
		}
	}
}
