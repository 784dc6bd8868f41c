package faults

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"
	"time"
)

// TestSoak does harm of all kinds, one after the other, to one cluster that lives through all of it.
func TestSoak(t *testing.T) {
	if *soakTime == 0 {
		t.Skip("-soak 1h runs it, or make soak")
	}
	w := newWorld(t, cell{})
	before, err := w.sizes()
	must(t, err)
	dice := rand.New(rand.NewPCG(*seed, 0))
	wanted, err := regexp.Compile(*only)
	must(t, err)
	long := slices.DeleteFunc(slices.Clone(cells), func(c cell) bool { return c.slow || !wanted.MatchString(c.name) })
	if len(long) == 0 {
		t.Fatalf("no cell of a soak matches -only %q", *only)
	}
	begun := time.Now()
	var all []Result
	for round := uint64(0); time.Since(begun) < *soakTime && !t.Failed(); round++ {
		c := long[dice.IntN(len(long))]
		r := c.run(w, *seed+round)
		r.Failed = t.Failed()
		all = append(all, r)
		must(t, r.save(*reports))
		w.clear(w.crowd.present())
		t.Logf("%8s %-45s %6d operations, gap %.1f s, well again %.1f s, %d violations",
			time.Since(begun).Round(time.Second), c.name, r.Requests, r.Gap, r.Heal, r.Findings.Count())
	}
	w.sameSize(before)
	after, err := w.sizes()
	must(t, err)
	for _, n := range w.nodes {
		t.Logf("%s: %.0f goroutines, %.0f before; %.0f MB, %.0f before", n.ID, after[n.ID].goroutines, before[n.ID].goroutines,
			after[n.ID].memory/1e6, before[n.ID].memory/1e6)
	}
	must(t, summarize(logWriter{t}, all))
	summary(t)
}

// logWriter writes into a test's log.
type logWriter struct{ t *testing.T }

func (l logWriter) Write(p []byte) (int, error) {
	l.t.Logf("\n%s", p)
	return len(p), nil
}
