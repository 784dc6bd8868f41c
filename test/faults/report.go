package faults

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Result is what one run of one cell came to.
type Result struct {
	Cell     string   `json:"cell"`
	Kind     string   `json:"kind"`
	Seed     uint64   `json:"seed"`
	Failed   bool     `json:"failed"` // anything at all was not as promised
	Skipped  string   `json:"skipped,omitempty"`
	Rate     float64  `json:"operations_per_second_before"`
	Requests int      `json:"operations"`
	Tickets  int      `json:"tickets"` // made, as visitors were told
	LetIn    int      `json:"let_in"`
	Errors   int      `json:"errors"` // excused ones included
	Heal     float64  `json:"heal_seconds"`
	Repair   float64  `json:"mirror_repair_seconds"`
	Gap      float64  `json:"longest_gap_seconds"`
	Terms    uint64   `json:"new_terms"`
	Slowest  float64  `json:"slowest_inside_seconds"` // of those inside, on an unharmed node, during the harm
	Findings Findings `json:"findings"`

	history History
}

// take fills in what the history says.
func (r *Result) take(h History, f Fault) {
	a := newAudit(h)
	r.history = h
	r.Requests, r.Gap, r.Findings = len(h.Events), Gap(h, f), Check(h)
	for _, s := range a.stays {
		if len(s.waits) > 0 {
			r.Tickets++
		}
		if s.admitted {
			r.LetIn++
		}
	}
	for _, e := range h.Events {
		if e.Outcome == Failed {
			r.Errors++
		}
		if e.Outcome == Inside && f.overlaps(e.Sent, e.Got) && a.durable(e) {
			r.Slowest = max(r.Slowest, e.Got-e.Sent)
		}
	}
}

// save writes the result as a file of its own, so that cells can be run one by one and again. What a run with findings has
// seen goes beside it, one line for each event: the finding names two moments, and why lies between them.
func (r Result) save(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if r.Findings.Count() > 0 {
		var lines []byte
		for _, e := range r.history.Events {
			lines = fmt.Appendln(lines, e)
		}
		for _, r := range r.history.Readings {
			lines = fmt.Appendf(lines, "status of %s %.2f: index %d, sum %s, %d of %d held\n", r.Node, r.At, r.Index, r.Sum, r.Held, r.Max)
		}
		if err := os.WriteFile(r.path(dir, "history"), lines, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(r.path(dir, "json"), append(data, '\n'), 0o644)
}

// path is a file of this run's own in dir.
func (r Result) path(dir, extension string) string {
	name := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, r.Cell)
	return filepath.Join(dir, fmt.Sprintf("%s.%d.%s", name, r.Seed, extension))
}

// load reads what save has written.
func load(dir string) ([]Result, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []Result
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var r Result
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// summarize writes the table of figures as Markdown.
func summarize(out io.Writer, all []Result) error {
	var b strings.Builder
	kinds := map[string]int{}
	found := map[string]int{}
	var order []string
	var gaps, repairs, heals []float64
	runs, failed, requests, tickets, letIn := 0, 0, 0, 0, 0
	slowest := 0.0
	for _, r := range all {
		if r.Skipped != "" {
			continue
		}
		runs++
		if r.Failed {
			failed++
		}
		kinds[r.Kind]++
		requests += r.Requests
		tickets += r.Tickets
		letIn += r.LetIn
		gaps, repairs, heals = append(gaps, r.Gap), append(repairs, r.Repair), append(heals, r.Heal)
		slowest = max(slowest, r.Slowest)
		order = order[:0]
		for _, k := range r.Findings.Kinds() {
			found[k.Name] += len(k.Found)
			order = append(order, k.Name)
		}
	}
	fmt.Fprintf(&b, "| figure | value |\n| --- | --- |\n| runs, and failed ones | %d, %d |\n", runs, failed)
	var by []string
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		by = append(by, fmt.Sprintf("%s %d", k, kinds[k]))
	}
	fmt.Fprintf(&b, "| runs by kind | %s |\n| operations | %d |\n| tickets given, visitors let in | %d, %d |\n", strings.Join(by, ", "), requests, tickets, letIn)
	for _, name := range order {
		fmt.Fprintf(&b, "| %s | %d |\n", name, found[name])
	}
	fmt.Fprintf(&b, "| longest time without a new ticket or slot, p50 and p99 of the runs | %.1f s, %.1f s |\n", quantile(gaps, .5), quantile(gaps, .99))
	fmt.Fprintf(&b, "| well again after the harm was undone, p50 and p99 | %.1f s, %.1f s |\n", quantile(heals, .5), quantile(heals, .99))
	fmt.Fprintf(&b, "| Redis right again after the harm was undone, p50 and p99 | %.1f s, %.1f s |\n", quantile(repairs, .5), quantile(repairs, .99))
	fmt.Fprintf(&b, "| slowest answer to a visitor inside, on an unharmed node during the harm | %.2f s |\n\n", slowest)

	b.WriteString("| harm | operations | gap | well again | Redis right | violations |\n| --- | --- | --- | --- | --- | --- |\n")
	slices.SortFunc(all, func(x, y Result) int {
		return cmp.Or(cmp.Compare(place(x.Cell), place(y.Cell)), cmp.Compare(x.Seed, y.Seed))
	})
	for _, r := range all {
		if r.Skipped != "" {
			fmt.Fprintf(&b, "| %s | skipped: %s | | | | |\n", r.Cell, r.Skipped)
			continue
		}
		fmt.Fprintf(&b, "| %s | %d | %.1f s | %.1f s | %.1f s | %d |\n", r.Cell, r.Requests, r.Gap, r.Heal, r.Repair, r.Findings.Count())
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// place is where a cell stands in the table.
func place(name string) int {
	return slices.IndexFunc(cells, func(c cell) bool { return c.name == name })
}

// quantile is the smallest value that q of all values do not exceed.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
