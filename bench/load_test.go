//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestScanAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		text         string
		head, whole  int
		closes, done bool
	}{
		"length":             {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", 38, 40, false, true},
		"length, lower case": {"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nOK", 39, 51, false, true},
		"nothing":            {"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", 35, 35, false, true},
		"close":              {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 57, 57, true, true},
		"half a head":        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", 0, 0, false, false},
		"half a line end":    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r", 0, 0, false, false},
		"chunks":             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n", 47, 59, false, true},
		"half of chunks":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n", 0, 0, false, false},
	} {
		head, whole, closes, done := scanAnswer([]byte(c.text))
		if head != c.head || whole != c.whole || closes != c.closes || done != c.done {
			t.Errorf("%s: got %d, %d, %t, %t, want %d, %d, %t, %t", name, head, whole, closes, done, c.head, c.whole, c.closes, c.done)
		}
	}
}

func TestSpreadVisitsEverybodyOnce(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 1000, 65_536, 99_999} {
		seen := make([]bool, n)
		s := newSpread(n)
		for range n {
			if i := s.next(); seen[i] {
				t.Fatalf("%d of %d came twice", i, n)
			} else {
				seen[i] = true
			}
		}
	}
}

// Closed and with a rate, over connections that the server closes now and then.
func TestLoadCountsWhatTheServerAnswered(t *testing.T) {
	served := make(chan struct{}, 1<<16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served <- struct{}{}
		if len(served)%10 == 0 {
			w.Header().Set("Connection", "close")
		}
		io.WriteString(w, "hello")
	}))
	defer server.Close()
	get := []byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
	l := load{targets: []string{strings.TrimPrefix(server.URL, "http://")}, conns: 4, duration: 200 * time.Millisecond, next: func(_ *conn, dst []byte) []byte { return append(dst, get...) }}
	for _, rate := range []float64{0, 500} {
		l.rate = rate
		before := len(served)
		r, err := l.run(t.Context())
		if err = errors.Join(err, r.only(200)); err != nil {
			t.Fatal(err)
		}
		if got := len(served) - before; r.requests != got || r.lost != 0 || r.dropped != 0 {
			t.Errorf("rate %g: got %d answers, %d lost, %d dropped, want %d answers", rate, r.requests, r.lost, r.dropped, got)
		}
		// Never more than were due; how many fewer is up to the machine.
		if rate > 0 && (r.requests < 50 || r.requests > 101) {
			t.Errorf("got %d requests in %v at %g/s, want 100", r.requests, l.duration, rate)
		}
	}
}

func TestChartIsWellFormed(t *testing.T) {
	for _, c := range []chart{
		{title: "a < b", x: "x", y: "y", logX: true, logY: true, curves: []curve{{name: "one & two", points: [][2]float64{{1000, 130}, {1e6, 77_000}}}}},
		timelineChart("t", "kill -9", [][2]float64{{-0.5, 0}, {0, 400}, {2.5, 0}}),
		{title: "one point", fromZero: true, curves: []curve{{points: [][2]float64{{1, 0}}}}},
	} {
		text := c.svg()
		if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
			t.Errorf("%s: a number is none: %s", c.title, text)
		}
		d := xml.NewDecoder(strings.NewReader(text))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v in %s", c.title, err, text)
			}
		}
	}
}
