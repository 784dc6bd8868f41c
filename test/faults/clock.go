package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/openwaitingroom/owr/test/harness"
	"github.com/openwaitingroom/owr/test/overlay"
)

// A bent owr adds OWR_FAULTS_CLOCK, a duration, to what its wall clock says. The product has no such variable: the
// binary is built with an overlay.
var bent struct {
	once sync.Once
	path string
	err  error
}

var bentClock = []overlay.Edit{
	{File: "cluster/clock.go", From: "\t\"sync/atomic\"\n", To: "\t\"os\"\n\t\"sync/atomic\"\n"},
	{File: "cluster/clock.go", From: "func newClusterClock()", To: "var bent, _ = time.ParseDuration(os.Getenv(\"OWR_FAULTS_CLOCK\"))\n\nfunc newClusterClock()"},
	{File: "cluster/clock.go", From: "return time.Now().UnixMilli()", To: "return time.Now().Add(bent).UnixMilli()"},
	{File: "cluster/leader.go", From: "max(now, time.Now().UnixMilli())", To: "max(now, time.Now().Add(bent).UnixMilli())"},
}

// bendClock gives the nodes clocks that are an hour ahead, right, and an hour behind.
func bendClock(t testing.TB, n *harness.Node) {
	t.Helper()
	bent.once.Do(func() { bent.path, bent.err = buildBent() })
	if bent.err != nil {
		t.Fatal(bent.err)
	}
	n.SetBinary(bent.path)
	n.Settings["OWR_FAULTS_CLOCK"] = map[string]string{"n1": "1h", "n2": "0s", "n3": "-1h"}[n.ID]
}

// buildBent leaves the binary in the temporary directory; removeBent removes it.
func buildBent() (string, error) {
	root, err := overlay.Root()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "owr-bent-")
	if err != nil {
		return "", err
	}
	path, err := overlay.Write(root, dir, bentClock)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "owr")
	command := exec.Command("go", "build", "-buildvcs=false", "-overlay", path, "-o", binary, "./cmd/owr")
	command.Dir, command.Stderr = root, os.Stderr
	return binary, command.Run()
}

func removeBent() {
	if bent.path != "" {
		_ = os.RemoveAll(filepath.Dir(bent.path))
	}
}
