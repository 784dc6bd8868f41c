package main

// The rest of the process has files open too: Raft's log and snapshots, connections of the other nodes, of Redis, of operators,
// and two descriptors for a moment where a connection goes from a loop to a goroutine.
const (
	leastReserve = 64
	mostReserve  = 1024
)

// shareDescriptors is how many of the files that this process may have open go to clients and the origin together, and to
// clients alone, who leave a quarter for the requests that they make. asked is WR_MAX_CONNS; 0: as many as can be. An answer of
// 0 is no limit.
func shareDescriptors(files, asked int) (all, clients int) {
	if files == 0 {
		return 0, asked
	}
	all = max(files-leastReserve-min(files/16, mostReserve-leastReserve), 16)
	clients = all - all/4
	if asked > 0 {
		clients = min(asked, all)
	}
	return all, clients
}
