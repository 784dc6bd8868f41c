package main

import (
	"runtime"
	"sync"
)

// processors is how many cores this process may use, as GOMAXPROCS has it, which knows the limits of a container. At the first
// call it doubles GOMAXPROCS: each event loop of the proxy waits in a system call of its own, and the runtime must neither
// take its processor away for that nor be left without one for the rest (timers, Raft, Redis). With as many loops as
// processors and none to spare, a request cost a quarter more.
var processors = sync.OnceValue(func() int {
	n := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(2 * n)
	return n
})
