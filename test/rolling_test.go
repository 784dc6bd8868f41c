package test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// TestRollingRestart restarts all nodes, one after the other, the leader too, behind a load balancer that looks at /wr_ready, while
// visitors inside and in line keep asking. Not one request fails.
func TestRollingRestart(t *testing.T) {
	w := harness.NewWorld(t, 30, harness.Settings{"WR_DRAIN_DELAY": "1.5", "WR_TRUSTED_PROXIES": harness.Host})
	watch := w.Watch()
	balancer := harness.NewBalancer(t, w.Nodes)

	var requests, failures atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			jar, _ := cookiejar.New(nil) // never fails without options
			client := &http.Client{Jar: jar, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			for path := "/"; ; {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
				requests.Add(1)
				status, location, err := get(client, balancer.URL+path)
				switch {
				case err != nil || status != 200 && status != 302:
					failures.Add(1)
					t.Errorf("%s: %d %v", path, status, err)
				case status == 302 && strings.HasPrefix(location, "/queue.html"):
					path = "/wr_check"
				case status == 302:
					path = "/"
				}
			}
		})
	}
	harness.WaitFor(t, "visitors ask", 10*time.Second, func() bool { return requests.Load() > 500 })
	order := append(w.Followers(), w.Leader())
	for _, n := range order {
		begun := time.Now()
		if code := n.Terminate(30 * time.Second); code != 0 {
			t.Errorf("%s ended with %d", n.ID, code)
		}
		t.Logf("%s stopped in %v, %d requests so far", n.ID, time.Since(begun).Round(10*time.Millisecond), requests.Load())
		n.Start()
		n.WaitReady()
		balancer.WaitUp(n)
	}
	close(stop)
	wg.Wait()
	if failures.Load() > 0 || requests.Load() < 2000 {
		t.Errorf("%d of %d requests failed", failures.Load(), requests.Load())
	}
	watch.Stop()
	watch.Check(w)
}

func get(client *http.Client, url string) (status int, location string, err error) {
	r, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return r.StatusCode, "", fmt.Errorf("body: %w", err)
	}
	return r.StatusCode, r.Header.Get("Location"), nil
}
