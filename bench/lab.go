//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A lab is where a run takes place: a directory, and the processes in it. One goroutine uses it.
type lab struct {
	ctx       context.Context
	o         options
	dir       string
	owr       string // the binary
	processes []*process
	made      int
	row       string // under way
	ports     map[int]bool
	profiled  map[string]bool // by name
}

func newLab(ctx context.Context, o options) (*lab, error) {
	for _, tool := range []string{"nginx", "redis-server", "wrk"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%s is missing: scripts/need nginx redis-server wrk, and libnginx-mod-http-lua by apt", tool)
		}
	}
	dir, err := os.MkdirTemp("", "owr-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{ctx: ctx, o: o, dir: dir, owr: o.owr, ports: make(map[int]bool), profiled: make(map[string]bool)}
	if l.owr == "" {
		l.owr = filepath.Join(dir, "owr")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", l.owr, "./cmd/owr")
		if out, err := build.CombinedOutput(); err != nil {
			l.close()
			return nil, fmt.Errorf("build owr: %w: %s", err, out)
		}
	} else if l.owr, err = filepath.Abs(l.owr); err != nil {
		return nil, err
	}
	return l, nil
}

// close ends everything and removes the directory.
func (l *lab) close() {
	l.endAll()
	if l.o.keep {
		fmt.Println("kept", l.dir)
		return
	}
	_ = os.RemoveAll(l.dir) // it is below the system's temporary directory
}

// endAll ends every process that was started, the newest first.
func (l *lab) endAll() {
	for _, p := range slices.Backward(l.processes) {
		p.end()
	}
	l.processes = nil
}

// folder makes a new directory for one process.
func (l *lab) folder(name string) string {
	l.made++
	path := filepath.Join(l.dir, fmt.Sprintf("%03d-%s", l.made, name))
	if err := os.MkdirAll(path, 0o755); err != nil {
		panic(fmt.Sprintf("bench: %v", err)) // our own temporary directory
	}
	return path
}

// address is a free address on loopback, not handed out before in this run. It lies below the range that
// the system takes ports of outgoing connections from.
func (l *lab) address() string {
	for {
		port := 15000 + int(time.Now().UnixNano()/1000)%16000
		if l.ports[port] {
			continue
		}
		at := "127.0.0.1:" + strconv.Itoa(port)
		listener, err := net.Listen("tcp", at)
		if err != nil {
			continue
		}
		listener.Close()
		l.ports[port] = true
		return at
	}
}

// sleep waits, unless the run is interrupted.
func (l *lab) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.ctx.Done():
	}
}

// errEnded says that waiting on has no point.
var errEnded = errors.New("the process has ended")

// await polls until probe answers nil, and returns its last error when that takes too long.
func (l *lab) await(limit time.Duration, probe func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := probe()
		if err == nil || errors.Is(err, errEnded) || l.ctx.Err() != nil {
			return errors.Join(err, l.ctx.Err())
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", limit, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A process is a child, ended by its own pid. It dies with the bench.
type process struct {
	name   string
	folder string
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has been waited for
	core   string        // of taskset; empty: any
}

// spawn starts a program. Its output goes to a file log in its folder.
func (l *lab) spawn(p *process, env []string, argv ...string) error {
	if p.core != "" {
		argv = append([]string{"taskset", "-c", p.core}, argv...)
	}
	log, err := os.OpenFile(filepath.Join(p.folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = p.folder, cleanEnv(env), log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.done = make(chan struct{})
	go func() {
		_ = p.cmd.Wait() // how it ended is in its log
		close(p.done)
	}()
	return nil
}

// start is spawn for a process that the lab ends with the row.
func (l *lab) start(name string, env []string, argv ...string) (*process, error) {
	p := &process{name: name, folder: l.folder(name)}
	l.processes = append(l.processes, p)
	return p, l.spawn(p, env, argv...)
}

func cleanEnv(extra []string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "WR_") {
			env = append(env, v)
		}
	}
	return append(env, extra...)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) alive() bool {
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

func (p *process) signal(s os.Signal) {
	if p.alive() {
		_ = p.cmd.Process.Signal(s) // it may have ended just now
	}
}

// end asks the process to end, and makes it after a while.
func (p *process) end() {
	if !p.alive() {
		return
	}
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(8 * time.Second):
		p.kill()
	}
}

// kill ends the process at once, and waits until it is gone.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// tail is the end of the process's log.
func (p *process) tail() string {
	text := readFile(filepath.Join(p.folder, "log"))
	return text[max(0, len(text)-600):]
}

// cpu is the user and system time that the process and its children have used so far, in seconds.
func (p *process) cpu() float64 {
	total := cpuOf(p.pid())
	for _, pid := range childrenOf(p.pid()) {
		total += cpuOf(pid)
	}
	return total
}

// ticksPerSecond is the unit of /proc/PID/stat, the same on every Linux that Go runs on.
const ticksPerSecond = 100

func cpuOf(pid int) float64 {
	text := readFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticksPerSecond
}

func childrenOf(pid int) []int {
	var out []int
	for text := range strings.FieldsSeq(readFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))) {
		if child, err := strconv.Atoi(text); err == nil {
			out = append(out, child)
		}
	}
	return out
}

// memory is the resident size of the process in bytes.
func (p *process) memory() float64 {
	fields := strings.Fields(readFile(fmt.Sprintf("/proc/%d/statm", p.pid())))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize())
}

// cpuOfAll is the time that all of the processes have used.
func cpuOfAll(processes []*process) float64 {
	total := 0.0
	for _, p := range processes {
		total += p.cpu()
	}
	return total
}

var quickClient = &http.Client{Timeout: 2 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// answers reports, as an error, why a GET has no answer with the status yet.
func answers(address, path string, status int) error {
	response, err := quickClient.Get("http://" + address + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != status {
		return fmt.Errorf("GET %s: %s", path, response.Status)
	}
	return nil
}

// awaitHTTP waits until the process answers.
func (l *lab) awaitHTTP(p *process, address, path string, status int) error {
	err := l.await(30*time.Second, func() error {
		if !p.alive() {
			return errEnded
		}
		return answers(address, path, status)
	})
	if err != nil {
		return fmt.Errorf("%s: %w; its log ends: %s", p.name, err, p.tail())
	}
	return nil
}
