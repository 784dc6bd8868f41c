package harness

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Release builds the owr of a commit or tag and answers its path. It skips the test where the history does not reach
// back that far.
func Release(t testing.TB, commit string) string {
	t.Helper()
	Binary(t)
	if raceEnabled {
		t.Skip("the run without the race detector has this test; here it would wait for another build of an older version")
	}
	dir := t.TempDir()
	archive, err := git("archive", commit)
	if err != nil {
		t.Skipf("the history does not hold %s (a shallow clone, or no git): %v", commit, err)
	}
	unpack := exec.Command("tar", "-x", "-C", dir)
	unpack.Stdin = bytes.NewReader(archive)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", commit, err, out)
	}
	path := filepath.Join(dir, "owr-of-"+commit[:min(len(commit), 8)])
	build := exec.Command("go", "build", "-buildvcs=false", "-o", path, "./cmd/owr")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", commit, err, out)
	}
	return path
}

// PreviousTag is the newest tag before this commit; empty when there is none.
func PreviousTag() string {
	tag, err := git("describe", "--tags", "--abbrev=0", "HEAD^")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(tag))
}

// git runs at the top of the checkout: elsewhere it archives a part.
func git(args ...string) ([]byte, error) {
	top, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("git", args...)
	cmd.Dir = strings.TrimSpace(string(top))
	return cmd.Output()
}

// Use makes another owr the one that the next Start starts.
func (n *Node) Use(binary string) { n.binary = binary }

// Run runs a command of owr with the node's settings, and answers its exit code and what it said.
func (n *Node) Run(args ...string) (code int, output string) {
	n.t.Helper()
	cmd := exec.Command(n.binary, args...)
	cmd.Env = append(os.Environ(), "WR_REDIS_HOST=off")
	for name, value := range n.Settings {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		n.t.Fatalf("owr %v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// DataDir is where the node keeps its log.
func (n *Node) DataDir() string { return n.Settings["WR_DATA_DIR"] }

// WaitEnd waits until the process has ended by itself, and answers its exit code.
func (n *Node) WaitEnd() int {
	n.t.Helper()
	WaitFor(n.t, n.ID+" ends by itself", 30*time.Second, func() bool { return !n.Alive() })
	return n.cmd.ProcessState.ExitCode()
}
