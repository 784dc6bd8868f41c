package harness

import (
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/openwaitingroom/owr/internal/freeport"
)

// Port finds a free port on loopback that was not given before in this process: see freeport.TCP.
func Port(t testing.TB) int {
	t.Helper()
	return freeport.TCP(t)
}

// Address is host:port on loopback.
func Address(port int) string { return net.JoinHostPort(Host, strconv.Itoa(port)) }

// URL is http://host:port on loopback.
func URL(port int) string { return fmt.Sprintf("http://%s", Address(port)) }
