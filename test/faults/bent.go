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

// A bent owr obeys variables that the product does not have: what its clock says (clock.go), and when its log is cut down to a
// snapshot (snapshot.go). The binary is built with an overlay, once, when the first cell asks for it.
var bent struct {
	once sync.Once
	path string
	err  error
}

// bend has a node run the bent owr.
func bend(t testing.TB, n *harness.Node) {
	t.Helper()
	bent.once.Do(func() { bent.path, bent.err = buildBent() })
	if bent.err != nil {
		t.Fatal(bent.err)
	}
	n.SetBinary(bent.path)
}

// bentEdits are all that is changed.
func bentEdits() []overlay.Edit {
	return append(append([]overlay.Edit(nil), bentClock...), bentCompaction...)
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
	path, err := overlay.Write(root, dir, bentEdits())
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
