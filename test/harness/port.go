package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

var ports struct {
	sync.Mutex
	given map[int]bool
}

// Port finds a free port on loopback that was not given before in this process. It lies below
// the range from which systems take the ports of outgoing connections, so that no such
// connection is on it when a killed process comes back.
func Port(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[int]bool{}
	}
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		if ports.given[port] {
			continue
		}
		listener, err := net.Listen("tcp", Address(port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		ports.given[port] = true
		return port
	}
	t.Fatal("no free port on " + Host)
	return 0
}

// Address is host:port on loopback.
func Address(port int) string { return net.JoinHostPort(Host, strconv.Itoa(port)) }

// URL is http://host:port on loopback.
func URL(port int) string { return fmt.Sprintf("http://%s", Address(port)) }
