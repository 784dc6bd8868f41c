package faults

import (
	"os/exec"
	"strconv"
	"syscall"

	"github.com/openwaitingroom/owr/test/harness"
)

// burners are the busy loops of starve.
var burners []*exec.Cmd

// starve leaves a node one processor that others are busy on. The loops end by themselves after ten seconds.
func starve(w *world, victims []*harness.Node) {
	if _, err := exec.LookPath("taskset"); err != nil {
		w.t.Skip("taskset is missing")
	}
	pin(w, victims[0], "0")
	for range 6 {
		cmd := exec.Command("timeout", "10", "taskset", "-c", "0", "sh", "-c", "while :; do :; done")
		must(w.t, cmd.Start())
		burners = append(burners, cmd)
	}
}

func feed(w *world, victims []*harness.Node) {
	for _, cmd := range burners {
		_ = cmd.Process.Signal(syscall.SIGTERM) // timeout hands it on
		_ = cmd.Wait()
	}
	burners = nil
	pin(w, victims[0], "0-1023")
}

// pin bounds where all threads of a node may run.
func pin(w *world, n *harness.Node, list string) {
	if out, err := exec.Command("taskset", "-a", "-c", "-p", list, strconv.Itoa(n.Pid())).CombinedOutput(); err != nil {
		w.t.Errorf("taskset: %v: %s", err, out)
	}
}
