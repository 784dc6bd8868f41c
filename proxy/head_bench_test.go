package proxy

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/valyala/fasthttp"
)

// chromeHead is what a browser sends for a page of a site that has set three cookies of its own, ours among them.
const chromeHead = "GET /events/summer-tour/tickets?date=2025-07-12&section=B HTTP/1.1\r\n" +
	"Host: tickets.example.com\r\n" +
	"Connection: keep-alive\r\n" +
	"Cache-Control: max-age=0\r\n" +
	"sec-ch-ua: \"Chromium\";v=\"131\", \"Not_A Brand\";v=\"24\"\r\n" +
	"sec-ch-ua-mobile: ?0\r\n" +
	"sec-ch-ua-platform: \"Windows\"\r\n" +
	"Upgrade-Insecure-Requests: 1\r\n" +
	"User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n" +
	"Sec-Fetch-Site: same-origin\r\n" +
	"Sec-Fetch-Mode: navigate\r\n" +
	"Sec-Fetch-User: ?1\r\n" +
	"Sec-Fetch-Dest: document\r\n" +
	"Referer: https://tickets.example.com/events/summer-tour\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\n" +
	"Cookie: theme=dark; session=4f1c2d7e9b; wr_token=0e1f2a3b-4c5d-4e6f-8a9b-0c1d2e3f4a5b.AQAAAAAAAABkq0h3bXJ0c2Zrd2VqcmtsZHNmcw\r\n" +
	"\r\n"

// The library's own reading of the same bytes, which checks less, says what a figure in nanoseconds is worth on a machine.
func BenchmarkHead(b *testing.B) {
	in := []byte(chromeHead)
	b.Run("owr", func(b *testing.B) {
		var h head
		b.ReportAllocs()
		b.SetBytes(int64(len(in)))
		for b.Loop() {
			if !laneParse(in, &h) {
				b.Fatal("not for the lane")
			}
		}
	})
	b.Run("lines", func(b *testing.B) { // the header lines alone: split, checked, and known by their names
		_, block, _ := bytes.Cut(in, []byte("\r\n"))
		var fields []field
		b.ReportAllocs()
		b.SetBytes(int64(len(block)))
		for b.Loop() {
			var err error
			if fields, err = parseFields(block, fields[:0]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("fasthttp", func(b *testing.B) {
		var h fasthttp.RequestHeader
		h.DisableNormalizing() // as in the server
		from := bytes.NewReader(in)
		r := bufio.NewReaderSize(from, 4<<10)
		b.ReportAllocs()
		b.SetBytes(int64(len(in)))
		for b.Loop() {
			from.Reset(in)
			r.Reset(from)
			if err := h.Read(r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
