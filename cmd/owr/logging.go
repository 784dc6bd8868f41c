package main

import (
	"io"
	"log/slog"
)

// logConfig says how much is logged, and for whom.
type logConfig struct {
	Level  slog.Level
	Format string // "text" or "json"
}

func (r *reader) log(f *logFlags) logConfig {
	cfg := logConfig{Format: r.oneOf("log-format", f.LogFormat, "text", "json")}
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	cfg.Level = levels[r.oneOf("log-level", f.LogLevel, "debug", "info", "warn", "error")]
	return cfg
}

// newLogger makes the one logger of the process.
func (c logConfig) newLogger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
