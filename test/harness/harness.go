// Package harness starts real owr processes, a real redis-server and an origin on loopback,
// sends visitors through them, and checks the guarantees from what the visitors and the origin
// have seen. It uses nothing of owr but its outside.
package harness

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Host is where everything listens.
const Host = "127.0.0.1"

// pause is the time between two looks at something that is waited for.
const pause = 20 * time.Millisecond

// binary is the path of the owr that Main built.
var binary string

// Main builds owr once, runs the tests of a package, and answers the exit code. With -short
// nothing is built, and Start skips its test.
func Main(m *testing.M) int {
	flag.Parse()
	if testing.Short() {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "owr-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "owr")
	if err := build(binary); err != nil {
		fmt.Fprintln(os.Stderr, "harness: build owr:", err)
		return 1
	}
	return m.Run()
}

// build compiles owr as the tests are compiled: under the race detector when they are.
func build(path string) error {
	args := []string{"build", "-buildvcs=false", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	command := exec.Command("go", append(args, "github.com/openwaitingroom/owr/cmd/owr")...)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	return command.Run()
}

// Binary is the path of the owr under test. It skips a test that runs with -short.
func Binary(t testing.TB) string {
	t.Helper()
	if binary == "" {
		t.Skip("-short: no processes are started")
	}
	return binary
}

// WaitFor polls until done reports true, and fails the test when that takes longer than limit.
func WaitFor(t testing.TB, what string, limit time.Duration, done func() bool) {
	t.Helper()
	if !Poll(limit, done) {
		t.Fatalf("not within %v: %s", limit, what)
	}
}

// Poll asks until done reports true or limit has passed, and answers the last report.
func Poll(limit time.Duration, done func() bool) bool {
	timeout := time.After(limit)
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		if done() {
			return true
		}
		select {
		case <-timeout:
			return done()
		case <-tick.C:
		}
	}
}
