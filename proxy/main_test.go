package proxy

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// loopFirst has every connection of these tests begin where most of them are seldom: in a loop. `make test` runs both ways.
var loopFirst = flag.Bool("loop-first", false, "connections begin in an event loop")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
