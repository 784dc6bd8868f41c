package test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// TestDocumentedRedisAccountIsEnough paints with the account of docs/redis-keys.md, which may do no
// more than it says.
func TestDocumentedRedisAccountIsEnough(t *testing.T) {
	text, err := os.ReadFile("../docs/redis-keys.md")
	if err != nil {
		t.Fatal(err)
	}
	rule := regexp.MustCompile(`(?s)    (ACL SETUSER owr .*?)\n\n`).FindSubmatch(text)
	if rule == nil {
		t.Fatal("docs/redis-keys.md names no account")
	}
	harness.Binary(t)
	r, origin := harness.NewRedis(t), harness.NewOrigin(t)
	var command []any
	for word := range strings.FieldsSeq(strings.ReplaceAll(string(rule[1]), `\`, " ")) {
		command = append(command, word)
	}
	must(t, r.Client.Do(context.Background(), command...).Err())

	settings := r.Settings()
	settings["WR_REDIS_USER"], settings["WR_REDIS_PASS"], settings["WR_MAX_ACTIVE"] = "owr", "password", "2"
	n := harness.NewNode(t, "n1", origin.URL, settings)
	n.Start()
	n.WaitReady()
	var all []*harness.Browser
	for range 6 {
		b := harness.NewBrowser(t, nil)
		b.Visit(n, "/")
		all = append(all, b)
	}
	shows := func(active, queued, released int) {
		t.Helper()
		harness.WaitFor(t, "the picture", 5*time.Second, func() bool {
			p, err := r.Picture()
			return err == nil && len(p.Active) == active && len(p.Queue) == queued && len(p.Released) == released
		})
	}
	shows(2, 4, 0)
	for _, b := range []*harness.Browser{all[0], all[4]} { // from inside, and from the middle of the line
		if err := b.Leave(n); err != nil {
			t.Fatal(err)
		}
	}
	shows(1, 2, 1)
	must(t, r.Client.FlushAll(context.Background()).Err())
	shows(1, 2, 1)
	if log := n.Log(); strings.Contains(log, "NOPERM") {
		t.Errorf("the account may not do what is asked of it:\n%s", log)
	}
}
