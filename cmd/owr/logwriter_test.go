package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestLogWriterHandsEverythingOn(t *testing.T) {
	var to bytes.Buffer
	w := newLogWriter(&to)
	line := []byte("line 0\n")
	for i := range 1000 {
		line = fmt.Appendf(line[:0], "line %d\n", i) // who logs uses its buffer again
		if n, err := w.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.close()
	if got := strings.Split(strings.TrimSpace(to.String()), "\n"); len(got) != 1000 || got[999] != "line 999" || w.lost.Load() != 0 {
		t.Errorf("%d lines, the last is %q, %d lost", len(got), got[len(got)-1], w.lost.Load())
	}
}

// A pipe that nobody reads keeps nobody who logs, and lines that are lost are counted.
func TestLogWriterWaitsForNobody(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	defer to.Close()
	w := newLogWriter(to)
	line := []byte(strings.Repeat("x", 99) + "\n")
	begun := time.Now()
	const all = 3 * logBacklog
	for range all {
		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v", took)
	}
	lost := w.lost.Load()
	if lost < all/3 {
		t.Errorf("%d of %d lines are lost: the pipe holds that many?", lost, all)
	}
	begun = time.Now()
	w.close() // in time, though nothing moves
	if took := time.Since(begun); took > 3*logFlush {
		t.Errorf("its end took %v", took)
	}
	// Somebody reads again.
	lines := bufio.NewScanner(from)
	for range all - int(lost) {
		if !lines.Scan() || lines.Text() != strings.TrimSpace(string(line)) {
			t.Fatalf("got %q, %v", lines.Text(), lines.Err())
		}
	}
}
