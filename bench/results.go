//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// results is everything that a run measured.
type results struct {
	Machine machine   `json:"machine"`
	Command string    `json:"command"`
	Rounds  int       `json:"rounds"`
	Window  float64   `json:"window_seconds"`
	Quick   bool      `json:"quick"`
	Rows    []rowRun  `json:"rows"`
	Figures []*figure `json:"figures"`
}

// A rowRun is how a row went.
type rowRun struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	Others  float64 `json:"others"` // the share of the machine that programs other than ours took; near 0 on a quiet one
	Failed  string  `json:"failed,omitempty"`
}

func newResults(o options) (*results, error) {
	if o.into != "" {
		return readResults(o.into)
	}
	return &results{
		Machine: describeMachine(), Command: strings.Join(append([]string{"bench"}, os.Args[1:]...), " "),
		Rounds: o.rounds, Window: o.window.Seconds(), Quick: o.quick,
	}, nil
}

// replace puts the figures of a row where the catalog has it, and takes out those of an earlier run.
func (r *results) replace(row rowRun, figures []*figure) {
	r.Rows = slices.DeleteFunc(r.Rows, func(old rowRun) bool { return old.Name == row.Name })
	r.Figures = slices.DeleteFunc(r.Figures, func(old *figure) bool { return old.Row == row.Name })
	r.Rows, r.Figures = append(r.Rows, row), append(r.Figures, figures...)
	place := func(name string) int {
		return slices.IndexFunc(catalog, func(row benchRow) bool { return row.name == name })
	}
	slices.SortStableFunc(r.Rows, func(a, b rowRun) int { return place(a.Name) - place(b.Name) })
	slices.SortStableFunc(r.Figures, func(a, b *figure) int { return place(a.Row) - place(b.Row) })
}

// withinWide reports whether every row ran to its end and no figure missed its wide bound.
func (r *results) withinWide() bool {
	for _, row := range r.Rows {
		if row.Failed != "" {
			return false
		}
	}
	for _, f := range r.Figures {
		if f.Wide != nil && !f.Wide.holds(f.Value) {
			return false
		}
	}
	return true
}

// table writes all figures as a table, in Markdown, so that a terminal and a document can show it.
func (r *results) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(t, "| row\t| what\t| median (min to max)\t| baseline\t| ratio\t| target\t| \t|")
	fmt.Fprintln(t, "| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t|")
	for _, f := range r.Figures {
		base, ratio, target := "", "", ""
		middle := f.Value // a percentile of the rounds, as often as their median
		if f.Baseline != nil {
			middle = f.Subject.Median
			base = fmt.Sprintf("%s (%s to %s) %s", number(f.Baseline.Median), number(f.Baseline.Min), number(f.Baseline.Max), f.Baseline.Name)
			ratio = fmt.Sprintf("%.3f", f.Ratio)
		}
		if f.Target != nil {
			target = f.Target.Op + " " + number(f.Target.Value)
		}
		verdict := f.verdict()
		if f.Wide != nil && !f.Wide.holds(f.Value) {
			verdict += fmt.Sprintf(" (even %s %s)", f.Wide.Op, number(f.Wide.Value))
		}
		fmt.Fprintf(t, "| %s\t| %s\t| %s (%s to %s) %s\t| %s\t| %s\t| %s\t| %s\t|\n", f.Row, f.What,
			number(middle), number(f.Subject.Min), number(f.Subject.Max), f.Unit, base, ratio, target, verdict)
	}
	_ = t.Flush() // to the terminal
	for _, row := range r.Rows {
		if row.Failed != "" {
			fmt.Fprintf(w, "%s did not run to its end: %s\n", row.Name, row.Failed)
		}
	}
}

// write keeps the results as JSON and returns the file's path.
func (r *results) write(o options) (string, error) {
	if err := os.MkdirAll(o.results, 0o755); err != nil {
		return "", err
	}
	path := o.into
	if path == "" {
		kind := "full"
		if r.Quick {
			kind = "quick"
		}
		path = filepath.Join(o.results, kind+"-"+time.Now().UTC().Format("20060102-150405")+".json")
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, append(text, '\n'), 0o644)
}

func readResults(path string) (*results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(results)
	return r, json.Unmarshal(text, r)
}
