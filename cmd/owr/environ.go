package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// spellings are the other names of variables.
var spellings = map[string]string{
	"WR_REDIS_USER":      "WR_REDIS_USERNAME",
	"WR_REDIS_USER_FILE": "WR_REDIS_USERNAME_FILE",
	"WR_REDIS_PASS":      "WR_REDIS_PASSWORD",
	"WR_REDIS_PASS_FILE": "WR_REDIS_PASSWORD_FILE",
}

// emptyCounts are the variables that mean something when they are empty. Any other empty
// variable is as good as none, so that compose files may pass on what is not set.
var emptyCounts = map[string]bool{"WR_REDIS_HOST": true}

// environment gives kong the values of flags that the command line leaves open, and remembers
// which variable each came from.
type environment struct {
	values map[string]string // every WR_ variable
	names  []string          // those that some flag reads, sorted
	flags  map[string]string // flag of the command → its variable; empty when it has none
	origin map[string]string // flag of the command → the variable that it was read from
	err    error             // the first contradiction
	doubts []doubt           // what can be used and had better be otherwise
}

// A doubt is for the log, which is there once all settings have been read.
type doubt struct {
	text  string
	attrs []any
}

func (e *environment) warn(text string, attrs ...any) {
	e.doubts = append(e.doubts, doubt{text, attrs})
}

func newEnvironment(environ []string) *environment {
	e := &environment{values: map[string]string{}, flags: map[string]string{}, origin: map[string]string{}}
	for _, line := range environ {
		if name, value, _ := strings.Cut(line, "="); strings.HasPrefix(name, "WR_") {
			e.values[name] = value
		}
	}
	return e
}

// learn takes the names of all variables from the flags of all commands.
func (e *environment) learn(app *kong.Application) {
	for _, command := range app.Children {
		for _, flag := range command.Flags {
			if name := variableOf(flag); name != "" {
				e.names = append(e.names, name)
				if other, ok := spellings[name]; ok {
					e.names = append(e.names, other)
				}
			}
		}
	}
	slices.Sort(e.names)
	e.names = slices.Compact(e.names)
}

// choose notes the variables of the flags of the command that runs.
func (e *environment) choose(command *kong.Node) {
	for _, flag := range command.Flags {
		e.flags[flag.Name] = variableOf(flag)
	}
}

// Validate is there for kong, which asks each resolver whether it fits the flags.
func (*environment) Validate(*kong.Application) error { return nil }

// Resolve answers the value of a flag that is not on the command line, or nil.
func (e *environment) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	name := variableOf(flag)
	if name == "" {
		return nil, nil
	}
	value, set := e.lookup(name)
	if other, ok := spellings[name]; ok {
		second, also := e.lookup(other)
		switch {
		case set && also && second != value:
			e.fail(usagef("%s and %s are two names of one setting and differ: set one of them", name, other))
		case also:
			name, value, set = other, second, true
		}
	}
	if !set {
		return nil, nil
	}
	e.origin[flag.Name] = name
	return value, nil
}

func (e *environment) lookup(name string) (string, bool) {
	value, set := e.values[name]
	return value, set && (value != "" || emptyCounts[name])
}

// fail keeps the first contradiction. kong would put words of its own around an error of Resolve.
func (e *environment) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// describe names a flag and the variable that it was read from, or would be.
func (e *environment) describe(flag string) string {
	if flag == strings.ToUpper(flag) { // not a flag but an argument, as the help has it
		return flag
	}
	name, ok := e.origin[flag]
	if !ok {
		name = e.flags[flag]
	}
	if name == "" {
		return "--" + flag
	}
	return fmt.Sprintf("--%s (%s)", flag, name)
}

// unknown lists the WR_ variables that nothing reads, sorted.
func (e *environment) unknown() []string {
	var names []string
	for name := range e.values {
		if _, known := slices.BinarySearch(e.names, name); !known {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// nearest is the known name with the fewest edits between it and name.
func (e *environment) nearest(name string) string {
	best, fewest := "", 0
	for _, known := range e.names {
		if d := distance(name, known); best == "" || d < fewest {
			best, fewest = known, d
		}
	}
	return best
}

// distance counts the inserted, deleted, changed and swapped neighboring bytes between two
// names (optimal string alignment).
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := range len(a) {
		before, last, row := rows[0], rows[1], rows[2]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		rows = [3][]int{last, row, before}
	}
	return rows[1][len(b)]
}
