package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// guard decides who may change something.
type guard struct {
	sum    [sha256.Size]byte // of the token
	open   bool              // there is no token: loopback decides
	origin *http.CrossOriginProtection
	log    *slog.Logger

	mu      sync.Mutex
	told    time.Time // when the log last heard of a refusal
	refused int       // since then
}

// refusalEvery keeps somebody who tries out tokens from filling the log.
const refusalEvery = time.Second

func newGuard(token string, log *slog.Logger) *guard {
	return &guard{
		sum: sha256.Sum256([]byte(token)), open: token == "",
		origin: http.NewCrossOriginProtection(), log: log,
	}
}

// protect lets through who may, and answers the others.
func (g *guard) protect(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, reason := g.check(r)
		if status != 0 {
			g.tell(r, status)
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="owr"`)
			}
			problem(w, status, reason)
			return
		}
		next(w, r)
	})
}

// check answers with a status of zero, or with why not.
func (g *guard) check(r *http.Request) (status int, reason string) {
	// A page of another site must not use the browser of somebody who can reach this listener.
	if g.origin.Check(r) != nil {
		return http.StatusForbidden, "a page of another site may not change anything here"
	}
	if g.open {
		return checkLoopback(r)
	}
	values := r.Header.Values("Authorization")
	if len(values) > 1 {
		return http.StatusBadRequest, "more than one Authorization header"
	}
	if len(values) == 1 {
		scheme, token, _ := strings.Cut(values[0], " ")
		sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
		if strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], g.sum[:]) == 1 {
			return 0, ""
		}
	}
	return http.StatusUnauthorized, "this call needs the admin token as a bearer token"
}

// checkLoopback is the rule without a token: the call comes from this machine itself. A name in
// Host that is not localhost is a browser that was made to believe that a site lives here, and a
// forwarding header means that somebody behind a proxy is asking.
func checkLoopback(r *http.Request) (status int, reason string) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return http.StatusForbidden, "without WR_ADMIN_TOKEN changes are taken over loopback only"
	}
	if r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" {
		return http.StatusForbidden, "without WR_ADMIN_TOKEN changes are not taken through a proxy"
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err != nil && !strings.EqualFold(host, "localhost") {
		return http.StatusForbidden, "without WR_ADMIN_TOKEN changes are taken by address or as localhost only"
	}
	return 0, ""
}

// tell logs refusals, at most one line each second.
func (g *guard) tell(r *http.Request, status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused++
	if now := time.Now(); now.Sub(g.told) >= refusalEvery {
		g.log.Warn("admin call refused", "caller", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "status", status, "refused", g.refused)
		g.told, g.refused = now, 0
	}
}
