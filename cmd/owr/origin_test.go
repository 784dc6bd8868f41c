package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOriginShowsTheRequest(t *testing.T) {
	request := httptest.NewRequest("GET", "/shop?a=<b>", nil)
	request.Header.Set("X-Real-IP", "203.0.113.9")
	request.Header.Set("X-Evil", "<script>")
	answer := httptest.NewRecorder()
	originHandler().ServeHTTP(answer, request)
	body := answer.Body.String()
	for _, want := range []string{"GET /shop?a=&lt;b&gt;", "X-Real-Ip", "203.0.113.9", "example.com", "&lt;script&gt;"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
}

func TestOriginEndsWithItsContext(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serveOrigin(ctx, listener) }()
	res, err := http.Get("http://" + listener.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("serveOrigin: %v", err)
	}
}

func TestOriginNamesATakenAddress(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if code, _, stderr := command(t, nil, "origin", "--listen", listener.Addr().String()); code != 1 || !strings.Contains(stderr, listener.Addr().String()) {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
