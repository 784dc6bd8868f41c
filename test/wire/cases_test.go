package wire

import (
	"fmt"
	"strings"
)

// An exchange is what one client sends on one connection, what it is told, and what of it reaches the origin.
//
// In send, origin and head {T} is the exchange's tag, {C} the Cookie line of its visitor. want has the statuses in order, and an
// x where the connection ends; what comes after a bar would be right as well. origin has the requests that the origin gets, each as
// its method, target and body.
type exchange struct {
	name   string
	send   string
	want   string
	origin []string
	head   string // header lines that the one request to the origin has behind Host and before the forwarding lines
	queued bool   // the visitor is the one that waits
	cut    bool   // a request may reach the origin, but never whole
	ends   bool   // the client sends nothing after this, and says so
	hangs  bool   // the client sends nothing after this for the time being
	differ bool   // it goes to other proxies too, see TestCompare
}

// base is the rest of a request line and the lines that every proper request has.
const base = " HTTP/1.1\r\nHost: shop.test\r\n{C}"

const smuggled = "GET /smuggled{T} HTTP/1.1\r\nHost: shop.test\r\n\r\n"

// exchanges are all of them, but for those with an origin that answers badly.
func exchanges() []exchange {
	var all []exchange
	for _, group := range [][]exchange{
		lengths(), codings(), chunks(), headerLines(), lineEnds(), requestLines(), targets(), hosts(), connections(), expectations(),
		bodies(), unfinished(), inLine(), ownPaths(),
	} {
		all = append(all, group...)
	}
	return all
}

func refused(name, send string) exchange {
	return exchange{name: name, send: send, want: "400 x", differ: true}
}

func lengths() []exchange {
	var out []exchange
	for _, value := range []string{
		"3, 3", "3,3", "-3", "+3", "", " ", "3 3", "0x3", "3abc", "abc", "3.0", "3;", "1e1", "\"3\"", "18446744073709551619", "4294967296000000000003", "3\x0b",
	} {
		out = append(out, refused(fmt.Sprintf("Content-Length %q", value), "POST /x{T}"+base+"Content-Length: "+value+"\r\n\r\nabc"))
	}
	for _, value := range []string{"3", " 3\t", "003"} {
		out = append(out, exchange{
			name: fmt.Sprintf("Content-Length %q is one", value), send: "POST /x{T}" + base + "Content-Length:" + value + "\r\n\r\nabc", want: "200",
			origin: []string{"POST /x{T} abc"}, head: "Content-Length: " + strings.TrimSpace(value), differ: true,
		})
	}
	return append(out,
		refused("two lengths that agree", "POST /x{T}"+base+"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
		refused("two lengths that differ", "POST /x{T}"+base+"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
		refused("two lengths in two spellings", "POST /x{T}"+base+"Content-Length: 3\r\ncontent-LENGTH: 0\r\n\r\nabc"),
		refused("space behind Content-Length", "POST /x{T}"+base+"Content-Length : 3\r\n\r\nabc"),
		refused("tab behind Content-Length", "POST /x{T}"+base+"Content-Length\t: 3\r\n\r\nabc"),
		refused("NUL behind Content-Length", "POST /x{T}"+base+"Content-Length\x00: 3\r\n\r\nabc"),
		refused("a folded length", "POST /x{T}"+base+"Content-Length:\r\n 3\r\n\r\nabc"),
		exchange{name: "a length of 0", send: "POST /x{T}" + base + "Content-Length: 0\r\n\r\n", want: "200", origin: []string{"POST /x{T}"}, differ: true},
		exchange{name: "POST without a length", send: "POST /x{T}" + base + "\r\n", want: "200", origin: []string{"POST /x{T}"}, differ: true},
		exchange{
			name: "a length with an underscore is none", send: "POST /x{T}" + base + "Content_Length: 43\r\n\r\nGET /next{T}" + base + "\r\n", want: "200 200",
			origin: []string{"POST /x{T}", "GET /next{T}"}, differ: true,
		},
		exchange{
			name: "a request inside a body stays there", send: "GET /x{T}" + base + "Content-Length: " + fmt.Sprint(len("GET /s HTTP/1.1\r\n\r\n")) + "\r\n\r\nGET /s HTTP/1.1\r\n\r\n",
			want: "200", origin: []string{"GET /x{T} GET /s HTTP/1.1\r\n\r\n"}, differ: true,
		},
	)
}

func codings() []exchange {
	var out []exchange
	for _, value := range []string{
		"xchunked", "identity", "gzip, chunked", "chunked, chunked", "chunked, identity", "chunked, gzip", "chunk", "chunked;q=1", "\"chunked\"", "chunked,", ",chunked", "", "gzip", "trailers",
		"chunked\x0b", "\x0bchunked", "chunked\x00", "ch\xfcnked", "chunked chunked",
	} {
		out = append(out, refused(fmt.Sprintf("Transfer-Encoding %q", value), "POST /x{T}"+base+"Transfer-Encoding: "+value+"\r\n\r\n0\r\n\r\n"+smuggled))
	}
	for _, value := range []string{"chunked", "CHUNKED", "Chunked", " chunked\t"} {
		out = append(out, exchange{
			name: fmt.Sprintf("Transfer-Encoding %q is one", value), send: "POST /x{T}" + base + "Transfer-Encoding:" + value + "\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want: "200",
			origin: []string{"POST /x{T} abc"}, head: "Transfer-Encoding: chunked", differ: true,
		})
	}
	return append(out,
		refused("a length, then chunks", "POST /x{T}"+base+"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
		refused("chunks, then a length", "POST /x{T}"+base+"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG"),
		refused("a length of 0 and chunks", "POST /x{T}"+base+"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		refused("chunked twice", "POST /x{T}"+base+"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		refused("chunked, then identity", "POST /x{T}"+base+"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
		refused("space behind Transfer-Encoding", "POST /x{T}"+base+"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
		refused("a folded coding", "POST /x{T}"+base+"Transfer-Encoding:\r\n chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
		refused("a folded line before a coding", "POST /x{T}"+base+"X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n"),
		refused("chunks in HTTP/1.0", "POST /x{T} HTTP/1.0\r\nHost: shop.test\r\n{C}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		refused("bare CR before a coding", "POST /x{T}"+base+"X-A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		refused("bare LF before a coding", "POST /x{T}"+base+"X-A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		exchange{
			name: "chunks in GET", send: "GET /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want: "200",
			origin: []string{"GET /x{T} abc"}, head: "Transfer-Encoding: chunked", differ: true,
		},
	)
}

func chunks() []exchange {
	const head = "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n"
	var out []exchange
	for name, body := range map[string]string{
		"one":                        "3\r\nabc\r\n0\r\n\r\n",
		"with a leading zero":        "003\r\nabc\r\n000\r\n\r\n",
		"two":                        "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
		"with an extension":          "3;x=y\r\nabc\r\n0;z\r\n\r\n",
		"with a quoted extension":    "3;x=\"y z\"\r\nabc\r\n0\r\n\r\n",
		"padded":                     "3  \r\nabc\r\n0\r\n\r\n",
		"with a trailer":             "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
		"with a trailer of two":      "3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-B:\r\n\r\n",
		"with a request for trailer": "3\r\nabc\r\n0\r\nX-A: GET /smuggled HTTP/1.1\r\n\r\n",
	} {
		out = append(out, exchange{
			name: "a chunk " + name, send: head + "\r\n" + body, want: "200", origin: []string{"POST /x{T} abc"}, head: "Transfer-Encoding: chunked", differ: true,
		})
	}
	out = append(out, exchange{
		name: "no chunks at all", send: head + "\r\n0\r\n\r\n", want: "200", origin: []string{"POST /x{T}"}, head: "Transfer-Encoding: chunked", differ: true,
	}, exchange{
		name: "a chunk in capitals", send: head + "\r\nA\r\n0123456789\r\n0\r\n\r\n", want: "200", origin: []string{"POST /x{T} 0123456789"}, differ: true,
	})
	for name, body := range map[string]string{
		"with a sign":                     "-3\r\nabc\r\n0\r\n\r\n",
		"with a plus":                     "+3\r\nabc\r\n0\r\n\r\n",
		"with 0x":                         "0x3\r\nabc\r\n0\r\n\r\n",
		"without a size":                  "\r\nabc\r\n0\r\n\r\n",
		"with an extension alone":         ";a\r\nabc\r\n0\r\n\r\n",
		"with a space before":             " 3\r\nabc\r\n0\r\n\r\n",
		"that is no number":               "g\r\nabc\r\n0\r\n\r\n",
		"of two numbers":                  "3 3\r\nabc\r\n0\r\n\r\n",
		"of 16 digits":                    "0000000000000003\r\nabc\r\n0\r\n\r\n",
		"that wraps":                      "10000000000000003\r\nabc\r\n0\r\n\r\n",
		"of nearly all there is":          "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
		"that ends in LF":                 "3\nabc\r\n0\r\n\r\n",
		"that ends in CR":                 "3\rabc\r\n0\r\n\r\n",
		"with CR and something":           "3\rXabc\r\n0\r\n\r\n",
		"with LF in its extension":        "3;a\nb\r\nabc\r\n0\r\n\r\n",
		"with CR in its extension":        "3;a\rb\r\nabc\r\n0\r\n\r\n",
		"with NUL in its extension":       "3;a\x00b\r\nabc\r\n0\r\n\r\n",
		"with padding and an extension":   "3 ;a\r\nabc\r\n0\r\n\r\n",
		"with an endless extension":       "3;" + strings.Repeat("a", 20_000) + "\r\nabc\r\n0\r\n\r\n",
		"without an end":                  "3\r\nabcXX0\r\n\r\n",
		"whose end is LF":                 "3\r\nabc\n0\r\n\r\n",
		"that is longer than it says":     "3\r\nabcd\r\n0\r\n\r\n",
		"that is shorter than it says":    "5\r\nabc\r\n0\r\n\r\n" + smuggled,
		"whose trailer ends in LF":        "3\r\nabc\r\n0\r\nX-A: b\n\r\n",
		"whose last line is LF":           "3\r\nabc\r\n0\r\n\n",
		"whose trailer has no colon":      "3\r\nabc\r\n0\r\nabc\r\n\r\n",
		"whose trailer is folded":         "3\r\nabc\r\n0\r\nX-A: b\r\n c\r\n\r\n",
		"whose trailer has a NUL":         "3\r\nabc\r\n0\r\nX-A: \x00\r\n\r\n",
		"whose trailer has a space":       "3\r\nabc\r\n0\r\nX-A : b\r\n\r\n",
		"whose trailer is a length":       "3\r\nabc\r\n0\r\nContent-Length: 50\r\n\r\n",
		"whose trailer is a coding":       "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
		"whose trailer is a request line": "3\r\nabc\r\n0\r\n" + smuggled,
	} {
		out = append(out, exchange{name: "a chunk " + name, send: head + "\r\n" + body, want: "400 x|x", cut: true, differ: true})
	}
	return append(out, exchange{
		name: "a trailer line that announces a length", send: head + "Trailer: Content-Length\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 50\r\n\r\n", want: "400 x|x", cut: true, differ: true,
	})
}

func headerLines() []exchange {
	var out []exchange
	for _, c := range "()<>@,;:\\\"/[]?={} \t\x00\x01\x0b\x0c\x1f\x7f" {
		out = append(out, refused(fmt.Sprintf("a name with %q", c), "GET /x{T}"+base+"X"+string(c)+"A: b\r\n\r\n"))
	}
	// A colon ends the name, so this one is a line like any other.
	for i := range out {
		if out[i].name == `a name with ':'` {
			out[i] = exchange{name: out[i].name, send: out[i].send, want: "200", origin: []string{"GET /x{T}"}, head: "X: A: b", differ: true}
		}
	}
	for _, c := range []string{"\x00", "\x01", "\x08", "\x0b", "\x0c", "\r", "\x0e", "\x1b", "\x1f", "\x7f"} {
		out = append(out, refused(fmt.Sprintf("a value with %q", c), "GET /x{T}"+base+"X-A: b"+c+"c\r\n\r\n"))
	}
	for _, value := range []string{"", "b\tc", "\xff\xfe", "\xc3\xa9", "a:b", strings.Repeat("v", 6000)} {
		out = append(out, exchange{
			name: fmt.Sprintf("a value like %.12q", value), send: "GET /x{T}" + base + "X-A: " + value + "\r\n\r\n", want: "200", origin: []string{"GET /x{T}"},
			head: "X-A: " + value, differ: true,
		})
	}
	return append(out,
		refused("a name beyond ASCII", "GET /x{T}"+base+"X\xc3\xa9: b\r\n\r\n"),
		refused("no name", "GET /x{T}"+base+": b\r\n\r\n"),
		refused("no colon", "GET /x{T}"+base+"XAB\r\n\r\n"),
		refused("space before the colon", "GET /x{T}"+base+"X-A : b\r\n\r\n"),
		refused("folded with a space", "GET /x{T}"+base+"X-A: b\r\n c\r\n\r\n"),
		refused("folded with a tab", "GET /x{T}"+base+"X-A: b\r\n\tc\r\n\r\n"),
		refused("folded first line", "GET /x{T} HTTP/1.1\r\n Host: shop.test\r\n{C}\r\n"),
		refused("bare CR and a line", "GET /x{T}"+base+"X-A: b\rX-Evil: 1\r\n\r\n"),
		exchange{name: "2,000 lines", send: "GET /x{T}" + base + manyLines(2000) + "\r\n", want: "431 x", differ: true},
		exchange{name: "a line of 20 kB", send: "GET /x{T}" + base + "X-A: " + strings.Repeat("a", 20_000) + "\r\n\r\n", want: "431 x", differ: true},
		exchange{name: "a name of 5 kB", send: "GET /x{T}" + base + strings.Repeat("x", 5000) + ": b\r\n\r\n", want: "200", origin: []string{"GET /x{T}"}, differ: true},
		exchange{
			name: "forged forwarding lines", want: "200", origin: []string{"GET /x{T}"}, head: "X-A: b",
			send: "GET /x{T}" + base + "X-Forwarded-For: 9.9.9.9\r\nX_Forwarded_For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\nX-Forwarded-Host: evil.test\r\n" +
				"X-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-A: b\r\n\r\n",
		},
		exchange{
			name: "lines keep their order and spelling", want: "200", origin: []string{"GET /x{T}"}, head: "x-b: 1\r\nX-A: 2\r\nX-b: 3\r\nACCEPT: */*",
			send: "GET /x{T}" + base + "x-b: 1\r\nX-A: 2\r\nX-b: 3\r\nACCEPT: */*\r\n\r\n",
		},
		exchange{
			name: "cookies of the site", want: "200", origin: []string{"GET /x{T}"}, head: "Cookie: a={\"b\":1}; q=\"v;w\"; =n\r\nCookie: b=2",
			send: "GET /x{T}" + base + "Cookie: a={\"b\":1}; q=\"v;w\"; =n\r\nCookie: b=2; wr_token=one; wr_token=two\r\n\r\n",
		},
	)
}

func manyLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-%d: a\r\n", i)
	}
	return b.String()
}

func lineEnds() []exchange {
	return []exchange{
		refused("LF throughout", "GET /x{T} HTTP/1.1\nHost: shop.test\n\n"),
		refused("LF behind the request line", "GET /x{T} HTTP/1.1\nHost: shop.test\r\n{C}\r\n"),
		refused("LF behind a header line", "GET /x{T} HTTP/1.1\r\nHost: shop.test\n{C}\r\n"),
		refused("LF for the empty line", "GET /x{T}"+base+"X-A: b\r\n\n"),
		refused("CR for a line end", "GET /x{T}"+base+"X-A: b\r\r\n\r\n"),
		refused("CR and LF with something between", "GET /x{T} HTTP/1.1\r \nHost: shop.test\r\n{C}\r\n"),
		{name: "LF before the request", send: "\nGET /x{T}" + base + "\r\n", want: "400 x|x", differ: true},
		refused("a request behind a bare LF in a value", "GET /x{T}"+base+"X-A: b\n\nGET /smuggled{T} HTTP/1.1\r\nHost: shop.test\r\n\r\n"),
		{name: "an empty line before the request", send: "\r\nGET /x{T}" + base + "\r\n", want: "200", origin: []string{"GET /x{T}"}, differ: true},
		{name: "three empty lines before the request", send: "\r\n\r\n\r\nGET /x{T}" + base + "\r\n", want: "200", origin: []string{"GET /x{T}"}, differ: true},
		{
			name: "an empty line behind a body", send: "POST /x{T}" + base + "Content-Length: 3\r\n\r\nabc\r\nGET /y{T}" + base + "\r\n", want: "200 200",
			origin: []string{"POST /x{T} abc", "GET /y{T}"}, differ: true,
		},
		refused("something behind a body", "POST /x{T}"+base+"Content-Length: 3\r\n\r\nabcdef\r\n\r\n").after("POST /x{T} abc"),
	}
}

// after is an exchange whose first request is a good one.
func (e exchange) after(origin string) exchange {
	e.want, e.origin = "200 "+e.want, []string{origin}
	return e
}

func requestLines() []exchange {
	out := []exchange{
		{name: "an unknown method", send: "FOO /x{T}" + base + "\r\n", want: "200", origin: []string{"FOO /x{T}"}, differ: true},
		{name: "a method in small letters", send: "get /x{T}" + base + "\r\n", want: "200", origin: []string{"get /x{T}"}, differ: true},
		{name: "TRACE", send: "TRACE /x{T}" + base + "\r\n", want: "405 x", differ: true},
		{name: "CONNECT", send: "CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n{C}X-T: {T}\r\n\r\n", want: "405 x|400 x", differ: true},
		{name: "CONNECT with a path", send: "CONNECT /x{T}" + base + "\r\n", want: "405 x|400 x", differ: true},
		{name: "HTTP/1.0", send: "GET /x{T} HTTP/1.0\r\nHost: shop.test\r\n{C}\r\n", want: "200 x", origin: []string{"GET /x{T}"}, differ: true},
		{
			name: "HTTP/1.0 that stays", send: "GET /x{T} HTTP/1.0\r\nHost: shop.test\r\n{C}Connection: keep-alive\r\n\r\n", want: "200", origin: []string{"GET /x{T}"}, differ: true,
		},
		{name: "HTTP/1.0 without a host", send: "GET /x{T} HTTP/1.0\r\n{C}\r\n", want: "200 x", origin: []string{"GET /x{T}"}, differ: true},
		{name: "bytes of a TLS client", send: "\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + strings.Repeat("\x00", 60), want: "400 x|408 x|x", hangs: true},
		{name: "the preface of HTTP/2", send: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", want: "400 x|505 x"},
		{name: "a mail", send: "EHLO shop.test\r\nMAIL FROM:<a@b>\r\n\r\n", want: "400 x"},
	}
	for _, version := range []string{"HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"} {
		out = append(out, exchange{name: version, send: "GET /x{T} " + version + "\r\nHost: shop.test\r\n{C}\r\n", want: "505 x|400 x", differ: true})
	}
	for _, version := range []string{"http/1.1", "HTTP/1.10", "HTTP/11", "HTTP/1", "HTTP/1.1x", "HTTP/ 1.1", "HTTPS/1.1", "HTP/1.1", "HTTP/1.1 ", "HTTP/1.1\t", "HTTP/+1.1", "HTTP/1,1", ""} {
		out = append(out, refused(fmt.Sprintf("version %q", version), "GET /x{T} "+version+"\r\nHost: shop.test\r\n{C}\r\n"))
	}
	return append(out,
		refused("no version", "GET /x{T}\r\n\r\n"),
		refused("no target", "GET HTTP/1.1\r\nHost: shop.test\r\n{C}\r\n"),
		refused("no method", "/x{T} HTTP/1.1\r\nHost: shop.test\r\n{C}\r\n"),
		refused("tabs between", "GET\t/x{T}\tHTTP/1.1\r\nHost: shop.test\r\n{C}\r\n"),
		refused("two spaces behind the method", "GET  /x{T}"+base+"\r\n"),
		refused("two spaces before the version", "GET /x{T} "+base+"\r\n"),
		refused("a space before the method", " GET /x{T}"+base+"\r\n"),
		refused("a method with a bracket", "GE(T /x{T}"+base+"\r\n"),
		refused("a method with a colon", "GET: /x{T}"+base+"\r\n"),
		refused("a method beyond ASCII", "G\xc3\x89T /x{T}"+base+"\r\n"),
		refused("NUL in the line", "GET /x{T}\x00 HTTP/1.1\r\nHost: shop.test\r\n{C}\r\n"),
		refused("CR in the line", "GET /x{T}\rHTTP/1.1\r\nHost: shop.test\r\n{C}\r\n"),
	)
}

func targets() []exchange {
	var out []exchange
	for _, target := range []string{
		"/x{T}?a=1;b=2&a=3", "/x{T}?a=\\b", "/x{T}?a={\"b\":[1]}|c", "/x{T}/%2e%2e/b", "/x{T}/../b", "/x{T}//y", "//x{T}/y", "/x{T}/%zz", "/x{T}%2f%5c", "/x{T}?%00", "/x{T}\xff", "/x{T}\xc3\xa9", "/x{T}?",
		"/" + strings.Repeat("a", 7000) + "{T}", "/x{T};jsessionid=1", "/x{T}/./", "/x{T}?http://evil.test/", "/x{T}@evil.test/", "/:80/x{T}",
	} {
		out = append(out, exchange{name: fmt.Sprintf("target %.24q", target), send: "GET " + target + base + "\r\n", want: "200", origin: []string{"GET " + target}, differ: true})
	}
	for _, target := range []string{
		"x{T}", "?a={T}", "*", "*{T}", "./x{T}", "http://evil.test/x{T}", "http://shop.test@evil.test/x{T}", "http://u:p@shop.test/x{T}", "http://shop.test:81/x{T}", "ftp://shop.test/x{T}", "http:///x{T}",
		"http:/x{T}", "http:x{T}", "//", "/a\\..\\b{T}", "/x{T}\x01", "/x{T}\x7f", "\\x{T}", "javascript:{T}", "shop.test:80", "/x{T}#a", "/x{T}?a#b", "/x{T}%00y",
	} {
		out = append(out, refused(fmt.Sprintf("target %q", target), "GET "+target+base+"X-T: {T}\r\n\r\n"))
	}
	for i := range out {
		if out[i].name == `target "//"` { // an empty authority for browsers, a path for servers
			out[i].want, out[i].origin = "200", []string{"GET //"}
		}
	}
	for target, reaches := range map[string]string{
		"http://shop.test/x{T}?a=1": "/x{T}?a=1", "HTTP://shop.test/x{T}": "/x{T}", "https://shop.test/x{T}": "/x{T}", "http://SHOP.test/x{T}": "/x{T}",
		"http://shop.test?a={T}": "/?a={T}", "http://shop.test": "/",
	} {
		out = append(out, exchange{
			name: "absolute " + target, send: "GET " + target + base + "X-T: {T}\r\n\r\n", want: "200", origin: []string{"GET " + reaches}, head: "X-T: {T}", differ: true,
		})
	}
	return append(out,
		exchange{name: "OPTIONS *", send: "OPTIONS *" + base + "X-T: {T}\r\n\r\n", want: "200", origin: []string{"OPTIONS *"}, head: "X-T: {T}", differ: true},
		exchange{name: "a target of 9,000 bytes", send: "GET /x{T}" + strings.Repeat("a", 9000) + base + "\r\n", want: "414 x", differ: true},
	)
}

func hosts() []exchange {
	line := func(hosts string) string { return "GET /x{T} HTTP/1.1\r\n" + hosts + "{C}\r\n" }
	var out []exchange
	for _, host := range []string{
		"", " ", "shop.test/evil", "u@shop.test", "u:p@shop.test", "shop.test, evil.test", "shop.test evil.test", "shop.test:99999x", "shop.test:80:80", "shop.test:123456", "shop.test\tevil", "[::1", "[::1]evil", "shop.test?a", "shop.test#a",
		"shop.test\\", "http://shop.test", "shop\xc3\xa9.test", "\"shop.test\"", "shop.test;a", "shop.test\x00", "shop.test:-1", ":80", ":", "[]", "shop.test:65536",
	} {
		out = append(out, refused(fmt.Sprintf("Host %q", host), line("Host: "+host+"\r\n")))
	}
	for _, host := range []string{"shop.test", "SHOP.test:8080", "shop.test.", "[::1]", "[::1]:80", "127.0.0.1:1", "shop.test:", "my_shop.test", "xn--shp-8na.test"} {
		out = append(out, exchange{name: fmt.Sprintf("Host %q is one", host), send: line("Host: " + host + "\r\n"), want: "200", origin: []string{"GET /x{T}"}, differ: true})
	}
	return append(out,
		refused("no Host", line("")),
		refused("Host twice", line("Host: shop.test\r\nHost: shop.test\r\n")),
		refused("two hosts", line("Host: shop.test\r\nHost: evil.test\r\n")),
		refused("Host in two spellings", line("Host: shop.test\r\nhOST: evil.test\r\n")),
		refused("space behind Host", line("Host : shop.test\r\n")),
		refused("a folded Host", line("Host:\r\n shop.test\r\n")),
		refused("33 names in Connection", "GET /x{T}"+base+"Connection: "+strings.Repeat("a, ", 33)+"\r\n\r\n"),
		refused("two hosts in HTTP/1.0", "GET /x{T} HTTP/1.0\r\nHost: a\r\nHost: b\r\n{C}\r\n"),
		exchange{name: "host in small letters", send: line("host: shop.test\r\n"), want: "200", origin: []string{"GET /x{T}"}, differ: true},
	)
}

func connections() []exchange {
	return []exchange{
		{name: "close", send: "GET /x{T}" + base + "Connection: close\r\n\r\n" + smuggled, want: "200 x", origin: []string{"GET /x{T}"}, differ: true},
		{name: "Close", send: "GET /x{T}" + base + "Connection: Close\r\n\r\n" + smuggled, want: "200 x", origin: []string{"GET /x{T}"}, differ: true},
		{name: "close in a list", send: "GET /x{T}" + base + "Connection: x-a, close\r\n\r\n" + smuggled, want: "200 x", origin: []string{"GET /x{T}"}, differ: true},
		{name: "close in a second line", send: "GET /x{T}" + base + "Connection: keep-alive\r\nConnection: close\r\n\r\n" + smuggled, want: "200 x", origin: []string{"GET /x{T}"}, differ: true},
		{name: "close in POST", send: "POST /x{T}" + base + "Connection: close\r\nContent-Length: 3\r\n\r\nabc" + smuggled, want: "200 x", origin: []string{"POST /x{T} abc"}, differ: true},
		{
			name: "what ends here", want: "200", origin: []string{"GET /x{T}"}, head: "X-B: 2", differ: true,
			send: "GET /x{T}" + base + "Connection: X-A, keep-alive\r\nX-A: 1\r\nX-B: 2\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\nTE: trailers\r\nProxy-Authorization: x\r\n\r\n",
		},
		{
			name: "what Connection cannot take away", want: "200", origin: []string{"POST /x{T} abc"}, head: "Authorization: Basic eA==\r\nContent-Length: 3", differ: true,
			send: "POST /x{T}" + base + "Connection: Host, Content-Length, Authorization, Cookie, X-Forwarded-For, X-Real-IP\r\nAuthorization: Basic eA==\r\nContent-Length: 3\r\n\r\nabc",
		},
		{
			name: "a coding named by Connection", want: "200", origin: []string{"POST /x{T} abc"}, head: "Transfer-Encoding: chunked", differ: true,
			send: "POST /x{T}" + base + "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		},
		{
			name: "an upgrade that is not passed on", want: "200 200", origin: []string{"GET /x{T}", "GET /y{T}"}, differ: true,
			send: "GET /x{T}" + base + "Connection: Upgrade\r\nUpgrade: foo\r\n\r\nGET /y{T}" + base + "\r\n",
		},
		{
			name: "an upgrade to HTTP/2", want: "200 200", origin: []string{"GET /x{T}", "GET /y{T}"}, differ: true,
			send: "GET /x{T}" + base + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\nGET /y{T}" + base + "\r\n",
		},
		{
			name: "a WebSocket that the origin does not take", want: "200", origin: []string{"GET /x{T}"}, head: "Sec-WebSocket-Version: 13",
			send: "GET /x{T}" + base + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
		},
		{
			name: "a WebSocket by POST", want: "200", origin: []string{"POST /x{T} abc"}, head: "Content-Length: 3",
			send: "POST /x{T}" + base + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
		},
		{name: "two at once", send: "GET /x{T}" + base + "\r\nGET /y{T}" + base + "\r\n", want: "200 200", origin: []string{"GET /x{T}", "GET /y{T}"}, differ: true},
		{
			name: "bodies at once", want: "200 200 200", origin: []string{"POST /x{T} abc", "POST /y{T} de", "GET /z{T}"}, differ: true,
			send: "POST /x{T}" + base + "Content-Length: 3\r\n\r\nabcPOST /y{T}" + base + "Transfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\nGET /z{T}" + base + "\r\n",
		},
		{name: "a bad one behind a good one", send: "GET /x{T}" + base + "\r\nGET /y{T}" + base + "X A: b\r\n\r\n", want: "200 400 x", origin: []string{"GET /x{T}"}, differ: true},
		{
			name: "LF in the line of a second", send: "POST /x{T}" + base + "Content-Length: 3\r\n\r\nabcGET /y{T} HTTP/1.1\nHost: shop.test\r\n{C}\r\n", want: "200 400 x",
			origin: []string{"POST /x{T} abc"}, differ: true,
		},
		{
			name: "LF before a third", send: "GET /x{T}" + base + "\r\nGET /y{T}" + base + "\r\n\nGET /z{T}" + base + "\r\n", want: "200 200 400 x|200 200 x",
			origin: []string{"GET /x{T}", "GET /y{T}"}, differ: true,
		},
	}
}

func expectations() []exchange {
	return []exchange{
		{
			name: "100-continue, and the body at once", send: "POST /x{T}" + base + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", want: "100 200|200",
			origin: []string{"POST /x{T} abc"}, head: "Content-Length: 3", differ: true,
		},
		{
			name: "100-Continue in capitals", send: "POST /x{T}" + base + "Expect: 100-CONTINUE\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want: "100 200|200",
			origin: []string{"POST /x{T} abc"}, differ: true,
		},
		{name: "100-continue without a body", send: "GET /x{T}" + base + "Expect: 100-continue\r\n\r\n", want: "100 200|200", origin: []string{"GET /x{T}"}, differ: true},
		{name: "another expectation", send: "POST /x{T}" + base + "Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", want: "200", origin: []string{"POST /x{T} abc"}, differ: true},
		{
			name: "100-continue in HTTP/1.0", send: "POST /x{T} HTTP/1.0\r\nHost: shop.test\r\n{C}Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", want: "200 x",
			origin: []string{"POST /x{T} abc"}, differ: true,
		},
		{name: "100-continue of a bad request", send: "POST /x{T}" + base + "Expect: 100-continue\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", want: "400 x"},
	}
}

func bodies() []exchange {
	return []exchange{
		{name: "HEAD", send: "HEAD /x{T}" + base + "\r\n", want: "200", origin: []string{"HEAD /x{T}"}, differ: true},
		{name: "HEAD with a body", send: "HEAD /x{T}" + base + "Content-Length: 3\r\n\r\nabc", want: "200", origin: []string{"HEAD /x{T} abc"}, differ: true},
		{name: "OPTIONS", send: "OPTIONS /x{T}" + base + "\r\n", want: "200", origin: []string{"OPTIONS /x{T}"}, differ: true},
		{name: "DELETE with a body", send: "DELETE /x{T}" + base + "Content-Length: 3\r\n\r\nabc", want: "200", origin: []string{"DELETE /x{T} abc"}, differ: true},
		{name: "a body with line ends", send: "PUT /x{T}" + base + "Content-Length: 8\r\n\r\n\n\r\n\r\n\r\n\r", want: "200", origin: []string{"PUT /x{T} \n\r\n\r\n\r\n\r"}, differ: true},
		{
			name: "a body of 100 kB", send: "POST /x{T}" + base + "Content-Length: 100000\r\n\r\n" + strings.Repeat("b", 100_000), want: "200",
			origin: []string{"POST /x{T} " + strings.Repeat("b", 100_000)},
		},
		{
			name: "a form", send: "POST /x{T}" + base + "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9\r\n\r\n--c\r\n\r\n--", want: "200",
			origin: []string{"POST /x{T} --c\r\n\r\n--"}, head: "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9",
		},
	}
}

func unfinished() []exchange {
	return []exchange{
		{name: "a body that ends early", send: "POST /x{T}" + base + "Content-Length: 10\r\n\r\nabc", want: "400 x|x", cut: true, ends: true},
		{name: "chunks that end early", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", want: "400 x|x", cut: true, ends: true},
		{name: "a chunk that ends early", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\na\r\nabc", want: "400 x|x", cut: true, ends: true},
		{name: "a last chunk that ends early", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", want: "400 x|x", cut: true, ends: true},
		{name: "a trailer that ends early", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-A: b\r\n", want: "400 x|x", cut: true, ends: true},
		{name: "a head that ends early", send: "GET /x{T}" + base, want: "400 x|x", ends: true},
		{name: "a line that ends early", send: "GET /x{T}", want: "400 x|x", ends: true},
		{name: "a head that hangs", send: "GET /x{T}" + base, want: "408 x|x", hangs: true},
		{name: "a body that hangs", send: "POST /x{T}" + base + "Content-Length: 10\r\n\r\nabc", want: "408 x|400 x|x", cut: true, hangs: true},
		{name: "a chunk that hangs", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\n3\r\nab", want: "408 x|400 x|x", cut: true, hangs: true},
		{name: "whole, and then the end", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want: "200 x", origin: []string{"POST /x{T} abc"}, ends: true},
		{name: "a GET, and then the end", send: "GET /x{T}" + base + "\r\n", want: "200 x", origin: []string{"GET /x{T}"}, ends: true},
	}
}

// inLine are the requests of a visitor that waits: owr answers them itself, and their bodies are nobody's.
func inLine() []exchange {
	large := strings.Repeat("a", 9000)
	out := []exchange{
		{name: "GET", send: "GET /x{T}" + base + "\r\n", want: "302"},
		{name: "HEAD", send: "HEAD /x{T}" + base + "\r\n", want: "302"},
		{name: "OPTIONS", send: "OPTIONS /x{T}" + base + "\r\n", want: "429"},
		{name: "GET of a script", send: "GET /x{T}" + base + "Accept: application/json\r\n\r\n", want: "429"},
		{name: "two at once", send: "GET /x{T}" + base + "\r\nGET /y{T}" + base + "\r\n", want: "302 302"},
		{name: "POST with a length", send: "POST /x{T}" + base + "Content-Length: 3\r\n\r\nabc", want: "429"},
		{name: "POST in chunks", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want: "429"},
		{name: "POST of two, with lengths", send: "POST /x{T}" + base + "Content-Length: 3\r\n\r\nabcPOST /y{T}" + base + "Content-Length: 2\r\n\r\nde", want: "429 429"},
		{name: "a request as a body", send: "POST /x{T}" + base + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(smuggled)-3+8) + strings.Replace(smuggled, "{T}", "12345678", 1), want: "429"},
		{name: "9 kB, then a request", send: "POST /x{T}" + base + "Content-Length: 9000\r\n\r\n" + large + "GET /y{T}" + base + "\r\n", want: "429 302|429 x"},
		{name: "chunks, then a request", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\n2328\r\n" + large + "\r\n0\r\n\r\nGET /y{T}" + base + "\r\n", want: "429 302|429 x"},
		{name: "600 kB", send: "POST /x{T}" + base + "Content-Length: 600000\r\n\r\n" + strings.Repeat("b", 600_000), want: "429|429 x"},
		{name: "600 kB in a chunk", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\n927c0\r\n" + strings.Repeat("b", 600_000) + "\r\n0\r\n\r\n", want: "429|429 x"},
		{name: "4 GB that never come", send: "POST /x{T}" + base + "Content-Length: 4294967296\r\n\r\nabc", want: "429 x", hangs: true},
		{name: "a body that never comes", send: "POST /x{T}" + base + "Content-Length: 10\r\n\r\nabc", want: "429 x", hangs: true},
		{name: "100-continue", send: "POST /x{T}" + base + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", want: "429 x", hangs: true},
		{name: "100-continue, and the body at once", send: "POST /x{T}" + base + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", want: "429 x"},
		{name: "100-continue in chunks", send: "POST /x{T}" + base + "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want: "429 x"},
		{name: "a malformed chunk", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n" + smuggled, want: "429 x|400 x"},
		{name: "a chunk without its end", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n" + smuggled, want: "429 x|400 x"},
		{name: "a trailer ended by LF", send: "POST /x{T}" + base + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-A: b\n\r\n" + smuggled, want: "429 x|400 x"},
		{name: "a length and chunks", send: "POST /x{T}" + base + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", want: "400 x"},
		{name: "two lengths", send: "POST /x{T}" + base + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", want: "400 x"},
		{name: "LF in the line of a second", send: "POST /x{T}" + base + "Content-Length: 3\r\n\r\nabcGET /y{T} HTTP/1.1\nHost: shop.test\r\n\r\n", want: "429 400 x"},
		{name: "a WebSocket", send: "GET /x{T}" + base + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", want: "302|429"},
		{name: "close", send: "POST /x{T}" + base + "Connection: close\r\nContent-Length: 3\r\n\r\nabc" + smuggled, want: "429 x"},
		{name: "HTTP/1.0", send: "POST /x{T} HTTP/1.0\r\nHost: shop.test\r\n{C}Content-Length: 3\r\n\r\nabc" + smuggled, want: "429 x"},
		{name: "GET with a body", send: "GET /x{T}" + base + "Content-Length: 3\r\n\r\nabc", want: "302"},
		{name: "a poll", send: "GET /wr_check?t={T}" + base + "\r\n", want: "200"},
		{name: "a poll with a body", send: "GET /wr_check?t={T}" + base + "Content-Length: 3\r\n\r\nabc", want: "200"},
		{name: "the page", send: "GET /queue.html?r=%2Fx{T}" + base + "\r\n", want: "200"},
		{name: "nearly an own path", send: "GET /wr_check/{T}" + base + "\r\n", want: "302"},
	}
	for i := range out {
		out[i].name, out[i].queued = "in line: "+out[i].name, true
	}
	return out
}

// ownPaths are requests for owr's own endpoints, and for what only looks like them.
func ownPaths() []exchange {
	out := []exchange{
		{name: "health", send: "GET /wr_healthcheck" + base + "\r\n", want: "200"},
		{name: "health by HEAD", send: "HEAD /wr_healthcheck" + base + "\r\n", want: "200"},
		{name: "health with a query", send: "GET /wr_healthcheck?{T}" + base + "\r\n", want: "200"},
		{name: "health by absolute-form", send: "GET http://shop.test/wr_healthcheck" + base + "\r\n", want: "200"},
		{name: "health by POST", send: "POST /wr_healthcheck" + base + "Content-Length: 3\r\n\r\nabc", want: "405"},
		{name: "health by POST in chunks", send: "POST /wr_healthcheck" + base + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want: "405"},
		{name: "health by POST, then a request", send: "POST /wr_healthcheck" + base + "Content-Length: 3\r\n\r\nabcGET /y{T}" + base + "\r\n", want: "405 200", origin: []string{"GET /y{T}"}},
		{name: "health with a body", send: "GET /wr_healthcheck" + base + "Content-Length: 3\r\n\r\nabc", want: "200"},
		{name: "health with 100-continue", send: "GET /wr_healthcheck" + base + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", want: "100 200|200"},
		{name: "health with two lengths", send: "GET /wr_healthcheck" + base + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", want: "400 x"},
		{name: "health without a host", send: "GET /wr_healthcheck HTTP/1.1\r\n\r\n", want: "400 x"},
		{name: "health in HTTP/1.0", send: "GET /wr_healthcheck HTTP/1.0\r\n\r\n", want: "200 x"},
		{name: "health with LF", send: "GET /wr_healthcheck HTTP/1.1\nHost: shop.test\r\n\r\n", want: "400 x"},
		{name: "ready", send: "GET /wr_ready" + base + "\r\n", want: "200"},
		{name: "the page", send: "GET /queue.html" + base + "\r\n", want: "200"},
		{name: "the page by DELETE", send: "DELETE /queue.html" + base + "\r\n", want: "405"},
		{name: "a poll by somebody inside", send: "GET /wr_check" + base + "\r\n", want: "302"},
		{name: "four at once", send: strings.Repeat("GET /wr_healthcheck"+base+"\r\n", 4), want: "200 200 200 200"},
	}
	for _, target := range []string{
		"/wr_healthcheck/{T}", "/WR_HEALTHCHECK?{T}", "//wr_healthcheck?{T}", "/%77r_healthcheck?{T}", "/./wr_healthcheck?{T}", "/x{T}/../wr_healthcheck", "/wr_healthcheck;{T}", "/wr_healthcheck%20?{T}", "/queue.html/{T}",
		"/queue.htm?{T}", "/wr_ready.{T}", "/x?/wr_healthcheck{T}",
	} {
		out = append(out, exchange{name: "the site's " + target, send: "GET " + target + base + "\r\n", want: "200", origin: []string{"GET " + target}})
	}
	for i := range out {
		out[i].name = "own: " + out[i].name
	}
	return out
}
