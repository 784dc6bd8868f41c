//go:build profile

package main

import (
	"os"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"syscall"
)

// With the build tag profile, and OWR_PROFILE a path, a process writes a CPU profile of its life to PATH.PID when it is told
// to end: what `make pgo` collects.
func init() {
	path := os.Getenv("OWR_PROFILE")
	if path == "" {
		return
	}
	f, err := os.Create(path + "." + strconv.Itoa(os.Getpid()))
	if err != nil {
		panic(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		panic(err)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() {
		<-ended
		pprof.StopCPUProfile()
		_ = f.Close()
	}()
}
