package main

import (
	"context"
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
func healthcheck(ctx context.Context, address string) error {
	_, err := ask(ctx, "http://"+address+"/wr_healthcheck", "")
	return err
}

// ask answers the body of a GET that must be 200. It follows no redirect, and the token, where there is one, goes nowhere else.
func ask(ctx context.Context, url string, token secret) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+string(token))
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
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
