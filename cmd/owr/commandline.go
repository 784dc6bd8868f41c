package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// errHelp ends the parsing after the help has been printed. It is not a failure.
var errHelp = errors.New("help was asked for")

// A usageError is a command, a flag or a setting that cannot be used. Its text names it.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// A commandLine is what was asked for, before its texts have been made values.
type commandLine struct {
	command string
	flags   flags
	env     *environment
}

// parseCommandLine takes the flags from args and what they leave open from environ. Help goes to
// stdout and answers errHelp. A line without a command means serve.
func parseCommandLine(args, environ []string, stdout io.Writer) (*commandLine, error) {
	line := &commandLine{env: newEnvironment(environ)}
	parser, err := kong.New(&line.flags,
		kong.Name("owr"),
		kong.Description("owr is a waiting room in front of a site: it lets in as many visitors as the site can bear and keeps the rest in line. "+
			"Every flag is also a variable, --max-active is WR_MAX_ACTIVE, and the flag wins."),
		kong.Writers(stdout, io.Discard),
		kong.NoDefaultHelp(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 120}),
		kong.ValueFormatter(describe),
		kong.Resolvers(line.env),
		kong.WithHyphenPrefixedParameters(true), // --max-active -1 is answered by the check of the value
	)
	if err != nil {
		return nil, fmt.Errorf("command line: %w", err)
	}
	line.env.learn(parser.Model)

	switch {
	case len(args) == 0, args[0] != "-h" && strings.HasPrefix(args[0], "-") && args[0] != "--help":
		args = append([]string{"serve"}, args...)
	case args[0] == "help":
		args = append(slices.Clone(args[1:]), "--help")
	}
	parsed, err := parser.Parse(args)
	switch {
	case errors.Is(err, errHelp):
		return nil, errHelp
	case line.env.err != nil:
		return nil, line.env.err
	case err != nil:
		return nil, usagef("%v (owr help)", err)
	}
	line.command = parsed.Command()
	line.env.choose(parsed.Selected())
	return line, checkLast(args, parsed.Selected().Flags)
}

// checkLast refuses a flag at the end of the line that has no value. kong takes it as empty, and
// an empty token or secret is one that was never set.
func checkLast(args []string, known []*kong.Flag) error {
	last, long := strings.CutPrefix(args[len(args)-1], "--")
	for _, flag := range known {
		if long && !flag.IsBool() && (flag.Name == last || slices.Contains(flag.Aliases, last)) {
			return usagef("--%s needs a value", last)
		}
	}
	return nil
}

// describe adds the variable to the help of a flag.
func describe(value *kong.Value) string {
	if value.Flag == nil {
		return value.Help
	}
	if name := variableOf(value.Flag); name != "" {
		return value.Help + " (" + name + ")"
	}
	return value.Help
}

// warn logs each WR_ variable that no setting reads, with the name it may have been meant to have, and what was in doubt about the others.
func (l *commandLine) warn(log *slog.Logger) {
	for _, name := range l.env.unknown() {
		log.Warn("unknown variable is ignored", "variable", name, "nearest", l.env.nearest(name))
	}
	for _, d := range l.env.doubts {
		log.Warn(d.text, d.attrs...) //nolint:sloglint // the text is a constant where the doubt arises
	}
}
