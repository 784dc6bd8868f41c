// Mutants shows that the tests have teeth: it puts one fault after the other into owr, each a few changed lines, runs
// the tests that should catch it, and fails when one is not caught or does not compile. The checkout is not touched: the changed
// files lie beside it and the compiler is told by -overlay.
//
//	go run ./test/mutants             all of them
//	go run ./test/mutants -only touch those whose name contains "touch"
//	go run ./test/mutants -quick      those whose test takes less than a second or two
package main

import (
	"context"
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
	survived, seeded := 0, 0
	fmt.Println("| mutant | caught by | in | took |\n| --- | --- | --- | --- |")
	for _, m := range mutants {
		if !strings.Contains(m.name, *only) || *quick && m.slow {
			continue
		}
		seeded++
		begun := time.Now()
		caught, err := m.run(ctx)
		if err != nil {
			caught = "NOT CAUGHT: " + err.Error()
			survived++
		}
		fmt.Printf("| %s | %s | %s | %.1f s |\n", m.name, caught, m.pkg, time.Since(begun).Seconds())
	}
	fmt.Printf("\n%d of %d caught\n", seeded-survived, seeded)
	if survived > 0 || seeded == 0 {
		os.Exit(1)
	}
}

var failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

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
	args := []string{"test", "-overlay", path, "-count", "1", "-failfast", "-timeout", limit.String(), "-run", m.test, m.pkg}
	if m.pkg == "./queue" {
		args = append(args, "-rapid.nofailfile", "-rapid.shrinktime", "1s") // nobody reads the smallest counterexample
	}
	args = append(args, strings.Fields(m.flags)...)
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = root
	command.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+path) // the owr that a test builds is to have the fault, too
	out, err := command.CombinedOutput()
	switch {
	case err == nil && strings.Contains(string(out), "--- SKIP: "):
		return "nothing: this machine does not allow " + m.test, nil
	case err == nil:
		return "", fmt.Errorf("%s passes", m.test)
	case strings.Contains(string(out), "[build failed]") || strings.Contains(string(out), "[setup failed]"):
		return "", fmt.Errorf("it does not compile: %.600s", out)
	}
	if name := failed.FindStringSubmatch(string(out)); name != nil {
		return name[1], nil
	}
	if strings.Contains(string(out), "panic: ") { // of the code, or because the time was up
		return m.test + " (it panics)", nil
	}
	return "", fmt.Errorf("%w: %.600s", err, out)
}
