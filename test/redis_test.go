package test

import (
	"context"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// TestRedisDecidesNothing loses Redis in every way there is, under a crowd. Nobody may be kept
// waiting for it, and when it is back it has to be right without help: the audit looks.
func TestRedisDecidesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(t *testing.T, r *harness.Redis)
		heal func(r *harness.Redis)
	}{
		{"gone", func(_ *testing.T, r *harness.Redis) { r.Kill() }, func(r *harness.Redis) { r.Start() }},
		{"hung", func(_ *testing.T, r *harness.Redis) { r.Pause() }, func(r *harness.Redis) { r.Continue() }},
		{"flushed", func(t *testing.T, r *harness.Redis) { must(t, r.Client.FlushAll(context.Background()).Err()) }, nil},
		{"wrong", func(t *testing.T, r *harness.Redis) {
			ctx := context.Background()
			must(t, r.Client.Del(ctx, "wr:queue").Err())
			must(t, r.Client.Set(ctx, "wr:queue", "no list", 0).Err())
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := harness.NewWorld(t, 5, nil)
			watch := w.Watch()
			crowd := w.NewCrowd(20, 300*time.Millisecond, 4)
			entered(t, w, 10, again)
			c.harm(t, w.Redis)
			entered(t, w, 20, again)
			if c.heal != nil {
				c.heal(w.Redis)
			}
			entered(t, w, 10, again)
			audit(w, watch, crowd)
			slowest(t, w, 2*time.Second)
		})
	}
}

// slowest checks that no answer took longer than limit. The bound is wide because machines are
// shared; a node that waits for Redis shows as many seconds.
func slowest(t *testing.T, w *harness.World, limit time.Duration) {
	t.Helper()
	for _, e := range w.Events() {
		if took := e.Got.Sub(e.Sent); took > limit {
			t.Errorf("an answer took %v: %v", took, e)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
