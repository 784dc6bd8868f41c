package faults

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

var (
	runFaults = flag.Bool("faults", false, "do harm to real processes; takes up to 20 minutes")
	quick     = flag.Bool("quick", false, "with -faults: the most telling cells only")
	soakTime  = flag.Duration("soak", 0, "run random cells on one cluster for so long")
	only      = flag.String("only", "", "with -soak: the cells whose names match this regular expression, and no other")
	seed      = flag.Uint64("seed", 0, "decides what visitors do and, in a soak, the order of the cells; 0: the time")
	reports   = flag.String("reports", "", "directory for the results, one JSON file for each run, and summary.md")
)

func TestMain(m *testing.M) {
	flag.BoolVar(&secure, "tls", false, "the nodes speak TLS to each other")
	flag.IntVar(&handOverCount, "handovers", handOverCount, "how many leaders are ended one after the other in the cell of hand-overs")
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().Unix())
	}
	chance = *seed
	code := 0
	if *runFaults || *soakTime > 0 {
		code = harness.Main(m)
	} else {
		code = m.Run() // nothing is built for the audit's own tests
	}
	removeBent()
	os.Exit(code)
}
