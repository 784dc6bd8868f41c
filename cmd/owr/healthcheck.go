package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"
)

// answerTimeout is how long the commands that ask a running node wait for its answer.
const answerTimeout = 5 * time.Second

// maxAnswer is more than any answer of a node needs, in bytes.
const maxAnswer = 1 << 20

// healthcheck asks a node whether it lives. Images without a shell have no curl, so the binary
// asks itself.
//
// With TLS it asks nothing of the certificate: that is for the site's name, and this is about the process that listens here, from
// which it wants no secret and to which it tells none.
func healthcheck(ctx context.Context, address string, secure bool) error {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	_, err := ask(ctx, newClient(&tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}), scheme+"://"+address+"/wr_healthcheck", "")
	return err
}

// ask answers the body of a GET that must be 200. The token, where there is one, goes nowhere else: newClient's follow no redirect.
func ask(ctx context.Context, client *http.Client, url string, token secret) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+string(token))
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, explain(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, res.Status)
	}
	return body, nil
}
