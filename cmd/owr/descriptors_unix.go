//go:build unix

package main

import "syscall"

// descriptorsHere is how many files this process may have open. The Go runtime has raised it to the hard limit at the start of the
// process. It is 0 where the system does not say.
func descriptorsHere() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur, 1<<30))
}
