package harness

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Process is one program that can be started again after it ended. It is ended with its test,
// and the end of its log is shown when the test failed.
type Process struct {
	Name string

	t    testing.TB
	log  string // path; the output of all runs, one after the other
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// newProcess prepares a process; its files are in dir.
func newProcess(t testing.TB, name, dir string) *Process {
	p := &Process{Name: name, t: t, log: filepath.Join(dir, name+".log")}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the log of %s ends:\n%s", name, tail(p.Log(), 40))
		}
	})
	return p
}

// NewDemo starts owr demo.
func NewDemo(t testing.TB, args ...string) *Process {
	t.Helper()
	path := Binary(t)
	p := newProcess(t, "demo", t.TempDir())
	p.start(nil, path, append([]string{"demo"}, args...)...)
	return p
}

// start runs the program with the variables of this process but those of owr.
func (p *Process) start(env []string, path string, args ...string) {
	p.t.Helper()
	if p.Alive() {
		p.t.Fatalf("%s runs already", p.Name)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(path, args...)
	cmd.Dir = filepath.Dir(p.log)
	cmd.Stdout, cmd.Stderr = log, log
	for _, line := range os.Environ() {
		if !strings.HasPrefix(line, "WR_") {
			cmd.Env = append(cmd.Env, line)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.Name, err)
	}
	p.cmd, p.done = cmd, make(chan struct{})
	go func(done chan struct{}) {
		_ = cmd.Wait() // ExitCode has the result
		close(done)
	}(p.done)
}

// Alive reports whether the process has been started and has not ended.
func (p *Process) Alive() bool {
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Pid is the number of the process that was started last.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Kill ends the process as a power cut does, and waits for its end.
func (p *Process) Kill() {
	if p.Alive() {
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// Pause stops the process where it is; Continue lets it go on.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP) }

// Continue lets a paused process go on.
func (p *Process) Continue() { p.signal(syscall.SIGCONT) }

// Terminate asks the process to end, as a service manager does, and answers its exit code. It fails
// the test when that takes longer than limit.
func (p *Process) Terminate(limit time.Duration) int {
	p.t.Helper()
	return p.end(syscall.SIGTERM, limit)
}

// Interrupt is Ctrl-C; otherwise as Terminate.
func (p *Process) Interrupt(limit time.Duration) int {
	p.t.Helper()
	return p.end(syscall.SIGINT, limit)
}

func (p *Process) end(s syscall.Signal, limit time.Duration) int {
	p.t.Helper()
	p.signal(s)
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		p.signal(syscall.SIGQUIT) // it says where it is
		select {
		case <-p.done:
		case <-time.After(limit):
		}
		text := p.Log()
		p.t.Fatalf("%s has not ended %v after %v\n%s", p.Name, limit, s, text[max(0, strings.LastIndex(text, "SIGQUIT: quit")):])
		return -1
	}
}

func (p *Process) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("%v to %s: %v", s, p.Name, err)
	}
}

// Log is everything that the process has written so far.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Errorf("log of %s: %v", p.Name, err)
	}
	return string(text)
}

// tail is the last lines of a text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
