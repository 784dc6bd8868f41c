package faults

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// requestHeader carries the number of a visitor's request through owr to the origin.
const requestHeader = "X-Faults-Request"

// What the origin does with a request.
const (
	originAnswers int32 = iota
	originHangs         // until the client has gone
	originResets        // closes the connection without a word
	originDrips         // a byte a second
	originBreaks        // closes the connection in the middle of the answer
)

// originText is what the site answers.
const originText = "the site\n"

// An origin is the site. It notes when each request reached it.
type origin struct {
	url  string
	mode atomic.Int32

	mu   sync.Mutex
	hits map[int64]float64 // number of the request → when it came
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	o := &origin{hits: map[int64]float64{}}
	server := httptest.NewServer(o)
	o.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := clock()
	if number, err := strconv.ParseInt(r.Header.Get(requestHeader), 10, 64); err == nil {
		o.mu.Lock()
		o.hits[number] = at
		o.mu.Unlock()
	}
	switch o.mode.Load() {
	case originHangs:
		<-r.Context().Done()
	case originResets:
		panic(http.ErrAbortHandler)
	case originDrips:
		w.Header().Set("X-Origin", "1")
		for i := range originText {
			if _, err := io.WriteString(w, originText[i:i+1]); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			rest(r.Context(), time.Second)
		}
	case originBreaks:
		w.Header().Set("X-Origin", "1")
		if at > math.Floor(at)+0.5 { // else it is sent in chunks, and the last one is missing
			w.Header().Set("Content-Length", strconv.Itoa(len(originText)))
		}
		fmt.Fprint(w, originText[:4])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	default:
		w.Header().Set("X-Origin", "1")
		fmt.Fprint(w, originText)
	}
}

// take answers when a request reached the origin, 0 if it did not, and forgets it.
func (o *origin) take(number int64) float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := o.hits[number]
	delete(o.hits, number)
	return at
}
