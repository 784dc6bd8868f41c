package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openwaitingroom/owr/internal/seal"
	"github.com/openwaitingroom/owr/queue"
)

// Room is what the proxy needs from the replicated queue. All methods may be called from any
// number of goroutines.
type Room interface {
	// Lookup reads this node's replica.
	Lookup(queue.Token) queue.View
	// Touch notes that a visitor was let in to a page; it is committed with the next flush. It never blocks.
	Touch(queue.Token)
	// Asked is Touch for a request with which its visitor was not let in to a page.
	Asked(queue.Token)
	// Stay is Touch for a request that did not bring the visitor's cookie and is under way yet: it confirms nobody.
	Stay(queue.Token)
	// Submit waits for a commit. An error means that the change could not be made now; it may
	// still happen later.
	Submit(context.Context, queue.Command) (queue.Decision, error)
	// SubmitFunc is Submit for who cannot wait. Without an error it calls then once, from a goroutine that then must not hold up;
	// after until it may not call it any more.
	SubmitFunc(until time.Time, c queue.Command, then func(queue.Decision, error)) error
	// HasRoom reports whether, by this replica, a slot is free and no present visitor waits.
	HasRoom() bool
	// Counts are the sizes of this replica.
	Counts() queue.Counts
	// Limits are those in force at this replica.
	Limits() queue.Limits
	// Now is cluster time in Unix milliseconds.
	Now() int64
	// Applied is the index of the last entry this replica applied.
	Applied() uint64
	// WaitApplied returns once this replica has applied index, or with an error.
	WaitApplied(ctx context.Context, index uint64) error
	// Quorum reports whether the cluster can commit, as far as this node knows; false only after the time that an election takes.
	Quorum() bool
	// Ready is nil once the table is fresh and a leader is in reach; else it says why not.
	Ready() error
	// Keys are the proof keys of the replicated state, the newest first; empty before the
	// first leader has made one.
	Keys() seal.Ring
}

// The ways to tell a browser to wait.
const (
	ModeRedirect = "redirect" // 302 to /queue.html
	ModeInline   = "inline"   // the page at the URL asked for
)

// A Config says what a Server serves and how. Zero fields take the default named beside
// them; fields without one must be set.
type Config struct {
	Room       Room
	Logger     *slog.Logger          // slog.Default()
	Registerer prometheus.Registerer // a registry of its own, which nobody reads

	// TLS makes the public side https: a certificate, or a way to get one, and how sessions are resumed. The versions and the
	// protocols to agree on are set here. nil: plain HTTP.
	TLS *tls.Config

	Backend               *url.URL      // the origin: http or https, a host, perhaps a port, and nothing else
	BackendTLS            *tls.Config   // for an https origin; the system's roots, and the origin's name
	BackendConnectTimeout time.Duration // 5 s; name, TCP and TLS together
	BackendTimeout        time.Duration // 60 s; to the first byte of the response and between two bytes

	MainURL    string // "/"; where an admitted visitor goes when nothing better is known
	CookieName string // "wr_token"

	FrameAncestors string // "'self'"; who may frame owr's pages, as a Content-Security-Policy says it: 'self', 'none' or origins

	QueueMode   string // ModeRedirect
	QueueStatus int    // 503; status of an inline page: 200, 202, 429 or 503
	Page        []byte // the waiting page that is built in

	TrustedProxies []netip.Prefix // whose X-Forwarded-… is believed
	ProxyProtocol  bool           // connections from TrustedProxies begin with a PROXY protocol header, version 1 or 2
	MaxHeader      int            // 16 KiB; bytes of a request head
	HeaderTimeout  time.Duration  // 10 s; for a whole head
	StallTimeout   time.Duration  // 30 s; a body or a reader without progress
	IdleTimeout    time.Duration  // 60 s; a connection between two requests
	MaxBody        int64          // bytes; the longest body of a request; 0: no limit
	MinRate        int            // bytes a second that a body or a reader makes on average over StallTimeout, while we wait for it; 0: no limit

	// Limits at the edge; 0 switches one off. The connections of trusted proxies are not counted for an address.
	MaxConns          int // open connections of clients; beyond it an idle one makes room, or the new one gets 503
	MaxDescriptors    int // descriptors that clients' connections and those to the origin take together; at least MaxConns
	MaxConnsPerIP     int // open connections of one address
	VisitorRPS        int // requests of one visitor per second, with a burst of twice as many
	PollRPS           int // polls of one visitor that waits, per second, with a burst of four times as many
	NewPerIPPerMinute int // first visits from one address, or one IPv6 /64, per minute

	// With Pow a newcomer works for a place in line, 2^PowBits hashes on the average, or waits for it.
	Pow     bool
	PowBits int           // 18; 8 to 26
	PowWait time.Duration // 30 s; 5 s to 10 min

	Bind               string // BindOff; or BindIP, BindUA, BindIPAndUA: what a visitor's cookie is bound to
	VisitorConcurrency int    // requests of one visitor that are at the origin at once, tunnels included

	// Who waits is asked to come back after PollMin near the head of the line, and up to PollMax far back.
	PollMin time.Duration // 2 s
	PollMax time.Duration // 30 s; not below PollMin

	// NoQuorumPerMinute is how many visitors a minute are let in without a slot while the cluster has no majority; 0: none.
	NoQuorumPerMinute int

	DecisionTimeout time.Duration // 3 s; how long a request waits for a commit

	// Loops is how many threads serve the connections of visitors inside (Linux, neither side with TLS): one for each core;
	// negative: none.
	Loops int
}

// Validate reports the first field that cannot be used and what would be right.
func (c Config) Validate() error {
	_, err := c.withDefaults()
	return err
}

func (c Config) withDefaults() (Config, error) {
	if c.Room == nil {
		return c, errors.New("config: Room is missing")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if t := c.TLS; t != nil && len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil {
		return c, errors.New("config: TLS has no certificate")
	}
	if err := c.checkBackend(); err != nil {
		return c, err
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		or    time.Duration
	}{
		{"BackendConnectTimeout", &c.BackendConnectTimeout, 5 * time.Second},
		{"BackendTimeout", &c.BackendTimeout, 60 * time.Second},
		{"HeaderTimeout", &c.HeaderTimeout, 10 * time.Second},
		{"StallTimeout", &c.StallTimeout, 30 * time.Second},
		{"IdleTimeout", &c.IdleTimeout, 60 * time.Second},
		{"DecisionTimeout", &c.DecisionTimeout, 3 * time.Second},
		{"PollMin", &c.PollMin, 2 * time.Second},
		{"PollMax", &c.PollMax, max(30*time.Second, c.PollMin)},
	} {
		if *d.value == 0 {
			*d.value = d.or
		}
		if *d.value < 0 {
			return c, fmt.Errorf("config: %s: %v is negative", d.name, *d.value)
		}
	}
	if c.PollMax < c.PollMin {
		return c, fmt.Errorf("PollMax: %v is below PollMin, %v", c.PollMax, c.PollMin)
	}
	if c.ProxyProtocol && len(c.TrustedProxies) == 0 {
		return c, errors.New("config: ProxyProtocol: without TrustedProxies there is nobody to believe")
	}
	if c.MaxHeader == 0 {
		c.MaxHeader = 16 << 10
	}
	if c.MaxHeader < 1<<10 || c.MaxHeader > 1<<20 {
		return c, fmt.Errorf("config: MaxHeader: %d is not between 1024 and 1048576 bytes", c.MaxHeader)
	}
	for name, n := range map[string]int{
		"MaxConnsPerIP": c.MaxConnsPerIP, "VisitorRPS": c.VisitorRPS, "MaxConns": c.MaxConns, "MaxDescriptors": c.MaxDescriptors, "MinRate": c.MinRate, "MaxBody": int(c.MaxBody),
		"PollRPS": c.PollRPS, "NewPerIPPerMinute": c.NewPerIPPerMinute, "VisitorConcurrency": c.VisitorConcurrency,
	} {
		if n < 0 {
			return c, fmt.Errorf("config: %s: %d is negative", name, n)
		}
	}
	if c.PowBits == 0 {
		c.PowBits = 18
	}
	if c.PowBits < minPowBits || c.PowBits > maxPowBits {
		return c, fmt.Errorf("config: PowBits: %d is not between %d and %d", c.PowBits, minPowBits, maxPowBits)
	}
	if c.PowWait == 0 {
		c.PowWait = 30 * time.Second
	}
	if c.PowWait < minPowWait || c.PowWait > maxPowWait {
		return c, fmt.Errorf("config: PowWait: %v is not between %v and %v", c.PowWait, minPowWait, maxPowWait)
	}
	if c.Bind == "" {
		c.Bind = BindOff
	}
	if _, ok := bindModes[c.Bind]; !ok {
		return c, fmt.Errorf("config: Bind: %q is not one of off, ip, ua, ip+ua", c.Bind)
	}
	if c.Loops == 0 {
		c.Loops = runtime.NumCPU()
	}
	c.Loops = max(c.Loops, 0)
	return c, c.checkRoom()
}

func (c *Config) checkBackend() error {
	u := c.Backend
	if u == nil {
		return errors.New("config: Backend is missing")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "" || u.User != nil || u.RawQuery != "" ||
		u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return fmt.Errorf("config: Backend: %q is not http://host, https://host or one of them with a port", u.Redacted())
	}
	return nil
}

// checkRoom completes and checks what the waiting room itself is told.
func (c *Config) checkRoom() error {
	if c.MainURL == "" {
		c.MainURL = "/"
	}
	if u, err := url.Parse(c.MainURL); err != nil || !validMainURL(c.MainURL, u) {
		return fmt.Errorf("config: MainURL: %q is neither a path nor an http or https address", c.MainURL)
	}
	if c.CookieName == "" {
		c.CookieName = "wr_token"
	}
	for _, b := range []byte(c.CookieName) {
		if !tokenBytes[b] {
			return fmt.Errorf("config: CookieName: %q has a byte that no cookie name may have", c.CookieName)
		}
	}
	if c.FrameAncestors == "" {
		c.FrameAncestors = "'self'"
	}
	if !validSources(c.FrameAncestors) {
		return fmt.Errorf("config: FrameAncestors: %q is not 'self', 'none' or origins such as https://shop.example", c.FrameAncestors)
	}
	if c.QueueMode == "" {
		c.QueueMode = ModeRedirect
	}
	if c.QueueMode != ModeRedirect && c.QueueMode != ModeInline {
		return fmt.Errorf("config: QueueMode: %q is neither %q nor %q", c.QueueMode, ModeRedirect, ModeInline)
	}
	if c.QueueStatus == 0 {
		c.QueueStatus = 503
	}
	switch c.QueueStatus {
	case 200, 202, 429, 503:
	default:
		return fmt.Errorf("config: QueueStatus: %d is not 200, 202, 429 or 503", c.QueueStatus)
	}
	return nil
}

func validMainURL(text string, u *url.URL) bool {
	for _, b := range []byte(text) {
		if b <= ' ' || b >= 0x7f || strings.IndexByte(`"<>\`, b) >= 0 {
			return false
		}
	}
	if u.Scheme == "http" || u.Scheme == "https" {
		return u.Host != ""
	}
	return safeTarget([]byte(text))
}

// validSources reports whether text is a list of sources for frame-ancestors, and can be nothing else in a policy or a header.
func validSources(text string) bool {
	sources := strings.Split(text, " ")
	for _, source := range sources {
		if source == "'self'" || source == "'none'" && len(sources) == 1 {
			continue
		}
		rest, https := strings.CutPrefix(source, "https://")
		if !https {
			var http bool
			if rest, http = strings.CutPrefix(source, "http://"); !http {
				return false
			}
		}
		if host := strings.TrimSuffix(strings.TrimPrefix(rest, "*."), ":*"); !validHost([]byte(host)) || strings.ContainsAny(host, "%~") {
			return false
		}
	}
	return true
}
