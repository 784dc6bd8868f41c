package cluster

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLog brings Raft's log lines onto slog, with their keys in our spelling.
type raftLog struct {
	hclog.Logger // the null logger: what is not overridden goes nowhere
	log          *slog.Logger
	name         string
	args         []any
	said         *said
}

func newRaftLog(log *slog.Logger) hclog.Logger {
	return &raftLog{Logger: hclog.NewNullLogger(), log: log, name: "raft", said: newSaid()}
}

// said remembers which lines have been written lately. A peer that is down makes Raft complain several
// times a second; once every repeatEvery is news enough. Any number of callers.
type said struct {
	mu sync.Mutex
	at map[string]time.Time
}

func newSaid() *said { return &said{at: map[string]time.Time{}} }

const repeatEvery = 10 * time.Second

func (s *said) lately(line string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.at[line]) < repeatEvery {
		return true
	}
	if len(s.at) > 100 {
		clear(s.at)
	}
	s.at[line] = now
	return false
}

// routine lines are true and tell an operator nothing: what Raft does all day, or what a commit
// notice causes on a follower that lags.
var routine = map[string]bool{
	"failed to get previous log":             true,
	"previous log term mis-match":            true,
	"entering follower state":                true,
	"pipelining replication":                 true,
	"aborting pipeline replication":          true,
	"votes needed":                           true,
	"starting snapshot up to":                true,
	"compacting logs":                        true,
	"snapshot complete up to":                true,
	"creating new snapshot":                  true,
	"reaping snapshot":                       true,
	"initial configuration":                  true,
	"pre-vote received":                      true,
	"pre-vote granted":                       true,
	"asking for vote":                        true,
	"asking for pre-vote":                    true,
	"vote granted":                           true,
	"entering candidate state":               true,
	"entering leader state":                  true,
	"election won":                           true,
	"pre-vote successful, starting election": true,

	"unable to get address for server, using fallback address": true, // a member that joined: its address is in the configuration
}

// Log implements hclog.Logger.
func (r *raftLog) Log(level hclog.Level, msg string, args ...any) {
	at := slog.LevelDebug
	switch level {
	case hclog.Info:
		at = slog.LevelInfo
	case hclog.Warn:
		at = slog.LevelWarn
	case hclog.Error:
		at = slog.LevelError
	}
	if at < slog.LevelError && routine[msg] {
		at = slog.LevelDebug
	}
	if !r.log.Enabled(context.Background(), at) {
		return
	}
	if at >= slog.LevelWarn && r.said.lately(msg+" "+peerIn(args)) {
		return
	}
	all := make([]any, 0, len(r.args)+len(args))
	for i, v := range append(append([]any(nil), r.args...), args...) {
		if key, ok := v.(string); ok && i%2 == 0 {
			if key == "error" {
				key = "err"
			}
			v = strings.ReplaceAll(key, "-", "_")
		}
		all = append(all, v)
	}
	if len(all)%2 == 1 {
		all = append(all, "")
	}
	r.log.Log(context.Background(), at, "raft: "+msg, all...) //nolint:sloglint // the library brings the message
}

// peerIn is the peer that a line speaks of.
func peerIn(args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "peer" || args[i] == "id" {
			return fmt.Sprint(args[i+1])
		}
	}
	return ""
}

// Trace implements hclog.Logger.
func (r *raftLog) Trace(msg string, args ...any) { r.Log(hclog.Trace, msg, args...) }

// Debug implements hclog.Logger.
func (r *raftLog) Debug(msg string, args ...any) { r.Log(hclog.Debug, msg, args...) }

// Info implements hclog.Logger.
func (r *raftLog) Info(msg string, args ...any) { r.Log(hclog.Info, msg, args...) }

// Warn implements hclog.Logger.
func (r *raftLog) Warn(msg string, args ...any) { r.Log(hclog.Warn, msg, args...) }

// Error implements hclog.Logger.
func (r *raftLog) Error(msg string, args ...any) { r.Log(hclog.Error, msg, args...) }

// With implements hclog.Logger.
func (r *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{Logger: r.Logger, log: r.log, name: r.name, said: r.said, args: append(append([]any(nil), r.args...), args...)}
}

// Named implements hclog.Logger.
func (r *raftLog) Named(name string) hclog.Logger { return r.ResetNamed(r.name + "." + name) }

// ResetNamed implements hclog.Logger.
func (r *raftLog) ResetNamed(name string) hclog.Logger {
	return &raftLog{Logger: r.Logger, log: r.log, name: name, args: r.args, said: r.said}
}

// Name implements hclog.Logger.
func (r *raftLog) Name() string { return r.name }

// IsDebug implements hclog.Logger; Raft asks before it spells out details.
func (r *raftLog) IsDebug() bool { return r.log.Enabled(context.Background(), slog.LevelDebug) }

// StandardLogger implements hclog.Logger.
func (r *raftLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(io.Discard, "", 0)
}
