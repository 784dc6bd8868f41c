package main

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"
)

const (
	// logBacklog is how many lines wait for who takes the log.
	logBacklog = 4096
	// logFlush is how long the end of the process waits for them.
	logFlush = time.Second
)

// A logWriter hands lines on in a goroutine of its own. Whoever logs may have visitors to serve, and a pipe that nobody reads, or a disk that
// hangs, must not keep them. What finds the backlog full, or is not taken, is lost and counted. Write may be called by many.
type logWriter struct {
	to    io.Writer
	lines chan []byte
	lost  atomic.Uint64
	done  chan struct{}
}

func newLogWriter(to io.Writer) *logWriter {
	w := &logWriter{to: to, lines: make(chan []byte, logBacklog), done: make(chan struct{})}
	go w.run()
	return w
}

func (w *logWriter) run() {
	defer close(w.done)
	for line := range w.lines {
		if line == nil {
			return
		}
		if _, err := w.to.Write(line); err != nil {
			w.lost.Add(1)
		}
	}
}

// Write takes one line, and always takes it whole.
func (w *logWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- bytes.Clone(line):
	default:
		w.lost.Add(1)
	}
	return len(line), nil
}

// close returns when all that was written has been handed on, or logFlush has passed. What is written later may be lost.
func (w *logWriter) close() {
	limit := time.NewTimer(logFlush)
	defer limit.Stop()
	select {
	case w.lines <- nil: // the end
	case <-limit.C:
		return
	}
	select {
	case <-w.done:
	case <-limit.C:
	}
}
