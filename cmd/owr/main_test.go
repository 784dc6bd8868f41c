package main

import (
	"bytes"
	"strings"
	"testing"
)

// command runs one command line that ends by itself and answers what it said.
func command(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, environ, &out, &err)
	return code, out.String(), err.String()
}

func TestHelpAndVersionExitZero(t *testing.T) {
	for _, args := range []string{
		"version", "help", "--help", "-h", "help serve", "help demo", "serve --help", "serve -h", "demo --help", "status --help",
		"version --help", "help --help", "serve --max-active 3 --help", "healthcheck --help", "origin --help",
		"cluster --help", "help cluster", "cluster join --help", "help cluster remove",
	} {
		// A value that cannot be used must not stand in the way of the help.
		code, out, err := command(t, []string{"WR_MAX_ACTIVE=-1"}, strings.Fields(args)...)
		if code != 0 || strings.TrimSpace(out) == "" || err != "" {
			t.Errorf("owr %s: exit %d, %d bytes on stdout, stderr %q; want 0, some, none", args, code, len(out), err)
		}
	}
}

func TestHelpNamesFlagsAndVariables(t *testing.T) {
	_, out, _ := command(t, nil, "serve", "--help")
	for _, want := range []string{"--max-active", "WR_MAX_ACTIVE", "--redis-tls", "WR_REDIS_TLS", "WR_PAGE_FILE", "WR_INSECURE_CLUSTER"} {
		if !strings.Contains(out, want) {
			t.Errorf("owr serve --help does not name %s", want)
		}
	}
	_, out, _ = command(t, nil, "help")
	for _, want := range []string{"serve", "demo", "status", "version", "help"} {
		if !strings.Contains(out, want) {
			t.Errorf("owr help does not name %s", want)
		}
	}
}

func TestHelpShowsNoSecret(t *testing.T) {
	_, out, _ := command(t, []string{"WR_ADMIN_TOKEN=hunter2", "WR_REDIS_PASS=hunter2"}, "serve", "--cluster-secret=hunter2", "--help")
	if strings.Contains(out, "hunter2") {
		t.Error("the help shows a secret")
	}
}

func TestUsageErrorsExitTwoWithOneLine(t *testing.T) {
	for _, c := range []struct{ args, named string }{
		{"nonsense", "nonsense"},
		{"help nonsense", "nonsense"},
		{"serve extra", "extra"},
		{"serve --no-such-flag", "no-such-flag"},
		{"--no-such-flag", "no-such-flag"},
		{"serve --max-active=many", "many"},
		{"serve --max-active many", "--max-active"},
		{"serve --max-active -1", "-1"},
		{"--max-active -1", "--max-active (WR_MAX_ACTIVE)"},
		{"serve --max-active", "--max-active"},
		{"serve --admin-token", "--admin-token"},
		{"demo --port=x", "port"},
		{"demo --port=0", "--port"},
		{"demo --port=65534", "65534"},
		{"demo --listen=:80", "listen"},
		{"status --admin=nowhere", "nowhere"},
		{"healthcheck --listen=1:2:3", "1:2:3"},
		{"cluster", "list"},
		{"cluster nonsense", "nonsense"},
		{"cluster list extra", "extra"},
		{"cluster list --admin=nowhere", "nowhere"},
		{"cluster join n4", "address"},
		{"cluster join n4 nowhere", "nowhere"},
		{"cluster join n=4 n4:7000", "n=4"},
		{"cluster join n4 n4:7000 --edge=maybe", "maybe"},
		{"cluster promote", "id"},
		{"cluster remove n3 n4", "n4"},
		{"cluster remove n3 --admin-token", "--admin-token"},
		{"cluster transfer --admin-token-file=/no/such/file", "/no/such/file"},
	} {
		code, out, err := command(t, nil, strings.Fields(c.args)...)
		if code != 2 || strings.Count(err, "\n") != 1 || !strings.Contains(err, c.named) || out != "" {
			t.Errorf("owr %s: exit %d, stdout %q, stderr %q; want 2 and one line with %q", c.args, code, out, err, c.named)
		}
	}
}

func TestVersionNamesTheLibraries(t *testing.T) {
	_, out, _ := command(t, nil, "version")
	if !strings.HasPrefix(out, "owr ") || !strings.Contains(out, "go1.") {
		t.Errorf("owr version says %q", out)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("a\nb\r\n\nc"); got != "a; b; c" {
		t.Errorf("oneLine: %q", got)
	}
}
