package harness

import (
	"context"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Redis is a real redis-server that keeps nothing on disk, and a client to look into it.
type Redis struct {
	*Process
	Port   int
	Client *redis.Client
}

// quiet keeps the client's library from writing about a server that a test has stopped.
type quiet struct{}

// Printf writes nothing.
func (quiet) Printf(context.Context, string, ...any) {}

// NewRedis starts one. It skips the test where there is no redis-server.
func NewRedis(t testing.TB) *Redis {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is missing: make tools")
	}
	r := &Redis{Process: newProcess(t, "redis", t.TempDir()), Port: Port(t)}
	redis.SetLogger(quiet{})
	r.Client = redis.NewClient(&redis.Options{
		Addr: Address(r.Port), DialTimeout: time.Second, ReadTimeout: 2 * time.Second, MaxRetries: -1, Protocol: 2, DisableIdentity: true,
	})
	t.Cleanup(func() { _ = r.Client.Close() })
	r.Start()
	return r
}

// Start starts the server, empty, and waits until it answers.
func (r *Redis) Start() {
	r.t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		r.t.Fatal(err)
	}
	r.start(nil, path, "--port", strconv.Itoa(r.Port), "--bind", Host, "--save", "", "--appendonly", "no", "--dir", filepath.Dir(r.log))
	WaitFor(r.t, "redis answers", 10*time.Second, func() bool { return r.Client.Ping(context.Background()).Err() == nil })
}

// Follow makes this server a copy of the one at host and port, from now on; with an empty host it is its own master from now on, with
// what it has.
func (r *Redis) Follow(host string, port int) error {
	if host == "" {
		return r.Client.Do(context.Background(), "REPLICAOF", "NO", "ONE").Err()
	}
	return r.Client.Do(context.Background(), "REPLICAOF", host, port).Err()
}

// Settings are those of a node that mirrors into this Redis.
func (r *Redis) Settings() Settings {
	return Settings{"WR_REDIS_HOST": Host, "WR_REDIS_PORT": strconv.Itoa(r.Port)}
}

// A Picture is what the mirror shows.
type Picture struct {
	Active   map[string]float64 // visitor → Unix seconds when last seen
	Queue    []string
	Released map[string]bool
}

// Picture reads the three keys in one transaction.
func (r *Redis) Picture() (Picture, error) {
	ctx := context.Background()
	var active *redis.ZSliceCmd
	var queue, released *redis.StringSliceCmd
	_, err := r.Client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		active = p.ZRangeWithScores(ctx, "wr:active", 0, -1)
		queue = p.LRange(ctx, "wr:queue", 0, -1)
		released = p.SMembers(ctx, "wr:released")
		return nil
	})
	if err != nil {
		return Picture{}, err
	}
	shown := Picture{Active: map[string]float64{}, Queue: queue.Val(), Released: map[string]bool{}}
	for _, z := range active.Val() {
		if id, ok := z.Member.(string); ok {
			shown.Active[id] = z.Score
		}
	}
	for _, id := range released.Val() {
		shown.Released[id] = true
	}
	return shown, nil
}

// Marker reads which entry the picture is of, and of which type the key of the queue is.
func (r *Redis) Marker() (index uint64, queue string, err error) {
	ctx := context.Background()
	if index, err = r.Client.HGet(ctx, "wr:mirror", "index").Uint64(); err != nil {
		return 0, "", err
	}
	queue, err = r.Client.Type(ctx, "wr:queue").Result()
	return index, queue, err
}
