package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"slices"
	"time"
)

// originPage is the site of the demonstrations. It shows what the origin is told, which is what
// one wants to see behind a waiting room for the first time.
var originPage = template.Must(template.New("origin").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>You are in</title>
<style>
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { max-width: 44rem; margin: 3rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0; overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
</style>
<h1>You are in</h1>
<p>This is the site behind the waiting room. It got <code>{{.Request}}</code>, and of you it knows:</p>
<table>
{{range .Headers}}<tr><th scope="row">{{.Name}}</th><td>{{.Value}}</td></tr>
{{end}}</table>
</html>
`))

// originHandler answers every request with the page that shows that request.
func originHandler() http.Handler {
	type header struct{ Name, Value string }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers := []header{{"Host", r.Host}}
		for name, values := range r.Header {
			for _, v := range values {
				headers = append(headers, header{name, v})
			}
		}
		slices.SortFunc(headers, func(a, b header) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
		})
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		page := struct {
			Request string
			Headers []header
		}{r.Method + " " + r.RequestURI, headers}
		// An error here is a visitor that has gone; there is nobody left to tell.
		_ = originPage.Execute(w, page)
	})
}

// origin serves the page until ctx is canceled.
func origin(ctx context.Context, address string, stdout io.Writer) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	fmt.Fprintf(stdout, "origin on %s\n", listener.Addr())
	return serveOrigin(ctx, listener)
}

// serveOrigin serves the page on listener, which it closes, and returns once ctx is canceled and
// the requests under way have ended.
func serveOrigin(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: originHandler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("origin: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		err = errors.Join(err, server.Close())
	}
	if ended := <-ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
