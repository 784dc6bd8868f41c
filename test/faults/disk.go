package faults

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// spoil ends a node and changes one bit of every visitor's id in its log file: in the payload of entries, where neither
// bbolt nor Raft looks.
func spoil(w *world, victims []*harness.Node) {
	n := victims[0]
	n.Kill()
	data, err := os.ReadFile(logFile(n))
	must(w.t, err)
	spoiled := 0
	for _, v := range w.crowd.present() {
		id, err := hex.DecodeString(strings.ReplaceAll(v.id(), "-", ""))
		if err != nil || len(id) != 16 {
			continue
		}
		for at := 0; ; {
			i := bytes.Index(data[at:], id)
			if i < 0 {
				break
			}
			data[at+i+15] ^= 0x10
			at += i + 16
			spoiled++
		}
	}
	if spoiled == 0 {
		w.t.Error("the log names nobody who is here")
	}
	must(w.t, os.WriteFile(logFile(n), data, 0o600))
}

// againOrWiped starts a node that may refuse its own disk. Then it does what the message says.
func againOrWiped(w *world, victims []*harness.Node) {
	n := victims[0]
	before := len(n.Log())
	n.Start()
	ended := !harness.Poll(5*time.Second, n.Ready) && !n.Alive()
	if !ended {
		return
	}
	if said := n.Log()[before:]; !strings.Contains(said, logFile(n)) {
		w.t.Errorf("the node ended without naming %s: %.300s", logFile(n), said)
	}
	must(w.t, os.RemoveAll(dataDir(n)))
	n.Start()
}

// tracers are the strace processes of breakSync, by the node's process.
var tracers = map[int]*exec.Cmd{}

// breakSync makes every fsync of a running node fail or take long, by strace.
func breakSync(how string) func(*world, []*harness.Node) {
	return func(w *world, victims []*harness.Node) {
		pid := victims[0].Pid()
		cmd := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:"+how, "-p", strconv.Itoa(pid))
		said := &strings.Builder{}
		cmd.Stderr = said
		if err := cmd.Start(); err != nil {
			w.t.Skipf("strace: %v", err)
		}
		traced := harness.Poll(5*time.Second, func() bool {
			status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
			return err != nil || !strings.Contains(string(status), "TracerPid:\t0\n")
		})
		if !traced {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			w.t.Skipf("this machine lets nobody trace: %s", said)
		}
		tracers[pid] = cmd
	}
}

// endedByIt is unbreakSync for a node that has to end: one that goes on after a failed sync would give its word for what is
// on no disk.
func endedByIt(w *world, victims []*harness.Node) {
	n := victims[0]
	if !harness.Poll(10*time.Second, func() bool { return !n.Alive() }) {
		w.t.Errorf("%s goes on though its disk refuses to sync", n.ID)
	} else if !strings.Contains(n.Log(), logFile(n)) {
		w.t.Errorf("%s ended without naming %s", n.ID, logFile(n))
	}
	unbreakSync(w, victims)
}

// The bounds of a disk that hangs: until the node has ended by itself, and from then until another one leads.
const (
	hangTime     = 10 * time.Second
	takeOverTime = 3 * time.Second
)

// hangs has every fsync of a node that leads take longer than its watchdog waits. A leader that hangs goes on sending heartbeats, so only its
// end lets the others elect.
func hangs(w *world, victims []*harness.Node) {
	n := victims[0]
	breakSync("delay_enter=30000000")(w, victims)
	begun := time.Now()
	over := harness.Poll(hangTime, func() bool {
		_, err := n.Status()
		return !n.Alive() || err != nil && !runs(n.Pid())
	})
	took := time.Since(begun)
	if cmd := tracers[n.Pid()]; cmd != nil { // it keeps the thread that it delays, and the process with it
		delete(tracers, n.Pid())
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if !over {
		w.t.Errorf("%s goes on %v after its disk began to hang", n.ID, hangTime)
		return
	}
	code, said := n.WaitEnd(), n.Log()
	if code != 1 || !strings.Contains(said, logFile(n)) || !strings.Contains(said, "the disk hangs") {
		w.t.Errorf("%s ended with exit code %d, want 1 and that %s hangs", n.ID, code, logFile(n))
	}
	ended := time.Now()
	next := w.leader()
	if took := time.Since(ended); took > takeOverTime {
		w.t.Errorf("%s leads %v after the end of %s, more than %v", next.ID, took, n.ID, takeOverTime)
	}
	w.t.Logf("%s ended %v after its disk began to hang, and %s leads", n.ID, took.Round(10*time.Millisecond), next.ID)
}

// runs reports whether any thread of a process is left that is neither dead nor in the hands of a tracer, as all are for a moment when it comes.
func runs(pid int) bool {
	files, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/status") // fails for a bad pattern only
	for _, file := range files {
		status, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		if _, state, _ := strings.Cut(string(status), "\nState:\t"); !strings.ContainsAny(state[:min(1, len(state))], "ZXt") {
			return true
		}
	}
	return false
}

// unbreakSync lets the node's syncs pass again, and starts it when it has ended, as it should after an error.
func unbreakSync(w *world, victims []*harness.Node) {
	n := victims[0]
	if cmd := tracers[n.Pid()]; cmd != nil {
		delete(tracers, n.Pid())
		_ = cmd.Process.Signal(os.Interrupt) // it detaches and ends, unless its tracee has ended before
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	}
	again(w, victims)
}

// smallDisk puts a node's data on a file system of its own.
func smallDisk(t testing.TB, n *harness.Node) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("a small file system is needed, and mounting one takes root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	n.Settings["WR_DATA_DIR"] = filepath.Join(dir, "data")
}

func filler(n *harness.Node) string { return filepath.Join(filepath.Dir(dataDir(n)), "filler") }

func fillDisk(w *world, victims []*harness.Node) {
	f, err := os.Create(filler(victims[0]))
	must(w.t, err)
	defer f.Close()
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		w.t.Errorf("the disk did not fill: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// emptyDisk makes space. A node that met the full disk has ended by then, and named the file.
func emptyDisk(w *world, victims []*harness.Node) {
	n := victims[0]
	if harness.Poll(15*time.Second, func() bool { return !n.Alive() }) {
		if !strings.Contains(n.Log(), logFile(n)) {
			w.t.Errorf("%s ended without naming %s", n.ID, logFile(n))
		}
	} else {
		w.t.Errorf("%s goes on with a full disk", n.ID)
	}
	must(w.t, os.Remove(filler(n)))
	again(w, victims)
}
