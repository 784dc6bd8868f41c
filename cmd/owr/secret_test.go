package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestSecretsFromFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("s3cret word\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, get := range map[string]func(serveConfig) string{
		"WR_ADMIN_TOKEN_FILE":      func(c serveConfig) string { return string(c.AdminToken) },
		"WR_ADMIN_READ_TOKEN_FILE": func(c serveConfig) string { return string(c.AdminReadToken) },
		"WR_CLUSTER_SECRET_FILE":   func(c serveConfig) string { return string(c.ClusterSecret) },
		"WR_REDIS_PASS_FILE":       func(c serveConfig) string { return string(c.Redis.Pass) },
		"WR_REDIS_PASSWORD_FILE":   func(c serveConfig) string { return string(c.Redis.Pass) },
		"WR_REDIS_USER_FILE":       func(c serveConfig) string { return c.Redis.User },
		"WR_REDIS_USERNAME_FILE":   func(c serveConfig) string { return c.Redis.User },
	} {
		if got := get(mustConfigure(t, []string{name + "=" + path})); got != "s3cret word" {
			t.Errorf("%s: got %q", name, got)
		}
		_, err := configure([]string{name + "=/no/such/file"})
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "/no/such/file") {
			t.Errorf("%s, unreadable: %v", name, err)
		}
	}

	// The command line wins, whichever of the two forms it uses.
	if cfg := mustConfigure(t, []string{"WR_ADMIN_TOKEN_FILE=" + path}, "--admin-token=flag"); cfg.AdminToken != "flag" {
		t.Error("--admin-token does not win over WR_ADMIN_TOKEN_FILE")
	}
	if cfg := mustConfigure(t, []string{"WR_ADMIN_TOKEN=variable"}, "--admin-token-file="+path); cfg.AdminToken != "s3cret word" {
		t.Error("--admin-token-file does not win over WR_ADMIN_TOKEN")
	}

	if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := configure([]string{"WR_ADMIN_TOKEN_FILE=" + path}); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("an empty file: %v", err)
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	cfg := mustConfigure(t, []string{"WR_ADMIN_TOKEN=hunter2", "WR_ADMIN_READ_TOKEN=hunter22", "WR_CLUSTER_SECRET=hunter2", "WR_REDIS_PASS=hunter2"})
	var log bytes.Buffer
	logConfig{Format: "json"}.newLogger(&log).Info("start", "token", cfg.AdminToken, "config", fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg.Redis))
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("a secret is shown: %s", log.String())
	}
	for _, environ := range [][]string{
		{"WR_BACKEND_URL=http://user:hunter2@shop"},
		{"WR_BACKEND_URL=http://user:hunter2@shop:x"},
		{"WR_REDIS_PASS=hunter2", "WR_REDIS_PASSWORD=hunter22"},
		{"WR_ADMIN_TOKEN=hunter2", "WR_ADMIN_TOKEN_FILE=/x"},
	} {
		if _, err := configure(environ); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", environ, err)
		}
	}
	if _, _, stderr := command(t, nil, "serve", "--admin-token", "--hunter2", "--redis-port=x"); strings.Contains(stderr, "hunter2") {
		t.Errorf("a secret is shown: %s", stderr)
	}
}

// doubts are what the log of a command line with these settings says of them.
func doubts(t *testing.T, environ []string, args ...string) string {
	t.Helper()
	line, err := parseCommandLine(append([]string{"serve"}, args...), environ, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := line.serveConfig(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	line.warn(logConfig{Format: "text"}.newLogger(&log))
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("a secret is shown: %s", log.String())
	}
	return log.String()
}

func TestEverySecretMayComeFromAFile(t *testing.T) {
	line, err := parseCommandLine([]string{"serve"}, nil, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for name, variable := range line.env.flags {
		if !strings.HasSuffix(name, "-token") && !strings.HasSuffix(name, "-secret") && !strings.HasSuffix(name, "-pass") {
			continue
		}
		found++
		if line.env.flags[name+"-file"] != variable+"_FILE" {
			t.Errorf("%s has no file", variable)
		}
	}
	if found < 4 {
		t.Errorf("%d secrets, want four at least", found)
	}
}

func TestTheModeOfASecretsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for _, c := range []struct {
		mode            os.FileMode
		warned, refused bool
	}{{0o600, false, false}, {0o400, false, false}, {0o640, true, false}, {0o444, true, false}, {0o644, true, false}, {0o660, true, false}, {0o620, true, false}, {0o666, false, true}, {0o602, false, true}} {
		if err := os.WriteFile(path, []byte("hunter2-hunter2-hunter2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if c.refused {
			if _, err := configure([]string{"WR_CLUSTER_SECRET_FILE=" + path}); err == nil || !strings.Contains(err.Error(), "WR_CLUSTER_SECRET_FILE") || !strings.Contains(err.Error(), "written by everybody") {
				t.Errorf("%v: %v, want a refusal", c.mode, err)
			}
		} else if log := doubts(t, []string{"WR_CLUSTER_SECRET_FILE=" + path}); (strings.Count(log, "\n") == 1 && strings.Contains(log, path)) != c.warned {
			t.Errorf("%v: %q, want a warning: %v", c.mode, log, c.warned)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// A secret may come through a pipe, as from a password store. What never ends is refused and not read for ever.
func TestASecretFromAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o666); err != nil {
		t.Skipf("no pipes with a name here: %v", err)
	}
	go func() {
		if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			f.WriteString("hunter2-hunter2-hunter2\n")
			f.Close()
		}
	}()
	if cfg := mustConfigure(t, []string{"WR_ADMIN_TOKEN_FILE=" + path}); cfg.AdminToken != "hunter2-hunter2-hunter2" {
		t.Errorf("%d bytes", len(cfg.AdminToken))
	}
	if _, err := configure([]string{"WR_ADMIN_TOKEN_FILE=/dev/zero"}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("/dev/zero: %v", err)
	}
}

func TestSecretsOnTheCommandLineAreInDoubt(t *testing.T) {
	long := strings.Repeat("hunter2-", 4)
	for _, flag := range []string{"--admin-token", "--admin-read-token", "--cluster-secret", "--redis-pass"} {
		if log := doubts(t, nil, flag+"="+long); strings.Count(log, "\n") != 1 || !strings.Contains(log, flag) || !strings.Contains(log, flag+"-file") {
			t.Errorf("%s: %q, want one warning that names it and the file", flag, log)
		}
	}
	if log := doubts(t, []string{"WR_ADMIN_TOKEN=" + long, "WR_CLUSTER_SECRET=" + long, "WR_REDIS_PASS=" + long}, "--redis-user=owr"); log != "" {
		t.Errorf("variables: %q, want nothing", log)
	}
}

func TestTokensThatAreWeak(t *testing.T) {
	if log := doubts(t, []string{"WR_ADMIN_TOKEN=hunter2-hunter2"}); strings.Count(log, "\n") != 1 || !strings.Contains(log, "WR_ADMIN_TOKEN") {
		t.Errorf("a short token: %q, want a warning that names it", log)
	}
	if log := doubts(t, []string{"WR_ADMIN_TOKEN=hunter2-hunter2-"}); log != "" {
		t.Errorf("a token of 16 bytes: %q", log)
	}
	for _, environ := range [][]string{
		{"WR_ADMIN_TOKEN=hunter2\nhunter2"},
		{"WR_ADMIN_TOKEN=hünter2"},
		{"WR_ADMIN_TOKEN= hunter2"},
		{"WR_ADMIN_TOKEN=hunter2", "WR_ADMIN_READ_TOKEN=hunter2"},
	} {
		if _, err := configure(environ); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "WR_ADMIN") {
			t.Errorf("%q: %v, want a refusal that names the variable and not the value", environ, err)
		}
	}
}

// The file of a private key is held to the same, of the node's listeners and of the cluster.
func TestTheModeOfAPrivateKey(t *testing.T) {
	p := newPaper(t)
	dir := t.TempDir()
	made(t, "cert", "node", "n1", "--ensure", "--ca", dir, "--out", dir)
	own := []string{"WR_TLS_CERT=" + p.cert, "WR_TLS_KEY=" + p.key}
	node := []string{
		"WR_CLUSTER_TLS_CERT=" + filepath.Join(dir, "n1.crt"), "WR_CLUSTER_TLS_KEY=" + filepath.Join(dir, "n1.key"),
		"WR_CLUSTER_TLS_CA=" + filepath.Join(dir, "ca.crt"), "WR_NODE_ID=n1",
	}
	for _, c := range []struct {
		environ       []string
		setting, path string
	}{{own, "WR_TLS_KEY", p.key}, {node, "WR_CLUSTER_TLS_KEY", filepath.Join(dir, "n1.key")}} {
		if log := doubts(t, c.environ); log != "" {
			t.Errorf("%s: %q, want nothing of a file for its owner alone", c.setting, log)
		}
		if err := os.Chmod(c.path, 0o644); err != nil {
			t.Fatal(err)
		}
		if log := doubts(t, c.environ); strings.Count(log, "\n") != 1 || !strings.Contains(log, c.path) || !strings.Contains(log, c.setting) {
			t.Errorf("%s: %q, want a warning of a file that all may read", c.setting, log)
		}
		if err := os.Chmod(c.path, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := configure(c.environ); err == nil || !strings.Contains(err.Error(), c.setting) || !strings.Contains(err.Error(), "written by everybody") {
			t.Errorf("%s: %v, want a refusal of a file that all may write", c.setting, err)
		}
	}
}
