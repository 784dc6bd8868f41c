package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func hangs(until <-chan struct{}) func() error {
	return func() error {
		<-until
		return nil
	}
}

// A node that hangs while it stops ends all the same, and says where it hangs.
func TestAStopEndsInTime(t *testing.T) {
	var log, dump bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	wrong := errors.New("as it ended")
	if err := inTime(time.Minute, func() error { return wrong }, logger, &dump); !errors.Is(err, wrong) || log.Len()+dump.Len() > 0 {
		t.Errorf("in time: %v, log %q, %d bytes", err, &log, dump.Len())
	}
	until := make(chan struct{})
	defer close(until)
	err := inTime(20*time.Millisecond, hangs(until), logger, &dump)
	if err == nil || !strings.Contains(err.Error(), "has not ended") || !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(dump.String(), "hangs") {
		t.Errorf("not in time: %v, log %q, goroutines %q", err, &log, &dump)
	}
}
