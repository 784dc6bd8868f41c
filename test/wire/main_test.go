package wire

import (
	"os"
	"testing"

	"github.com/openwaitingroom/owr/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
