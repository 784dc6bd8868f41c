package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/openwaitingroom/owr/internal/freeport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eventually polls until ok or the deadline, and fails the test with what describe says.
func eventually(t *testing.T, within time.Duration, ok func() bool, describe func() string) time.Duration {
	t.Helper()
	begun := time.Now()
	for !ok() {
		if time.Since(begun) > within {
			t.Fatalf("not within %v: %s", within, describe())
		}
		<-time.After(5 * time.Millisecond)
	}
	return time.Since(begun)
}

// server is a redis-server of the test's own.
type server struct {
	t       *testing.T
	addr    string
	dir     string
	args    []string
	options redis.Options // how the test itself logs in
	cmd     *exec.Cmd
}

func freePort(t *testing.T) string {
	t.Helper()
	return strconv.Itoa(freeport.TCP(t))
}

// startRedis runs a redis-server without persistence until the test ends. portOption is "--port",
// or "--tls-port" with more of args.
func startRedis(t *testing.T, args ...string) *server {
	t.Helper()
	port := freePort(t)
	s := &server{t: t, addr: "127.0.0.1:" + port, dir: t.TempDir(), args: append([]string{"--port", port}, args...)}
	s.options = redis.Options{Addr: s.addr, Protocol: 2, DisableIdentity: true}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		s.t.Fatal("redis-server is missing: apt-get install -y redis-server")
	}
	s.cmd = exec.Command(binary, append([]string{
		"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.dir, "--logfile", s.dir + "/log",
	}, s.args...)...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("redis-server %d at %s", s.cmd.Process.Pid, s.addr)
	client := s.client()
	defer client.Close()
	eventually(s.t, 10*time.Second, func() bool { return client.Ping(context.Background()).Err() == nil }, func() string {
		log, _ := os.ReadFile(s.dir + "/log")
		return "redis-server does not answer: " + string(log)
	})
}

func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	s.signal(syscall.SIGKILL)
	s.cmd.Wait()
	s.cmd = nil
}

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Error(err)
	}
}

func (s *server) client() *redis.Client {
	options := s.options
	return redis.NewClient(&options)
}

// do runs one command of the test.
func (s *server) do(args ...any) any {
	s.t.Helper()
	client := s.client()
	defer client.Close()
	value, err := client.Do(context.Background(), args...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		s.t.Fatalf("%v: %v", args, err)
	}
	return value
}

// look reads what is shown under the prefix in one transaction.
func look(ctx context.Context, client *redis.Client, prefix string) (picture, map[string]string, error) {
	p := picture{active: map[string]int64{}, released: map[string]bool{}}
	pipe := client.TxPipeline()
	active := pipe.ZRangeWithScores(ctx, prefix+"active", 0, -1)
	line := pipe.LRange(ctx, prefix+"queue", 0, -1)
	released := pipe.SMembers(ctx, prefix+"released")
	mark := pipe.HGetAll(ctx, prefix+"mirror")
	if _, err := pipe.Exec(ctx); err != nil {
		return p, nil, err
	}
	for _, z := range active.Val() {
		p.active[z.Member.(string)] = int64(z.Score)
	}
	for _, m := range released.Val() {
		p.released[m] = true
	}
	p.queue = line.Val()
	return p, mark.Val(), nil
}

// differs says in what got is not the picture wanted; scores may trail by one second.
func differs(got, want picture) string {
	var out []string
	if fmt.Sprint(got.queue) != fmt.Sprint(want.queue) {
		out = append(out, fmt.Sprintf("queue has %d visitors, want %d", len(got.queue), len(want.queue)))
		for i := range min(len(got.queue), len(want.queue)) {
			if got.queue[i] != want.queue[i] {
				out = append(out, fmt.Sprintf("first difference at %d", i))
				break
			}
		}
	}
	if !maps.Equal(got.released, want.released) {
		out = append(out, fmt.Sprintf("released has %d, want %d", len(got.released), len(want.released)))
	}
	wrong := 0
	for id, at := range want.active {
		if d := got.active[id] - at; d < -1 || d > 1 {
			wrong++
		}
	}
	if wrong > 0 || len(got.active) != len(want.active) {
		out = append(out, fmt.Sprintf("active has %d, want %d; %d scores or members are wrong", len(got.active), len(want.active), wrong))
	}
	return strings.Join(out, "; ")
}

// shows waits until Redis shows the room, and nothing but the four keys is there.
func shows(t *testing.T, client *redis.Client, prefix string, r *room, within time.Duration) time.Duration {
	t.Helper()
	var got string
	return eventually(t, within, func() bool {
		p, mark, err := look(context.Background(), client, prefix)
		if err != nil {
			got = err.Error()
			return false
		}
		if got = differs(p, r.picture()); got != "" {
			return false
		}
		if mark["term"] == "" {
			got = "no marker"
			return false
		}
		if keys, _ := client.Keys(context.Background(), "*").Result(); len(keys) > 4 {
			got = fmt.Sprintf("keys %v", keys)
			return false
		}
		return true
	}, func() string { return got })
}

// running is a mirror at work.
type running struct {
	*Writer
	log      *logBuffer
	registry *prometheus.Registry
	stop     func() // ends the term, and waits
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) count(part string) int { return strings.Count(l.String(), part) }

// run starts a mirror of the room and leads in the term until the test ends.
func run(t *testing.T, r *room, addr string, term uint64, change func(*Config)) *running {
	t.Helper()
	m := &running{log: &logBuffer{}, registry: prometheus.NewRegistry()}
	cfg := Config{
		Source: r, Node: "n" + strconv.FormatUint(term, 10), Cluster: func() string { return "c1" }, Addr: addr,
		Logger:     slog.New(slog.NewTextHandler(io.MultiWriter(m.log, t.Output()), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Registerer: m.registry,
	}
	if change != nil {
		change(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.Writer = w
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, term) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(300 * time.Millisecond):
			t.Error("Run does not return within 300 ms of the end of its term")
			<-done
		}
	})
	t.Cleanup(func() {
		m.stop()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}
