// Package freeport finds ports for the tests of every package.
package freeport

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

var given struct {
	sync.Mutex
	ports map[int]bool
}

// TCP finds a port of 127.0.0.1 that nobody listens on and that was not given before in this process. It lies below the range from which
// systems take the ports of outgoing connections and of listeners that do not care, so that neither is on it when whoever had it comes
// back. Any number of callers.
func TCP(t testing.TB) int {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = map[int]bool{}
	}
	for range 1000 {
		port := 10000 + rand.IntN(22000)
		if given.ports[port] {
			continue
		}
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		given.ports[port] = true
		return port
	}
	t.Fatal("no free port on 127.0.0.1")
	return 0
}

// Address is host:port of such a port.
func Address(t testing.TB) string {
	t.Helper()
	return address(TCP(t))
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
