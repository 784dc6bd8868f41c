package faults

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFaults runs the table: each cell on a cluster of its own.
func TestFaults(t *testing.T) {
	if !*runFaults {
		t.Skip("-faults runs it, or make faults")
	}
	for _, c := range cells {
		if *quick && !c.quick {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			r := Result{Cell: c.name, Kind: c.kind, Seed: *seed, Failed: true}
			defer func() {
				if r.Failed = t.Failed(); t.Skipped() {
					r.Skipped = "this machine does not allow it"
				}
				must(t, r.save(*reports))
			}()
			r = play(t, c, *seed)
			t.Logf("expected: %s", c.expect)
			t.Logf("seed %d: %.0f operations/s before, %d in all, %d tickets, %d let in, %d errors; gap %.1f s, well again %.1f s, Redis right %.1f s, slowest inside %.2f s",
				r.Seed, r.Rate, r.Requests, r.Tickets, r.LetIn, r.Errors, r.Gap, r.Heal, r.Repair, r.Slowest)
		})
	}
	summary(t)
}

// summary writes the figures of all results that are in the directory.
func summary(t *testing.T) {
	t.Helper()
	if *reports == "" {
		return
	}
	all, err := load(*reports)
	must(t, err)
	f, err := os.Create(filepath.Join(*reports, "summary.md"))
	must(t, err)
	defer f.Close()
	must(t, summarize(f, all))
}
