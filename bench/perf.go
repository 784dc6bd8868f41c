//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// profile records where the processes spend their time for as long as a window lasts, and then writes the
// functions in the order of their own time to profile-NAME.txt beside the results. It does nothing without
// -perf. The figures of a window that was recorded are not those of one that was not.
func (l *lab) profile(name string, processes []*process) (wait func() error) {
	if !l.o.perf || l.profiled[name] {
		return func() error { return nil }
	}
	l.profiled[name] = true
	data := filepath.Join(l.dir, "perf-"+name)
	var pids []string
	for _, p := range processes {
		pids = append(pids, strconv.Itoa(p.pid()))
		for _, child := range childrenOf(p.pid()) {
			pids = append(pids, strconv.Itoa(child))
		}
	}
	seconds := fmt.Sprint(max(0.5, l.o.window.Seconds()-0.2))
	record := exec.CommandContext(l.ctx, "perf", "record", "-q", "-F", "1999", "-o", data, "-p", strings.Join(pids, ","), "--", "sleep", seconds)
	done := make(chan error, 1)
	go func() {
		out, err := record.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("perf record: %w: %s", err, out)
		}
		done <- err
	}()
	return func() error {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
		case <-time.After(30 * time.Second):
			return fmt.Errorf("perf record does not end")
		}
		var lines []string
		for _, sort := range []string{"dso", "dso,symbol"} {
			report := exec.CommandContext(l.ctx, "perf", "report", "-i", data, "--stdio", "--no-children", "--percent-limit", "0.3", "--sort", sort)
			text, err := report.Output()
			if err != nil {
				return fmt.Errorf("perf report: %w", err)
			}
			for line := range strings.Lines(string(text)) {
				if line = strings.TrimRight(line, " -\n"); line != "" && line[0] != '#' {
					lines = append(lines, line)
				}
			}
			lines = append(lines, "")
		}
		if err := os.MkdirAll(l.o.results, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(l.o.results, "profile-"+name+".txt"), []byte(strings.Join(lines, "\n")), 0o644)
	}
}
