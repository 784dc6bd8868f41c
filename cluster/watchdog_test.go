package cluster

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// A process that is stopped in the middle of a write, for longer than a write may take, does not take that for a disk that hangs.
func TestAPauseIsNoHang(t *testing.T) {
	const limit = 2 * time.Second
	if os.Getenv("OWR_TEST_PAUSED") != "" {
		failed := make(chan error, 1)
		s := &store{path: "raft.db", limit: limit, fail: func(err error) { failed <- err }}
		done := s.watch("write to")
		fmt.Println("writing")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until the other side has gone on for a moment
		done()
		select {
		case err := <-failed:
			fmt.Println(err)
		default:
			fmt.Println("written")
		}
		return
	}
	child := exec.Command(os.Args[0], "-test.run", "^TestAPauseIsNoHang$")
	child.Env = append(os.Environ(), "OWR_TEST_PAUSED=1")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(out)
	said.Scan()
	signal := func(s syscall.Signal) {
		if err := child.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	time.Sleep(limit + limit/2)
	signal(syscall.SIGCONT)
	time.Sleep(limit / watchSteps)
	_ = in.Close()
	said.Scan()
	if got := said.Text(); got != "written" {
		t.Errorf("after a pause: %s", got)
	}
	for said.Scan() {
	}
	_ = child.Wait()
}
