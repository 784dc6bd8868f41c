// Command bench measures owr next to its baselines, on one machine and in one run.
//
// Each row starts what it needs on free loopback ports, then measures subject and baseline in turn (A B
// A B), so that a machine that gets slower halfway does so for both. A row's figure is the median of its
// rounds, its target a ratio within the run or a bound in absolute time.
//
//	go run ./bench              every row, results in bench/results, pictures in docs/img
//	go run ./bench -quick       what does not depend on the machine's mood, in under three minutes
//	go run ./bench -rows poll   some rows
//	go run ./bench -list        the rows
//
// CPU per request is the user and system time of the proxy's processes, from /proc, over the requests of
// the window. Load comes from wrk where one fixed request does, otherwise from a client of our own: one
// thread on epoll, prebuilt requests (load.go). Row "client" shows what that client costs beside wrk.
package main
