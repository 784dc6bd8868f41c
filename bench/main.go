//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	quick   bool
	rounds  int
	window  time.Duration // one measurement of one side
	rows    *regexp.Regexp
	results string
	images  string
	owr     string // a binary to measure; empty: the one of this checkout is built
	keep    bool
	perf    bool   // profile the subjects
	into    string // results to which the rows are added; empty: new ones
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "child" {
		os.Exit(child(os.Args[2], os.Args[3:]))
	}
	var o options
	var rows string
	list := flag.Bool("list", false, "print the rows")
	flag.BoolVar(&o.quick, "quick", false, "only what a busy machine can answer too; exit 1 when a wide bound is missed")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds of each row (5; quick: 3)")
	flag.DurationVar(&o.window, "window", 0, "length of one measurement (4s; quick: 1.5s)")
	flag.StringVar(&rows, "rows", "", "regular expression of the rows to run")
	flag.StringVar(&o.results, "results", filepath.Join("bench", "results"), "directory for the results")
	flag.StringVar(&o.images, "images", filepath.Join("docs", "img"), "directory for the pictures")
	flag.StringVar(&o.owr, "owr", "", "binary to measure; built from this checkout when empty")
	flag.BoolVar(&o.keep, "keep", false, "keep the working directory with every log")
	flag.BoolVar(&o.perf, "perf", false, "write a profile of each side beside the results (needs perf; the figures suffer)")
	flag.StringVar(&o.into, "into", "", "results file in which the rows of this run replace those of an earlier one")
	redraw := flag.String("draw", "", "print the table of this results file, draw its pictures, and end")
	flag.Parse()

	if *list {
		for _, r := range catalog {
			fmt.Printf("%-12s %s\n", r.name, r.title)
		}
		return
	}
	if *redraw != "" {
		exit(drawFile(*redraw, o.images))
	}
	o.setDefaults()
	var err error
	if o.rows, err = regexp.Compile("^(?:" + rows + ")$"); err != nil {
		exit(err)
	}
	if rows == "" {
		o.rows = nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, o)
	if err != nil {
		exit(err)
	}
	if !ok && o.quick {
		os.Exit(1)
	}
}

func (o *options) setDefaults() {
	if o.rounds == 0 {
		o.rounds = 5
		if o.quick {
			o.rounds = 3
		}
	}
	if o.window == 0 {
		o.window = 4 * time.Second
		if o.quick {
			o.window = 1500 * time.Millisecond
		}
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run measures the rows that were asked for. It reports whether no wide bound was missed.
func run(ctx context.Context, o options) (bool, error) {
	l, err := newLab(ctx, o)
	if err != nil {
		return false, err
	}
	defer l.close()
	out, err := newResults(o)
	if err != nil {
		return false, err
	}
	for _, r := range catalog {
		if !r.wanted(o) {
			continue
		}
		at, busy, ours := time.Now(), busySeconds(), ourSeconds()
		fmt.Printf("--- %s: %s\n", r.name, r.title)
		l.row = r.name
		figures, err := r.measure(l)
		l.endAll()
		others := (busySeconds() - busy - ourSeconds() + ours) / time.Since(at).Seconds() / float64(out.Machine.Cores)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if err != nil {
			fmt.Printf("    FAILED: %v\n", err)
			out.replace(rowRun{Name: r.name, Failed: err.Error()}, nil)
			continue
		}
		for _, f := range figures {
			f.Row = r.name
			f.print(os.Stdout)
		}
		out.replace(rowRun{Name: r.name, Seconds: time.Since(at).Seconds(), Others: others}, figures)
		fmt.Printf("    %.0f s; other programs took %.1f %% of the machine\n", time.Since(at).Seconds(), 100*others)
	}
	out.Machine.LoadAfter = loadAverage()
	fmt.Println()
	out.table(os.Stdout)
	path, err := out.write(o)
	if err != nil {
		return false, err
	}
	fmt.Println("\nresults:", path)
	if !o.quick {
		if err := draw(out, o.images); err != nil {
			return false, err
		}
	}
	return out.withinWide(), nil
}
