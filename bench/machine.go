//go:build linux

package main

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine says where and when a run took place.
type machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	MemoryMB   uint64 `json:"memory_mb"`
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Revision   string `json:"revision"` // of the checkout; "-dirty" when files differ from it
	Nginx      string `json:"nginx,omitempty"`
	Redis      string `json:"redis,omitempty"`
	Date       string `json:"date"`
	LoadBefore string `json:"load_before"` // the load averages of 1, 5 and 15 minutes
	LoadAfter  string `json:"load_after"`
}

func describeMachine() machine {
	m := machine{
		Cores: runtime.NumCPU(), Go: runtime.Version(), Date: time.Now().UTC().Format(time.RFC3339), LoadBefore: loadAverage(),
		Nginx: firstLine("nginx", "-v"), Redis: firstLine("redis-server", "--version"),
		Revision: firstLine("git", "describe", "--always", "--dirty"),
	}
	for line := range strings.Lines(readFile("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	m.Kernel = strings.TrimSpace(readFile("/proc/sys/kernel/osrelease"))
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		m.MemoryMB = info.Totalram * uint64(info.Unit) >> 20
	}
	if b, ok := debug.ReadBuildInfo(); ok && m.Go == "" {
		m.Go = b.GoVersion
	}
	return m
}

func loadAverage() string {
	fields := strings.Fields(readFile("/proc/loadavg"))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

func readFile(path string) string {
	b, _ := os.ReadFile(path) // a machine without it is described with less
	return string(b)
}

func firstLine(name string, args ...string) string {
	out, _ := exec.Command(name, args...).CombinedOutput() // missing: not described
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// busySeconds is the CPU time that the machine has spent so far. Interrupts count: what they do for a
// program, like delivering what it sent over loopback, is in that program's time too.
func busySeconds() float64 {
	line, _, _ := strings.Cut(readFile("/proc/stat"), "\n")
	total := 0.0
	for i, text := range strings.Fields(line) {
		if 1 <= i && i <= 3 || i == 6 || i == 7 { // user, nice, system; interrupts, soft and hard
			ticks, _ := strconv.ParseFloat(text, 64)
			total += ticks / ticksPerSecond
		}
	}
	return total
}

// ourSeconds is the CPU time of this process and of all children that have ended.
func ourSeconds() float64 {
	total := 0.0
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			total += float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
		}
	}
	return total
}
