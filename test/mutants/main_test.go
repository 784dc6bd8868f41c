package main

import (
	"errors"
	"strings"
	"testing"
)

// TestWhatASkippedTestCountsAs: a test that is skipped has caught nothing, and has let nothing pass either.
func TestWhatASkippedTestCountsAs(t *testing.T) {
	bad := errors.New("exit status 1")
	const cut = "--- PASS: TestFaults (1.00s)\n    --- SKIP: TestFaults/a_power_cut (1.00s)\nPASS\nok  \tp\t1.0s\n"
	for _, c := range []struct {
		name, out string
		err       error
		row       string
	}{
		{"caught", "--- FAIL: TestGate (0.00s)\n    --- FAIL: TestGate/a (0.00s)\nFAIL\n", bad, "TestGate"},
		{"caught in a part, another one is skipped", "    --- SKIP: TestFaults/a (0.00s)\n    --- FAIL: TestFaults/b (0.00s)\n", bad, "TestFaults/b"},
		{"panics", "panic: runtime error\n", bad, "T (it panics)"},
		{"survives", "--- PASS: T (0.00s)\nPASS\n", nil, "NOT CAUGHT: T passes"},
		{"is not there", "testing: warning: no tests to run\nPASS\n", nil, "NOT CAUGHT: there is no test T"},
		{"does not compile", "FAIL\tp [build failed]\n", bad, "NOT CAUGHT: it does not compile"},
		{"ends without a word", "signal: killed\n", bad, "NOT CAUGHT: exit status 1: signal: killed"},
		{"skipped", "--- SKIP: T (0.00s)\nPASS\n", nil, "NOT RUN: T is skipped on this machine"},
		{"skipped in the part that counts", cut, nil, "NOT RUN: TestFaults/a_power_cut is skipped on this machine"},
	} {
		m := mutant{name: c.name, test: "T"}
		caught, err := m.judge(c.out, c.err)
		if row := new(tally).add(c.name, caught, err); !strings.HasPrefix(row, c.row) {
			t.Errorf("%s: %q, want %q", c.name, row, c.row)
		}
	}
}

func TestTheTally(t *testing.T) {
	caught := func(t *tally) { t.add("a", "TestA", nil) }
	survived := func(t *tally) { t.add("b", "", errors.New("TestB passes")) }
	skipped := func(t *tally) { t.add("c", "", errSkipped) }
	for _, c := range []struct {
		of   []func(*tally)
		says string
		good bool
	}{
		{nil, "0 of 0 caught", false},
		{[]func(*tally){caught, caught}, "2 of 2 caught", true},
		{[]func(*tally){caught, survived}, "1 of 2 caught", false},
		{[]func(*tally){caught, skipped}, "1 of 1 caught; 1 not run, which shows nothing of them: c", true},
		{[]func(*tally){survived, skipped}, "0 of 1 caught; 1 not run, which shows nothing of them: c", false},
		{[]func(*tally){skipped, skipped}, "0 of 0 caught; 2 not run, which shows nothing of them: c, c", true},
	} {
		var got tally
		for _, add := range c.of {
			add(&got)
		}
		if got.String() != c.says || got.good() != c.good {
			t.Errorf("%q, good %v; want %q, %v", &got, got.good(), c.says, c.good)
		}
	}
}
