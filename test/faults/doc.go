// Package faults does harm to real owr processes on real TCP in front of a real Redis while visitors
// come, wait, browse and leave, and audits the whole history after each kind of harm.
//
// The tests skip unless they are asked for, since a run takes minutes:
//
//	go test ./test/faults -faults          every cell of the table in cells.go
//	go test ./test/faults -faults -quick   the most telling ones
//	go test ./test/faults -soak 1h         random cells on one cluster that lives all the time
//
// The audit itself (audit.go) and the proxy between the nodes (link.go) are tested always.
package faults
