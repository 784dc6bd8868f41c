package queue

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestStories plays testdata/*.story. A line is "limits name=value …" (counts, or seconds), or
// "at TIME COMMAND VISITOR [TIME] [-> OUTCOME]"; "look" asks without changing anything.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.story")
	if err != nil || len(files) < 9 {
		t.Fatalf("stories: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".story"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := story{t: t, table: NewTable(DefaultLimits())}
			for n, line := range strings.Split(string(text), "\n") {
				if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
					s.play(fmt.Sprintf("%s:%d: %s", file, n+1, line), line)
				}
			}
		})
	}
}

type story struct {
	t     *testing.T
	table *Table
	now   int64
	index uint64
}

func (s *story) play(where, line string) {
	s.t.Helper()
	action, want, asks := strings.Cut(line, "->")
	words := strings.Fields(action)
	if words[0] == "limits" {
		s.limits(where, words[1:])
		return
	}
	s.now = s.millis(where, words[1])
	visitor := ""
	if len(words) > 3 {
		visitor = words[3]
	}
	if got := s.do(where, words[2], visitor, words[min(4, len(words)):]); asks && got != strings.TrimSpace(want) {
		s.t.Errorf("%s: it was %q", where, got)
	}
	if err := s.table.CheckInvariants(); err != nil {
		s.t.Fatalf("%s: %v", where, err)
	}
}

func (s *story) do(where, verb, visitor string, rest []string) string {
	s.t.Helper()
	kind, ok := map[string]Kind{
		"arrive": KindArrive, "enter": KindEnter, "claim": KindClaim, "reserve": KindReserve, "leave": KindLeave,
		"touch": KindTouch, "ask": KindAsk, "stay": KindStay, "tick": KindTick, "resume": KindResume,
	}[verb]
	c := Command{Kind: kind, Token: MakeToken([16]byte([]byte(fmt.Sprintf("%-16s", visitor))))}
	switch {
	case verb == "look":
		v := s.table.Lookup(c.Token)
		return outcome(Decision{State: v.State, Position: v.Position})
	case !ok:
		s.t.Fatalf("%s: no such verb", where)
	case kind == KindTick:
		c.Token = Token{}
	case kind == KindResume:
		c.Token, c.Arg = Token{}, uint32(s.millis(where, visitor))
	case (kind == KindTouch || kind == KindAsk || kind == KindStay) && len(rest) > 0:
		c.Arg = uint32(s.millis(where, rest[0]))
	}
	s.index++
	b := reencode(s.t, Batch{Index: s.index, Now: 1_000_000 + s.now, Commands: []Command{c}})
	return outcome(s.table.Apply(b, nil)[0])
}

func outcome(d Decision) string {
	switch {
	case d.Refusal != Granted:
		return d.Refusal.String()
	case d.Position > 0:
		return fmt.Sprintf("%s %d", d.State, d.Position)
	}
	return d.State.String()
}

func (s *story) limits(where string, words []string) {
	s.t.Helper()
	c := LimitsChange{Now: 1_000_000 + s.now}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			s.t.Fatalf("%s: %v", where, err)
		}
		found := false
		for _, f := range Fields {
			if f.Name == name {
				found = true
				if !f.Count {
					n *= 1000
				}
				c.Set |= f.Field
				c.Values.Set(f.Field, n)
			}
		}
		if !found {
			s.t.Fatalf("%s: no limit %q", where, name)
		}
	}
	s.table.ApplyLimits(c)
}

func (s *story) millis(where, text string) int64 {
	s.t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatalf("%s: %v", where, err)
	}
	return d.Milliseconds()
}
