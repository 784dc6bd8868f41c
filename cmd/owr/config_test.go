package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// configure makes the configuration of one serve command, without starting anything.
func configure(environ []string, args ...string) (serveConfig, error) {
	line, err := parseCommandLine(append([]string{"serve"}, args...), environ, new(bytes.Buffer))
	if err != nil {
		return serveConfig{}, err
	}
	return line.serveConfig()
}

func mustConfigure(t *testing.T, environ []string, args ...string) serveConfig {
	t.Helper()
	cfg, err := configure(environ, args...)
	if err != nil {
		t.Fatalf("%q %q: %v", environ, args, err)
	}
	return cfg
}

func TestDefaultsAreTheDocumentedOnes(t *testing.T) {
	cfg := mustConfigure(t, nil)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Backend.String(); got != "http://backend:8080" {
		t.Errorf("backend %s", got)
	}
	cfg.Backend = nil
	want := serveConfig{
		Listen: ":8080", BackendConnectTimeout: 5 * time.Second, BackendTimeout: 60 * time.Second, MainURL: "/",
		CookieName: "wr_token", QueueMode: "redirect", QueueStatus: 503, FrameAncestors: "'self'",
		Limits: firstHit(queue.DefaultLimits()), ReleaseInterval: 2 * time.Second,
		MaxHeader: 16 << 10, HeaderTimeout: 10 * time.Second, StallTimeout: 30 * time.Second, IdleTimeout: 60 * time.Second, PollMin: 2 * time.Second, PollMax: 30 * time.Second,
		NoQuorum: "hold", NoQuorumPerMinute: 60, PollRPS: 10, MinRate: 250, Bind: "off", Pow: "off", PowBits: 18, PowWait: 30 * time.Second,
		Redis:  redisConfig{Host: "127.0.0.1", Port: 6379, KeyPrefix: "wr:", PoolSize: 200, PoolIdleTimeout: 10 * time.Second},
		NodeID: host, ClusterListen: "127.0.0.1:7000", ClusterAdvertise: "127.0.0.1:7000", DataDir: "./owr-data",
		AdminListen: "127.0.0.1:9090", Log: logConfig{Format: "text"},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

func firstHit(l queue.Limits) queue.Limits {
	l.FirstHitTTL = 20 * time.Second
	return l
}

// everySetting has a value for each variable that is not its default, and how it shows.
var everySetting = []struct {
	name, value string
	get         func(serveConfig) any
	want        string
}{
	{"WR_LISTEN", "127.0.0.1:80", func(c serveConfig) any { return c.Listen }, "127.0.0.1:80"},
	{"WR_BACKEND_URL", "https://shop.example:8443/", func(c serveConfig) any { return c.Backend }, "https://shop.example:8443"},
	{"WR_BACKEND_CONNECT_TIMEOUT", "0.5", func(c serveConfig) any { return c.BackendConnectTimeout }, "500ms"},
	{"WR_BACKEND_TIMEOUT", "1m30s", func(c serveConfig) any { return c.BackendTimeout }, "1m30s"},
	{"WR_MAIN_URL", "https://shop.example/enter", func(c serveConfig) any { return c.MainURL }, "https://shop.example/enter"},
	{"WR_COOKIE_NAME", "room", func(c serveConfig) any { return c.CookieName }, "room"},
	{"WR_QUEUE_MODE", "inline", func(c serveConfig) any { return c.QueueMode }, "inline"},
	{"WR_QUEUE_STATUS", "429", func(c serveConfig) any { return c.QueueStatus }, "429"},
	{"WR_FRAME_ANCESTORS", "self, https://*.shop.example", func(c serveConfig) any { return c.FrameAncestors }, "'self' https://*.shop.example"},
	{"WR_PAGE_FILE", "config_test.go", func(c serveConfig) any { return c.PageFile }, "config_test.go"},
	{"WR_TRUSTED_PROXIES", "10.1.2.3/8, ::1", func(c serveConfig) any { return c.TrustedProxies }, "[10.0.0.0/8 ::1/128]"},
	{"WR_MAX_ACTIVE", "0", func(c serveConfig) any { return c.Limits.MaxActive }, "0"},
	{"WR_ACTIVE_TTL", "2.5", func(c serveConfig) any { return c.Limits.ActiveTTL }, "2.5s"},
	{"WR_RELEASE_INTERVAL", "3", func(c serveConfig) any { return c.ReleaseInterval }, "3s"},
	{"WR_CLAIM_TTL", "4", func(c serveConfig) any { return c.Limits.ClaimTTL }, "4s"},
	{"WR_QUEUE_ABSENT", "5", func(c serveConfig) any { return c.Limits.QueueAbsent }, "5s"},
	{"WR_QUEUE_TTL", "6", func(c serveConfig) any { return c.Limits.QueueTTL }, "6s"},
	{"WR_QUEUE_MAX", "7", func(c serveConfig) any { return c.Limits.QueueMax }, "7"},
	{"WR_FIRST_HIT_TTL", "0", func(c serveConfig) any { return c.Limits.FirstHitTTL }, "0s"},
	{"WR_MAX_HEADER", "32768", func(c serveConfig) any { return c.MaxHeader }, "32768"},
	{"WR_HEADER_TIMEOUT", "8", func(c serveConfig) any { return c.HeaderTimeout }, "8s"},
	{"WR_STALL_TIMEOUT", "9", func(c serveConfig) any { return c.StallTimeout }, "9s"},
	{"WR_MIN_RATE", "1000", func(c serveConfig) any { return c.MinRate }, "1000"},
	{"WR_MAX_BODY", "1000000", func(c serveConfig) any { return c.MaxBody }, "1000000"},
	{"WR_IDLE_TIMEOUT", "10", func(c serveConfig) any { return c.IdleTimeout }, "10s"},
	{"WR_DRAIN_DELAY", "2.5", func(c serveConfig) any { return c.DrainDelay }, "2.5s"},
	{"WR_POLL_MIN", "3", func(c serveConfig) any { return c.PollMin }, "3s"},
	{"WR_POLL_MAX", "60", func(c serveConfig) any { return c.PollMax }, "1m0s"},
	{"WR_NO_QUORUM", "admit", func(c serveConfig) any { return c.NoQuorum }, "admit"},
	{"WR_NO_QUORUM_PER_MINUTE", "10", func(c serveConfig) any { return c.NoQuorumPerMinute }, "10"},
	{"WR_MAX_CONNS", "5000", func(c serveConfig) any { return c.MaxConns }, "5000"},
	{"WR_POLL_RPS", "0", func(c serveConfig) any { return c.PollRPS }, "0"},
	{"WR_VISITOR_RPS", "20", func(c serveConfig) any { return c.VisitorRPS }, "20"},
	{"WR_NEW_PER_IP_PER_MINUTE", "11", func(c serveConfig) any { return c.NewPerIPPerMinute }, "11"},
	{"WR_MAX_CONNS_PER_IP", "12", func(c serveConfig) any { return c.MaxConnsPerIP }, "12"},
	{"WR_VISITOR_CONCURRENCY", "13", func(c serveConfig) any { return c.VisitorConcurrency }, "13"},
	{"WR_POW", "AUTO", func(c serveConfig) any { return c.Pow }, "auto"},
	{"WR_POW_BITS", "20", func(c serveConfig) any { return c.PowBits }, "20"},
	{"WR_POW_WAIT", "60", func(c serveConfig) any { return c.PowWait }, "1m0s"},
	{"WR_BIND", "IP+UA", func(c serveConfig) any { return c.Bind }, "ip+ua"},
	{"WR_REDIS_HOST", "::1", func(c serveConfig) any { return c.Redis.Address() }, "[::1]:6379"},
	{"WR_REDIS_PORT", "6380", func(c serveConfig) any { return c.Redis.Port }, "6380"},
	{"WR_REDIS_USER", "painter", func(c serveConfig) any { return c.Redis.User }, "painter"},
	{"WR_REDIS_USERNAME", "painter", func(c serveConfig) any { return c.Redis.User }, "painter"},
	{"WR_REDIS_PASS", "p4int", func(c serveConfig) any { return string(c.Redis.Pass) }, "p4int"},
	{"WR_REDIS_PASSWORD", "p4int", func(c serveConfig) any { return string(c.Redis.Pass) }, "p4int"},
	{"WR_REDIS_DB", "3", func(c serveConfig) any { return c.Redis.DB }, "3"},
	{"WR_REDIS_TLS", "on", func(c serveConfig) any { return c.Redis.TLS }, "true"},
	{"WR_REDIS_KEY_PREFIX", "shop:", func(c serveConfig) any { return c.Redis.KeyPrefix }, "shop:"},
	{"WR_REDIS_POOL_SIZE", "13", func(c serveConfig) any { return c.Redis.PoolSize }, "13"},
	{"WR_REDIS_POOL_IDLE_TIMEOUT", "1500", func(c serveConfig) any { return c.Redis.PoolIdleTimeout }, "1.5s"},
	{"WR_NODE_ID", "n7", func(c serveConfig) any { return c.NodeID }, "n7"},
	{"WR_CLUSTER_LISTEN", "127.0.0.1:7001", func(c serveConfig) any { return c.ClusterAdvertise }, "127.0.0.1:7001"},
	{"WR_CLUSTER_ADVERTISE", "owr-1.internal:7000", func(c serveConfig) any { return c.ClusterAdvertise }, "owr-1.internal:7000"},
	{"WR_JOIN", "owr-1.internal:7000", func(c serveConfig) any { return c.Join }, "owr-1.internal:7000"},
	{"WR_DATA_DIR", "/data", func(c serveConfig) any { return c.DataDir }, "/data"},
	{"WR_CLUSTER_SECRET", "s3cret", func(c serveConfig) any { return string(c.ClusterSecret) }, "s3cret"},
	{"WR_FEATURE_LEVEL", "1", func(c serveConfig) any { return c.FeatureLevel }, "1"},
	{"WR_ADMIN_LISTEN", "127.0.0.1:9091", func(c serveConfig) any { return c.AdminListen }, "127.0.0.1:9091"},
	{"WR_ADMIN_TOKEN", "t0ken", func(c serveConfig) any { return string(c.AdminToken) }, "t0ken"},
	{"WR_ADMIN_READ_TOKEN", "r3ad", func(c serveConfig) any { return string(c.AdminReadToken) }, "r3ad"},
	{"WR_ADMIN_PROTECT_READS", "on", func(c serveConfig) any { return c.AdminProtectReads }, "true"},
	{"WR_LOG_LEVEL", "DEBUG", func(c serveConfig) any { return c.Log.Level }, "DEBUG"},
	{"WR_LOG_FORMAT", "json", func(c serveConfig) any { return c.Log.Format }, "json"},
}

func TestEverySettingIsAVariableAndAFlag(t *testing.T) {
	for _, s := range everySetting {
		flag := "--" + strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(s.name, "WR_")), "_", "-") + "=" + s.value
		if got := fmt.Sprint(s.get(mustConfigure(t, []string{s.name + "=" + s.value}))); got != s.want {
			t.Errorf("%s=%s gives %s, want %s", s.name, s.value, got, s.want)
		}
		if got := fmt.Sprint(s.get(mustConfigure(t, nil, flag))); got != s.want {
			t.Errorf("%s gives %s, want %s", flag, got, s.want)
		}
		if s.value != "0" && fmt.Sprint(s.get(mustConfigure(t, []string{s.name + "="}))) == s.want && s.name != "WR_REDIS_HOST" {
			t.Errorf("%s: the value of the test is its default", s.name)
		}
	}
}

func TestNoSettingIsForgottenByTheTests(t *testing.T) {
	line, err := parseCommandLine([]string{"serve"}, nil, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	tested := []string{
		"WR_PEERS", "WR_INSECURE_CLUSTER", "WR_ROLE", "WR_PROXY_PROTOCOL", // they need others, and have tests of their own
		"WR_CLUSTER_TLS_CERT", "WR_CLUSTER_TLS_KEY", "WR_CLUSTER_TLS_CA", "WR_CLUSTER_TLS_MODE",
		"WR_TLS_CERT", "WR_TLS_KEY", "WR_BACKEND_CA", "WR_BACKEND_SERVER_NAME", "WR_BACKEND_CERT", "WR_BACKEND_KEY",
		"WR_REDIS_CA", "WR_REDIS_SERVER_NAME", "WR_REDIS_CERT", "WR_REDIS_KEY", "WR_ADMIN_TLS_CERT", "WR_ADMIN_TLS_KEY", "WR_ADMIN_CLIENT_CA",
		"WR_ADMIN_CA", "WR_ADMIN_SERVER_NAME", "WR_ADMIN_CLIENT_CERT", "WR_ADMIN_CLIENT_KEY",
	}
	for _, s := range everySetting {
		tested = append(tested, s.name)
	}
	for _, name := range line.env.names {
		if !slices.Contains(tested, name) && !strings.HasSuffix(name, "_FILE") {
			t.Errorf("%s is in no test", name)
		}
	}
}

func TestTheProxyProtocolNeedsSomebodyToBelieve(t *testing.T) {
	if cfg := mustConfigure(t, []string{"WR_PROXY_PROTOCOL=on", "WR_TRUSTED_PROXIES=10.0.0.0/8"}); !cfg.ProxyProtocol {
		t.Error("WR_PROXY_PROTOCOL=on is off")
	}
	if _, err := configure([]string{"WR_PROXY_PROTOCOL=on"}); err == nil || !strings.Contains(err.Error(), "WR_PROXY_PROTOCOL") || !strings.Contains(err.Error(), "WR_TRUSTED_PROXIES") {
		t.Errorf("without trusted proxies: %v", err)
	}
}

func TestAFlagWinsOverItsVariable(t *testing.T) {
	cfg := mustConfigure(t, []string{"WR_MAX_ACTIVE=5", "WR_ACTIVE_TTL=abc"}, "--max-active", "7", "--active-ttl=1")
	if cfg.Limits.MaxActive != 7 || cfg.Limits.ActiveTTL != time.Second {
		t.Errorf("got %+v", cfg.Limits)
	}
}

func TestAnEmptyVariableIsNotSet(t *testing.T) {
	environ := []string{}
	for _, s := range everySetting {
		if s.name != "WR_REDIS_HOST" {
			environ = append(environ, s.name+"=")
		}
	}
	if got, want := mustConfigure(t, environ), mustConfigure(t, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestRedisHostEmptyOrOffIsNoMirror(t *testing.T) {
	for _, environ := range [][]string{{"WR_REDIS_HOST="}, {"WR_REDIS_HOST=off"}, {"WR_REDIS_HOST=OFF"}} {
		if cfg := mustConfigure(t, environ); cfg.Redis.Enabled() {
			t.Errorf("%q: a mirror on %s", environ, cfg.Redis.Address())
		}
	}
	if cfg := mustConfigure(t, []string{"WR_REDIS_HOST=redis"}, "--redis-host="); cfg.Redis.Enabled() {
		t.Errorf("--redis-host= leaves the mirror on")
	}
}

func TestValuesThatCannotBeUsed(t *testing.T) {
	three := "n1=127.0.0.1:7001,n2=127.0.0.1:7002,n3=127.0.0.1:7003"
	for _, c := range []struct {
		environ string // separated by blanks
		named   []string
	}{
		{"WR_MAX_ACTIVE=-1", []string{"WR_MAX_ACTIVE", `"-1"`, "0 to 1073741824"}},
		{"WR_MAX_ACTIVE=1073741825", []string{"WR_MAX_ACTIVE"}},
		{"WR_MAX_ACTIVE=1e3", []string{"WR_MAX_ACTIVE", "1e3"}},
		{"WR_MAX_ACTIVE=99999999999999999999", []string{"WR_MAX_ACTIVE"}},
		{"WR_ACTIVE_TTL=abc", []string{"WR_ACTIVE_TTL", "abc", "seconds"}},
		{"WR_ACTIVE_TTL=0", []string{"WR_ACTIVE_TTL", "0.1"}},
		{"WR_ACTIVE_TTL=-5", []string{"WR_ACTIVE_TTL", "-5"}},
		{"WR_ACTIVE_TTL=inf", []string{"WR_ACTIVE_TTL", "inf"}},
		{"WR_ACTIVE_TTL=NaN", []string{"WR_ACTIVE_TTL", "NaN"}},
		{"WR_ACTIVE_TTL=1e2", []string{"WR_ACTIVE_TTL", "1e2"}},
		{"WR_ACTIVE_TTL=0x10", []string{"WR_ACTIVE_TTL", "0x10"}},
		{"WR_ACTIVE_TTL=.", []string{"WR_ACTIVE_TTL"}},
		{"WR_ACTIVE_TTL=1.2.3", []string{"WR_ACTIVE_TTL", "1.2.3"}},
		{"WR_QUEUE_TTL=99999999999999999999", []string{"WR_QUEUE_TTL"}},
		{"WR_RELEASE_INTERVAL=0", []string{"WR_RELEASE_INTERVAL"}},
		{"WR_QUEUE_MODE=sideways", []string{"WR_QUEUE_MODE", "sideways", "redirect, inline"}},
		{"WR_NO_QUORUM=deny", []string{"WR_NO_QUORUM", "deny", "hold", "admit"}},
		{"WR_NO_QUORUM_PER_MINUTE=0", []string{"WR_NO_QUORUM_PER_MINUTE", "0", "1"}},
		{"WR_DRAIN_DELAY=21", []string{"WR_DRAIN_DELAY", "21", "20"}},
		{"WR_POLL_MAX=1", []string{"WR_POLL_MAX", "1", "WR_POLL_MIN"}},
		{"WR_QUEUE_STATUS=404", []string{"WR_QUEUE_STATUS", "404", "200, 202, 429, 503"}},
		{"WR_LISTEN=nowhere:99999", []string{"WR_LISTEN", "nowhere:99999", "65535"}},
		{"WR_LISTEN=8080", []string{"WR_LISTEN", "8080"}},
		{"WR_LISTEN=:http", []string{"WR_LISTEN", ":http"}},
		{"WR_ADMIN_LISTEN=::1:80", []string{"WR_ADMIN_LISTEN", "::1:80"}},
		{"WR_BACKEND_URL=ftp://x", []string{"WR_BACKEND_URL", "ftp://x", "http://"}},
		{"WR_BACKEND_URL=backend:8080", []string{"WR_BACKEND_URL", "backend:8080"}},
		{"WR_BACKEND_URL=http://", []string{"WR_BACKEND_URL", "no host"}},
		{"WR_BACKEND_URL=http://x:99999", []string{"WR_BACKEND_URL", "port"}},
		{"WR_BACKEND_URL=http://x:", []string{"WR_BACKEND_URL", "port"}},
		{"WR_BACKEND_URL=http://x/app", []string{"WR_BACKEND_URL", "path"}},
		{"WR_BACKEND_CONNECT_TIMEOUT=0", []string{"WR_BACKEND_CONNECT_TIMEOUT"}},
		{"WR_MAIN_URL=//evil.example", []string{"WR_MAIN_URL", "//evil.example"}},
		{"WR_MAIN_URL=javascript:alert(1)", []string{"WR_MAIN_URL", "javascript"}},
		{"WR_MAIN_URL=start", []string{"WR_MAIN_URL", "start"}},
		{"WR_COOKIE_NAME=a;b", []string{"WR_COOKIE_NAME", "a;b"}},
		{"WR_PAGE_FILE=no-such-file.html", []string{"WR_PAGE_FILE", "no-such-file.html", "no such file"}},
		{"WR_PAGE_FILE=.", []string{"WR_PAGE_FILE", "not a file"}},
		{"WR_TRUSTED_PROXIES=10.0.0.0/99", []string{"WR_TRUSTED_PROXIES", "10.0.0.0/99"}},
		{"WR_TRUSTED_PROXIES=10.0.0.0/8,proxy", []string{"WR_TRUSTED_PROXIES", "proxy"}},
		{"WR_MAX_HEADER=10", []string{"WR_MAX_HEADER", "1024"}},
		{"WR_VISITOR_RPS=-1", []string{"WR_VISITOR_RPS", "-1"}},
		{"WR_VISITOR_CONCURRENCY=-1", []string{"WR_VISITOR_CONCURRENCY", "-1", "0 to"}},
		{"WR_POW=on", []string{"WR_POW", "on", "off, auto"}},
		{"WR_POW_BITS=27", []string{"WR_POW_BITS", "27", "8 to 26"}},
		{"WR_POW_WAIT=4", []string{"WR_POW_WAIT", "4", "5 to 600"}},
		{"WR_FRAME_ANCESTORS=shop.example", []string{"WR_FRAME_ANCESTORS", "shop.example", "https://"}},
		{"WR_FRAME_ANCESTORS=none,self", []string{"WR_FRAME_ANCESTORS", "none"}},
		{"WR_FRAME_ANCESTORS=https://a/b", []string{"WR_FRAME_ANCESTORS", "https://a/b"}},
		{"WR_FRAME_ANCESTORS=https://a;script-src", []string{"WR_FRAME_ANCESTORS", "script-src"}},
		{"WR_FRAME_ANCESTORS=,", []string{"WR_FRAME_ANCESTORS"}},
		{"WR_BIND=mac", []string{"WR_BIND", "mac", "off, ip, ua, ip+ua"}},
		{"WR_VISITOR_RPS=0.5", []string{"WR_VISITOR_RPS", "0.5", "whole number"}},
		{"WR_REDIS_HOST=redis:6379", []string{"WR_REDIS_HOST", "redis:6379", "WR_REDIS_PORT"}},
		{"WR_REDIS_PORT=seventy", []string{"WR_REDIS_PORT", "seventy"}},
		{"WR_REDIS_KEY_PREFIX=a\x00b", []string{"WR_REDIS_KEY_PREFIX", "control character"}},
		{"WR_REDIS_TLS=perhaps", []string{"WR_REDIS_TLS", "perhaps"}},
		{"WR_REDIS_USER=a WR_REDIS_USERNAME=b", []string{"WR_REDIS_USER ", "WR_REDIS_USERNAME"}},
		{"WR_NODE_ID=a,b", []string{"WR_NODE_ID", "a,b"}},
		{"WR_LOG_LEVEL=loud", []string{"WR_LOG_LEVEL", "loud"}},
		{"WR_LOG_FORMAT=xml", []string{"WR_LOG_FORMAT", "xml"}},
		{"WR_CLUSTER_ADVERTISE=:7000", []string{"WR_CLUSTER_ADVERTISE", ":7000", "no host"}},
		{"WR_CLUSTER_ADVERTISE=0.0.0.0:7000", []string{"WR_CLUSTER_ADVERTISE", "no host"}},
		{"WR_NODE_ID=n4 WR_PEERS=" + three, []string{"WR_PEERS", "n4", "WR_NODE_ID"}},
		{"WR_NODE_ID=n1 WR_PEERS=" + three + ",", []string{"WR_PEERS", "name=host:port"}},
		{"WR_NODE_ID=n1 WR_PEERS=" + three + ",n4", []string{"WR_PEERS", "n4"}},
		{"WR_NODE_ID=n1 WR_PEERS=" + three + ",n1=127.0.0.1:7004", []string{"WR_PEERS", "n1 twice"}},
		{"WR_NODE_ID=n1 WR_PEERS=" + three + ",n4=127.0.0.1:7003", []string{"WR_PEERS", "127.0.0.1:7003 twice"}},
		{"WR_NODE_ID=n1 WR_PEERS=" + three + ",n4=:7004", []string{"WR_PEERS", "no host"}},
		{"WR_NODE_ID=n1 WR_CLUSTER_ADVERTISE=n1:7001 WR_PEERS=" + three, []string{"WR_CLUSTER_ADVERTISE", "n1:7001", "WR_PEERS", "127.0.0.1:7001"}},
		{"WR_NODE_ID=n1 WR_CLUSTER_LISTEN=:7001 WR_PEERS=" + three, []string{"WR_CLUSTER_SECRET", ":7001", "WR_INSECURE_CLUSTER"}},
		{"WR_NODE_ID=n1 WR_CLUSTER_LISTEN=n1:7001 WR_PEERS=" + three, []string{"WR_CLUSTER_SECRET"}},
		{"WR_CLUSTER_TLS_CERT=config_test.go", []string{"WR_CLUSTER_TLS_KEY", "not set", "WR_CLUSTER_TLS_CERT"}},
		{"WR_CLUSTER_TLS_KEY=config_test.go WR_CLUSTER_TLS_CA=config_test.go", []string{"WR_CLUSTER_TLS_CERT", "WR_CLUSTER_TLS_CA"}},
		{"WR_CLUSTER_TLS_CERT=no-such.crt WR_CLUSTER_TLS_KEY=config_test.go WR_CLUSTER_TLS_CA=config_test.go", []string{"WR_CLUSTER_TLS_CERT", "no-such.crt", "no such file"}},
		{"WR_CLUSTER_TLS_CERT=config_test.go WR_CLUSTER_TLS_KEY=config_test.go WR_CLUSTER_TLS_CA=config_test.go", []string{"WR_CLUSTER_TLS_CERT", "config_test.go"}},
		{"WR_CLUSTER_TLS_MODE=prefer", []string{"WR_CLUSTER_TLS_MODE", "prefer", "WR_CLUSTER_TLS_CERT"}},
		{"WR_CLUSTER_TLS_MODE=maybe", []string{"WR_CLUSTER_TLS_MODE", "maybe", "require, prefer"}},
		{"WR_JOIN=nowhere", []string{"WR_JOIN", "nowhere", "host:port"}},
		{"WR_JOIN=:7000", []string{"WR_JOIN", ":7000", "no host"}},
		{"WR_NODE_ID=n1 WR_JOIN=n2:7000 WR_PEERS=" + three, []string{"WR_JOIN", "n2:7000", "WR_PEERS"}},
		{"WR_JOIN=n2:7000 WR_CLUSTER_LISTEN=:7000 WR_INSECURE_CLUSTER=1", []string{"WR_CLUSTER_ADVERTISE", ":7000"}},
		{"WR_JOIN=n2:7000 WR_CLUSTER_LISTEN=n4:7000", []string{"WR_CLUSTER_SECRET", "n4:7000"}},
		{"WR_ROLE=edge", []string{"WR_ROLE", "edge", "WR_JOIN"}},
		{"WR_ROLE=boss", []string{"WR_ROLE", "boss", "voter, edge"}},
		{"WR_INSECURE_CLUSTER=maybe", []string{"WR_INSECURE_CLUSTER", "maybe"}},
		{"WR_ADMIN_TOKEN_FILE=no/such/file", []string{"WR_ADMIN_TOKEN_FILE", "no/such/file", "no such file"}},
		{"WR_ADMIN_TOKEN=a WR_ADMIN_TOKEN_FILE=b", []string{"WR_ADMIN_TOKEN", "WR_ADMIN_TOKEN_FILE"}},
	} {
		_, err := configure(strings.Fields(c.environ))
		for _, want := range c.named {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want %q in it", c.environ, err, want)
			}
		}
		code, _, stderr := command(t, strings.Fields(c.environ), "serve")
		if code != 2 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, %q; want 2 and one line", c.environ, code, stderr)
		}
	}
}

func TestAPageFileMayNotBeHuge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(path, make([]byte, maxPageFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := configure([]string{"WR_PAGE_FILE=" + path}); err == nil || !strings.Contains(err.Error(), "1048576") {
		t.Errorf("a page of more than 1 MiB: %v", err)
	}
}

func TestPeers(t *testing.T) {
	environ := []string{"WR_NODE_ID=n2", "WR_PEERS=n1=owr-1:7000, n2=owr-2:7000,n3=owr-3:7000", "WR_CLUSTER_LISTEN=:7000"}
	cfg := mustConfigure(t, append(environ, "WR_CLUSTER_SECRET=s"))
	want := []peer{{"n1", "owr-1:7000"}, {"n2", "owr-2:7000"}, {"n3", "owr-3:7000"}}
	if !slices.Equal(cfg.Peers, want) || cfg.ClusterAdvertise != "owr-2:7000" {
		t.Errorf("got %v, advertise %s", cfg.Peers, cfg.ClusterAdvertise)
	}
	mustConfigure(t, append(environ, "WR_INSECURE_CLUSTER=1"))
	mustConfigure(t, environ, "--insecure-cluster")
	mustConfigure(t, []string{"WR_NODE_ID=a", "WR_PEERS=a=localhost:1,b=localhost:2", "WR_CLUSTER_LISTEN=localhost:1"})
	mustConfigure(t, []string{"WR_NODE_ID=a", "WR_PEERS=a=[::1]:1,b=[::1]:2", "WR_CLUSTER_LISTEN=[::1]:1"})
	if cfg := mustConfigure(t, nil); cfg.Peers != nil {
		t.Errorf("no WR_PEERS: %v", cfg.Peers)
	}
}

// Certificates count as a secret does, unless connections without TLS are taken too; another node's are found out at the start.
func TestClusterTLS(t *testing.T) {
	dir := t.TempDir()
	made(t, "cert", "node", "n1", "n2", "--ensure", "--ca", dir, "--out", dir)
	files := func(node string) []string {
		return []string{"WR_CLUSTER_TLS_CERT=" + filepath.Join(dir, node+".crt"), "WR_CLUSTER_TLS_KEY=" + filepath.Join(dir, node+".key"), "WR_CLUSTER_TLS_CA=" + filepath.Join(dir, "ca.crt")}
	}
	environ := append(files("n1"), "WR_PEERS=n1=owr-1:7000,n2=owr-2:7000", "WR_CLUSTER_LISTEN=:7000", "WR_NODE_ID=n1")
	cfg := mustConfigure(t, environ)
	if cfg.ClusterTLS == nil || cfg.ClusterTLS.Prefer || cfg.ClusterTLS.Cert != filepath.Join(dir, "n1.crt") || cfg.ClusterTLS.CA != filepath.Join(dir, "ca.crt") {
		t.Errorf("got %+v", cfg.ClusterTLS)
	}
	if cfg := mustConfigure(t, environ, "--cluster-tls-mode=prefer", "--cluster-secret=s"); !cfg.ClusterTLS.Prefer {
		t.Error("prefer does not show")
	}
	if _, err := configure(environ, "--cluster-tls-mode=prefer"); err == nil || !strings.Contains(err.Error(), "WR_CLUSTER_SECRET") {
		t.Errorf("prefer without a secret: %v", err)
	}
	if _, err := configure(append(files("n2"), "WR_NODE_ID=n1")); err == nil || !strings.Contains(err.Error(), "WR_CLUSTER_TLS_CERT") || !strings.Contains(err.Error(), "node n2") {
		t.Errorf("another node's certificate: %v", err)
	}
	made(t, "cert", "ca", "--out", dir, "--force")
	if _, err := configure(environ); err == nil || !strings.Contains(err.Error(), "WR_CLUSTER_TLS_CA") {
		t.Errorf("another authority: %v", err)
	}
}

func TestJoin(t *testing.T) {
	cfg := mustConfigure(t, []string{"WR_NODE_ID=n4", "WR_JOIN=owr-1:7000", "WR_CLUSTER_LISTEN=:7000", "WR_CLUSTER_ADVERTISE=owr-4:7000", "WR_CLUSTER_SECRET=s"})
	if cfg.Join != "owr-1:7000" || cfg.ClusterAdvertise != "owr-4:7000" || cfg.Edge {
		t.Errorf("join %q, advertise %q, edge %t", cfg.Join, cfg.ClusterAdvertise, cfg.Edge)
	}
	if cfg := mustConfigure(t, []string{"WR_ROLE=Edge"}, "--join=owr-1:7000"); !cfg.Edge {
		t.Error("WR_ROLE=Edge is no edge")
	}
}

func TestUnknownVariablesAreReportedOnce(t *testing.T) {
	line, err := parseCommandLine(nil, []string{"WR_MAX_ACTVE=9", "WR_REDIS_PASSWROD=x", "WR_MAX_ACTIVE=5", "OTHER=1", "WR_ADMIN_TOKEN_FILE="}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	line.warn(logConfig{Format: "text"}.newLogger(&log))
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "WR_MAX_ACTVE") || !strings.Contains(lines[0], "WR_MAX_ACTIVE") ||
		!strings.Contains(lines[1], "WR_REDIS_PASSWORD") {
		t.Errorf("got %q", lines)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"ACTVE", "ACTIVE", 1}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) is %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestDemoConfig(t *testing.T) {
	demo := func(environ []string, args ...string) demoConfig {
		line, err := parseCommandLine(append([]string{"demo"}, args...), environ, nil)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := line.demoConfig()
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	if c := demo(nil); c.Port != 8080 || c.Limits.MaxActive != 2 || !c.EmbeddedRedis || c.Redis.Enabled() {
		t.Errorf("defaults: %+v", c)
	}
	if c := demo([]string{"WR_REDIS_HOST=redis", "WR_REDIS_PORT=6380"}, "--port", "20000", "--max-active", "9"); c.Port != 20000 ||
		c.Limits.MaxActive != 9 || c.EmbeddedRedis || c.Redis.Address() != "redis:6380" {
		t.Errorf("with a Redis outside: %+v", c)
	}
	if c := demo([]string{"WR_REDIS_HOST=off"}); c.EmbeddedRedis || c.Redis.Enabled() {
		t.Errorf("without a Redis: %+v", c)
	}
}

func TestDialAddress(t *testing.T) {
	line, err := parseCommandLine([]string{"healthcheck"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for listen, want := range map[string]string{
		":8080": "127.0.0.1:8080", "0.0.0.0:80": "127.0.0.1:80", "[::]:80": "127.0.0.1:80", "10.0.0.1:80": "10.0.0.1:80", "n1:80": "n1:80",
	} {
		if got, err := line.dialAddress("listen", listen); got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", listen, got, err, want)
		}
	}
}

func TestNetworksAreMasked(t *testing.T) {
	cfg := mustConfigure(t, []string{"WR_TRUSTED_PROXIES=192.168.7.9/16"})
	if want := []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}; !slices.Equal(cfg.TrustedProxies, want) {
		t.Errorf("got %v", cfg.TrustedProxies)
	}
}
