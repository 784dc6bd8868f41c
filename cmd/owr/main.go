// Command owr runs one node of a waiting room, a demonstration of three, or asks a running
// node how it is.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/openwaitingroom/owr/cluster"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // it started, or tried to, and something outside failed
	exitUsage   = 2 // a command, a flag or a setting that cannot be used
	exitRemoved = 3 // the node was removed from its cluster: starting it again changes nothing
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// The first signal asks for an orderly end. From then on signals have their usual effect, so
	// that a second Ctrl-C ends a process that is stuck.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run carries out one command line and returns the exit code. It reads the environment from
// environ alone ("NAME=value"), and an error is one line on stderr. A canceled ctx ends the
// command in good order.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, environ, stdout, stderr)
	var bad *usageError
	switch {
	case err == nil, errors.Is(err, errHelp):
		return exitOK
	case errors.As(err, &bad):
		fmt.Fprintln(stderr, "owr: "+oneLine(bad.Error()))
		return exitUsage
	case errors.Is(err, cluster.ErrRemoved):
		return exitRemoved
	case errors.Is(err, errLogged):
		return exitFailure
	default:
		fmt.Fprintln(stderr, "owr: "+oneLine(err.Error()))
		return exitFailure
	}
}

// errLogged ends a command whose log has told the reason already.
var errLogged = errors.New("the log has the reason")

func dispatch(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	line, err := parseCommandLine(args, environ, stdout)
	if err != nil {
		return err
	}
	switch line.command {
	case "serve":
		cfg, err := line.serveConfig()
		if err != nil {
			return err
		}
		out := newLogWriter(stderr)
		defer out.close()
		cfg.linesLost = out.lost.Load
		log := cfg.Log.newLogger(out)
		line.warn(log)
		if err := serve(ctx, cfg, log); err != nil {
			log.Error("the node ended with an error", "err", err)
			return fmt.Errorf("%w: %w", errLogged, err)
		}
		return nil
	case "demo":
		cfg, err := line.demoConfig()
		if err != nil {
			return err
		}
		log := cfg.Log.newLogger(stderr)
		line.warn(log)
		if err := demo(ctx, cfg, stdout, log); err != nil {
			log.Error("the demo ended with an error", "err", err)
			return errLogged
		}
		return nil
	case "status":
		f := &line.flags.Status
		token, err := line.readerToken(&f.readerFlags)
		if err != nil {
			return err
		}
		node, err := line.adminNode(&f.dialFlags)
		if err != nil {
			return err
		}
		return printStatus(ctx, node, token, stdout)
	case "cluster list", "cluster join <id> <address>", "cluster promote <id>", "cluster remove <id>", "cluster transfer", "cluster transfer <id>":
		return line.cluster(ctx, stdout)
	case "keys list", "keys rotate", "keys remove <id>":
		return line.keys(ctx, stdout)
	case "backup":
		cfg, err := line.backupConfig()
		if err != nil {
			return err
		}
		return backup(ctx, cfg, stdout, stderr)
	case "restore":
		cfg, err := line.restoreConfig()
		if err != nil {
			return err
		}
		return restore(cfg, stdout)
	case "recover":
		cfg, err := line.recoverConfig()
		if err != nil {
			return err
		}
		return recoverNode(cfg, stdout)
	case "cert ca", "cert node <id>", "cert client <name>", "cert server <host>":
		return line.cert(stdout)
	case "healthcheck":
		address, err := line.dialAddress("listen", line.flags.Healthcheck.Listen)
		if err != nil {
			return err
		}
		return healthcheck(ctx, address, line.flags.Healthcheck.TLSCert != "")
	case "origin":
		address, err := line.listenAddress("listen", line.flags.Origin.Listen)
		if err != nil {
			return err
		}
		return origin(ctx, address, stdout)
	case "version":
		return printVersion(stdout)
	default:
		return fmt.Errorf("command %s is not wired", line.command)
	}
}

// oneLine joins the lines of a text, for readers who count on one line an error.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
