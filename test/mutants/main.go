// Mutants shows that the tests have teeth: it puts one fault after the other into owr, each a few changed lines, runs
// the tests that should catch it, and fails when one is not caught or does not compile. One whose test is skipped on this machine
// was not run: it is named, and counts as neither. The checkout is not touched: the changed files lie beside it and the compiler is
// told by -overlay.
//
//	go run ./test/mutants             all of them
//	go run ./test/mutants -only touch those whose name contains "touch"
//	go run ./test/mutants -quick      those whose test takes less than a second or two
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"time"

	"github.com/openwaitingroom/owr/test/overlay"
)

// A mutant is a fault that somebody could make, and the test that has to notice it.
type mutant struct {
	name  string
	edits []overlay.Edit
	pkg   string // of the test
	test  string // of -run
	flags string // of the test, beyond that
	slow  bool   // left out with -quick
}

// limit is how long one test may take, and a slow one four times that; a mutant that makes it hang is caught.
const limit = 90 * time.Second

func main() {
	only := flag.String("only", "", "run the mutants whose name contains this")
	quick := flag.Bool("quick", false, "leave out those whose test takes long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var all tally
	fmt.Println("| mutant | caught by | in | took |\n| --- | --- | --- | --- |")
	for _, m := range mutants {
		if !strings.Contains(m.name, *only) || *quick && m.slow {
			continue
		}
		begun := time.Now()
		caught, err := m.run(ctx)
		fmt.Printf("| %s | %s | %s | %.1f s |\n", m.name, all.add(m.name, caught, err), m.pkg, time.Since(begun).Seconds())
	}
	fmt.Printf("\n%v\n", &all)
	if !all.good() {
		os.Exit(1)
	}
}

// errSkipped is of a mutant whose test passes because it, or a part of it, is skipped: it shows nothing.
var errSkipped = errors.New("skipped on this machine")

// A tally counts mutants by what became of them.
type tally struct {
	caught, survived int
	skipped          []string // by name
}

// add counts one mutant, and answers what its row of the table says.
func (t *tally) add(name, caught string, err error) string {
	switch {
	case err == nil:
		t.caught++
		return caught
	case errors.Is(err, errSkipped):
		t.skipped = append(t.skipped, name)
		return "NOT RUN: " + err.Error()
	}
	t.survived++
	return "NOT CAUGHT: " + err.Error()
}

// good reports whether there were mutants, and every one that was run is caught.
func (t *tally) good() bool { return t.survived == 0 && t.caught+len(t.skipped) > 0 }

func (t *tally) String() string {
	s := fmt.Sprintf("%d of %d caught", t.caught, t.caught+t.survived)
	if len(t.skipped) > 0 {
		s += fmt.Sprintf("; %d not run, which shows nothing of them: %s", len(t.skipped), strings.Join(t.skipped, ", "))
	}
	return s
}

// run answers the test that caught the mutant.
func (m mutant) run(ctx context.Context) (string, error) {
	root, err := overlay.Root()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "owr-mutant-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	path, err := overlay.Write(root, dir, m.edits)
	if err != nil {
		return "", err
	}
	limit := limit
	if m.slow {
		limit *= 4
	}
	ctx, cancel := context.WithTimeout(ctx, limit+time.Minute) // the minute is for the compiler
	defer cancel()
	args := []string{"test", "-v", "-overlay", path, "-count", "1", "-failfast", "-timeout", limit.String(), "-run", m.test, m.pkg}
	if m.pkg == "./queue" {
		args = append(args, "-rapid.nofailfile", "-rapid.shrinktime", "1s") // nobody reads the smallest counterexample
	}
	args = append(args, strings.Fields(m.flags)...)
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = root
	command.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+path) // the owr that a test builds is to have the fault, too
	out, err := command.CombinedOutput()
	return m.judge(string(out), err)
}

var (
	failed  = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	skipped = regexp.MustCompile(`(?m)^\s*--- SKIP: (\S+)`)
)

// judge makes of what go test -v has said, and of how it has ended, the test that caught the mutant.
func (m mutant) judge(out string, err error) (string, error) {
	if err == nil {
		if name := skipped.FindStringSubmatch(out); name != nil {
			return "", fmt.Errorf("%s is %w", name[1], errSkipped)
		}
		if strings.Contains(out, "no tests to run") {
			return "", fmt.Errorf("there is no test %s", m.test)
		}
		return "", fmt.Errorf("%s passes", m.test)
	}
	if strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]") {
		return "", fmt.Errorf("it does not compile: %.600s", out)
	}
	if name := failed.FindStringSubmatch(out); name != nil {
		return name[1], nil
	}
	if strings.Contains(out, "panic: ") { // of the code, or because the time was up
		return m.test + " (it panics)", nil
	}
	return "", fmt.Errorf("%w: %s", err, out[max(0, len(out)-600):])
}
