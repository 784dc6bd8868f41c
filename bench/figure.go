//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// A series is what one side of a row gave, one value for each round.
type series struct {
	Name   string    `json:"name"`
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
}

func newSeries(name string, values []float64) series {
	s := series{Name: name, Values: values}
	if len(values) > 0 {
		s.Median, s.Min, s.Max = median(values), slices.Min(values), slices.Max(values)
	}
	return s
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// A bound is a limit that a figure has to keep: at most, or at least.
type bound struct {
	Op    string  `json:"op"` // "<=" or ">="
	Value float64 `json:"value"`
}

func atMost(v float64) *bound  { return &bound{"<=", v} }
func atLeast(v float64) *bound { return &bound{">=", v} }

func (b *bound) holds(v float64) bool {
	if b.Op == "<=" {
		return v <= b.Value
	}
	return v >= b.Value
}

// A figure is one measured line of the table: a subject, perhaps a baseline, and what is asked of them.
type figure struct {
	Row      string       `json:"row"`
	What     string       `json:"what"`
	Unit     string       `json:"unit"`
	Subject  series       `json:"subject"`
	Baseline *series      `json:"baseline,omitempty"`
	Ratio    float64      `json:"ratio,omitempty"`  // the median of Rounds; only with a baseline
	Rounds   []float64    `json:"rounds,omitempty"` // the ratio within each round
	Target   *bound       `json:"target,omitempty"` // of the ratio with a baseline, else of Value
	Wide     *bound       `json:"wide,omitempty"`   // the same with a margin that no mood of a machine uses up
	Value    float64      `json:"value"`            // what the bounds are about
	Met      *bool        `json:"met,omitempty"`
	Note     string       `json:"note,omitempty"`
	X        float64      `json:"x,omitempty"`      // where it lies on a curve
	Curve    string       `json:"curve,omitempty"`  // which curve
	Points   [][2]float64 `json:"points,omitempty"` // of a picture that is one run
}

// compare makes a figure of a subject and its baseline, whose values are of the same rounds.
func compare(what, unit string, subject, baseline series) *figure {
	f := &figure{What: what, Unit: unit, Subject: subject, Baseline: &baseline}
	for i := range min(len(subject.Values), len(baseline.Values)) {
		f.Rounds = append(f.Rounds, subject.Values[i]/baseline.Values[i])
	}
	// Within a round both sides met the machine in the same mood.
	f.Ratio = median(f.Rounds)
	f.Value = f.Ratio
	return f
}

// alone makes a figure without a baseline; its value is the median.
func alone(what, unit string, subject series) *figure {
	return &figure{What: what, Unit: unit, Subject: subject, Value: subject.Median}
}

// wants sets the target.
func (f *figure) wants(target, wide *bound) *figure {
	f.Target, f.Wide = target, wide
	if target != nil {
		met := target.holds(f.Value)
		f.Met = &met
	}
	return f
}

func (f *figure) noted(format string, args ...any) *figure {
	f.Note = fmt.Sprintf(format, args...)
	return f
}

// on puts the figure on a curve.
func (f *figure) on(curve string, x float64) *figure {
	f.Curve, f.X = curve, x
	return f
}

func (f *figure) verdict() string {
	switch {
	case f.Target == nil:
		return ""
	case *f.Met:
		return "met"
	}
	return "NOT MET"
}

func (f *figure) print(w io.Writer) {
	fmt.Fprintf(w, "    %s: %s %s (%s to %s)", f.What, number(f.Subject.Median), f.Unit, number(f.Subject.Min), number(f.Subject.Max))
	if f.Baseline != nil {
		fmt.Fprintf(w, "; %s %s (%s to %s); ratio %.3f", f.Baseline.Name, number(f.Baseline.Median), number(f.Baseline.Min), number(f.Baseline.Max), f.Ratio)
	}
	if f.Target != nil {
		fmt.Fprintf(w, "; target %s %s: %s", f.Target.Op, number(f.Target.Value), f.verdict())
	}
	if f.Note != "" {
		fmt.Fprintf(w, "\n        %s", f.Note)
	}
	fmt.Fprintln(w)
}

// number writes a value with three or four digits that mean something.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= never:
		return "never"
	case a >= 1000:
		return thousands(int64(math.Round(v)))
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a == 0:
		return "0"
	}
	return fmt.Sprintf("%.2f", v)
}

func thousands(v int64) string {
	text := fmt.Sprint(v)
	var parts []string
	for len(text) > 3 {
		parts = append([]string{text[len(text)-3:]}, parts...)
		text = text[:len(text)-3]
	}
	return strings.Join(append([]string{text}, parts...), ",")
}
