package proxy

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// goroutines has every connection of these tests served as where there are no loops: for an origin with TLS, or on another
// system than Linux. `make test` runs both ways.
var goroutines = flag.Bool("goroutines", false, "connections are served by goroutines and not by event loops")

// secure has these tests speak TLS to the proxy. `make secure` runs that way.
var secure = flag.Bool("secure", false, "clients speak TLS")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
