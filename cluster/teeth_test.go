package cluster

import (
	"log/slog"
	"reflect"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/queue"
)

// What is told to a visitor is on a majority's disks, past every cache: bbolt syncs each write of the log. There is no
// way to see that from outside but to pull the plug, so this looks at bbolt's own switch.
func TestEveryEntryIsSynced(t *testing.T) {
	n, err := Open(Config{
		NodeID: "n1", Listen: "127.0.0.1:7000", DataDir: t.TempDir(), Limits: queue.DefaultLimits(), Logger: slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(), OnFailure: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	db := reflect.ValueOf(n.store.bolt).Elem().FieldByName("conn").Elem()
	for _, name := range []string{"NoSync", "NoGrowSync"} {
		if f := db.FieldByName(name); !f.IsValid() || f.Bool() {
			t.Errorf("bbolt's %s is set, or there is no such switch any more", name)
		}
	}
}
