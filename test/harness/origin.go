package harness

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// visitorHeader is on every request of a Browser: owr's cookie is not for the origin.
const visitorHeader = "X-Test-Visitor"

// A Hit is one request as the origin saw it.
type Hit struct {
	At      time.Time
	Visitor string
	Method  string
	Target  string
	Header  http.Header
}

// An Origin is the site behind the waiting room. It remembers every request. Paths: /slow answers
// when Gate is closed or the client has gone; /big sends 8 MiB; /upload answers the length of the
// body; /echo is a WebSocket that sends back what comes; anything else is a small page.
type Origin struct {
	URL  string
	Gate chan struct{}

	mu   sync.Mutex
	hits []Hit
}

// NewOrigin starts an origin that ends with its test.
func NewOrigin(t testing.TB) *Origin {
	t.Helper()
	return NewOriginOn(t, nil)
}

// NewOriginOn starts an origin on a listener, which ends with it; nil: on one of its own.
func NewOriginOn(t testing.TB, listener net.Listener) *Origin {
	t.Helper()
	o := &Origin{Gate: make(chan struct{})}
	server := httptest.NewUnstartedServer(o)
	if listener != nil {
		if err := server.Listener.Close(); err != nil {
			t.Fatal(err)
		}
		server.Listener = listener
	}
	server.Start()
	o.URL = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return o
}

func (o *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.hits = append(o.hits, Hit{time.Now(), r.Header.Get(visitorHeader), r.Method, r.RequestURI, r.Header.Clone()})
	o.mu.Unlock()

	switch r.URL.Path {
	case "/slow":
		select {
		case <-o.Gate:
		case <-r.Context().Done():
		}
	case "/big":
		line := make([]byte, 1<<16)
		for range 128 {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	case "/upload":
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d %v", n, err)
	case "/echo":
		echo(w, r)
	default:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html><title>the site</title><h1>%s</h1>", r.URL.EscapedPath())
	}
}

// echo makes a WebSocket tunnel of the connection (RFC 6455, section 4.2.2), and sends its bytes back until the other side ends it.
func echo(w http.ResponseWriter, r *http.Request) {
	c, both, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(accept[:]))
	if err == nil {
		_, _ = io.Copy(c, both) // ends with the tunnel, however that ends
	}
}

// Hits are the requests so far, in the order in which they came.
func (o *Origin) Hits() []Hit {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Hit(nil), o.hits...)
}
