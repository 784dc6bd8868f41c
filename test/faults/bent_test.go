package faults

import (
	"os/exec"
	"testing"

	"github.com/openwaitingroom/owr/test/overlay"
)

// TestTheBentOneCompiles notices when the code that the overlay changes has moved on, without running a cell.
func TestTheBentOneCompiles(t *testing.T) {
	root, err := overlay.Root()
	must(t, err)
	path, err := overlay.Write(root, t.TempDir(), bentEdits())
	must(t, err)
	command := exec.Command("go", "build", "-overlay", path, "./cluster")
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
