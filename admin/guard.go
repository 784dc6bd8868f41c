package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// guard decides who may look and who may change.
type guard struct {
	tokens  []token // of what is set
	operate bool    // one of them is for changes
	certs   bool    // callers may prove themselves by a certificate, so loopback alone proves nothing
	open    bool    // reading is for whoever reaches the listener
	metrics bool    // and so are the metrics
	origin  *http.CrossOriginProtection
	guesses *guesses
	log     *slog.Logger

	mu      sync.Mutex
	told    time.Time // when the log last heard of a refusal
	refused int       // since then
}

// A token is what proves a role. It is compared by its hash, which takes the same time whatever
// it is compared with.
type token struct {
	role role
	sum  [sha256.Size]byte
}

const needsProof = "this call needs an admin token as a bearer token, or a client's certificate where these are taken"

// refusalEvery keeps somebody who tries out tokens from filling the log.
const refusalEvery = time.Second

func newGuard(cfg *Config) *guard {
	g := &guard{
		operate: cfg.Token != "", certs: cfg.ClientCertificates, open: cfg.ReadToken == "" && !cfg.ProtectReads, metrics: !cfg.ProtectReads,
		origin: http.NewCrossOriginProtection(), guesses: newGuesses(), log: cfg.Logger,
	}
	for text, r := range map[string]role{cfg.ReadToken: roleRead, cfg.Token: roleOperate} {
		if text != "" {
			g.tokens = append(g.tokens, token{r, sha256.Sum256([]byte(text))})
		}
	}
	return g
}

// A refusal is why a call is not carried out.
type refusal struct {
	status int
	reason string
	wait   time.Duration // before it is worth another try; 0: nothing is said of that
}

// A call is a handler that knows who calls.
type call func(http.ResponseWriter, *http.Request, *caller)

// changing lets through who may change something, and answers the others.
func (g *guard) changing(next call) http.Handler { return g.needs(roleOperate, next) }

// reading lets through who may look.
func (g *guard) reading(next http.HandlerFunc) http.Handler {
	if !g.open {
		return g.needs(roleRead, func(w http.ResponseWriter, r *http.Request, _ *caller) { next(w, r) })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &caller{address: r.RemoteAddr}
		if rebound(r) && g.check(r, roleRead, c) != nil { // who shows a secret is no page of somebody's
			g.refuse(w, r, c, &refusal{status: http.StatusMisdirectedRequest, reason: "without a token this listener is not asked by that name"})
			return
		}
		next(w, r)
	})
}

// scraping lets through who may see the metrics: machines in the network of this listener, which ask
// by whatever name they know and often cannot keep a secret, unless reading is protected in so many words.
func (g *guard) scraping(next http.Handler) http.Handler {
	if g.metrics {
		return next
	}
	return g.needs(roleRead, func(w http.ResponseWriter, r *http.Request, _ *caller) { next.ServeHTTP(w, r) })
}

func (g *guard) needs(need role, next call) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &caller{address: r.RemoteAddr}
		if no := g.check(r, need, c); no != nil {
			g.refuse(w, r, c, no)
			return
		}
		next(w, r, c)
	})
}

// check finds out who calls, and answers why the call is refused, or nil.
func (g *guard) check(r *http.Request, need role, c *caller) *refusal {
	// A page of another site must not use the browser of somebody who can reach this listener.
	if g.origin.Check(r) != nil || need == roleOperate && fromAnotherSite(r) {
		return &refusal{status: http.StatusForbidden, reason: "a page of another site may not do that"}
	}
	c.certify(r.TLS)
	shown := r.Header.Values("Authorization")
	switch {
	case len(shown) > 1:
		return &refusal{status: http.StatusBadRequest, reason: "more than one Authorization header"}
	case c.role >= need:
		return nil
	case len(shown) == 1 && len(g.tokens) > 0:
		if no := g.checkToken(shown[0], c); no != nil {
			return no
		}
	case c.subject == "" && !g.operate && !g.certs:
		if no := checkLoopback(r); no != nil {
			return no
		}
		c.role, c.by = roleOperate, "loopback"
	case c.subject == "":
		return &refusal{status: http.StatusUnauthorized, reason: needsProof}
	}
	if c.role < need {
		return &refusal{status: http.StatusForbidden, reason: "this call needs the role " + need.String()}
	}
	return nil
}

// fromAnotherSite is for the one GET that needs the right to change: crypto keys are in its answer.
func fromAnotherSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return true
}

// checkToken gives the caller the role of the token that it shows.
func (g *guard) checkToken(shown string, c *caller) *refusal {
	address := guesserOf(c.address)
	if wait := g.guesses.wait(address); wait > 0 {
		return &refusal{status: http.StatusTooManyRequests, reason: "too many wrong tokens from this address", wait: wait}
	}
	scheme, text, _ := strings.Cut(shown, " ")
	sum, got := sha256.Sum256([]byte(strings.TrimSpace(text))), roleNone
	for i := range g.tokens { // all of them, so that the time says nothing of which it was
		if subtle.ConstantTimeCompare(sum[:], g.tokens[i].sum[:]) == 1 {
			got = max(got, g.tokens[i].role)
		}
	}
	if got == roleNone || !strings.EqualFold(scheme, "Bearer") {
		g.guesses.wrong(address)
		return &refusal{status: http.StatusUnauthorized, reason: needsProof}
	}
	if got > c.role {
		c.role, c.by = got, "token"
	}
	return nil
}

// checkLoopback is the rule where nobody has a secret: the call comes from this machine itself. A
// forwarding header means that somebody behind a proxy is asking.
func checkLoopback(r *http.Request) *refusal {
	switch {
	case !fromLoopback(r):
		return &refusal{status: http.StatusForbidden, reason: "without WR_ADMIN_TOKEN this call is taken over loopback only"}
	case r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "":
		return &refusal{status: http.StatusForbidden, reason: "without WR_ADMIN_TOKEN this call is not taken through a proxy"}
	}
	// A name that is not localhost is a browser that was made to believe that a site lives here.
	if host := hostOf(r); !isAddress(host) && !strings.EqualFold(host, "localhost") {
		return &refusal{status: http.StatusForbidden, reason: "without WR_ADMIN_TOKEN this call is taken by address or as localhost only"}
	}
	return nil
}

// rebound reports whether a call over loopback names a host that somebody may have registered, and made
// to mean this machine, so that a page of theirs can read here what it likes (DNS rebinding). A name
// without a dot is nobody's to register.
func rebound(r *http.Request) bool {
	host := hostOf(r)
	return fromLoopback(r) && !isAddress(host) && strings.Contains(strings.TrimSuffix(host, "."), ".") && !strings.HasSuffix(strings.ToLower(host), ".localhost")
}

func fromLoopback(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// hostOf is the host that the call was made to, without a port and without brackets.
func hostOf(r *http.Request) string {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.Trim(host, "[]")
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// refuse answers a call that is not carried out.
func (g *guard) refuse(w http.ResponseWriter, r *http.Request, c *caller, no *refusal) {
	g.tell(r, c, no.status)
	switch no.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="owr"`)
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(no.wait.Seconds()))))
	}
	problem(w, no.status, no.reason)
}

// tell logs refusals, at most one line each second.
func (g *guard) tell(r *http.Request, c *caller, status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused++
	if now := time.Now(); now.Sub(g.told) >= refusalEvery {
		g.log.Warn("admin call refused", c.attrs("method", shorten(r.Method), "path", shorten(r.URL.Path), "status", status, "refused", g.refused)...)
		g.told, g.refused = now, 0
	}
}
