package main

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A reader makes values of texts. The first text that cannot be used is kept in err, and each
// method answers its zero value then, so that a configuration is written down without an if
// at every line.
type reader struct {
	env *environment
	err error
}

// fail says that a flag's text cannot be used, and what would be right.
func (r *reader) fail(flag, format string, args ...any) {
	if r.err == nil {
		r.err = usagef("%s: %s", r.env.describe(flag), fmt.Sprintf(format, args...))
	}
}

// count reads a whole number.
func (r *reader) count(flag, text string, low, high int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		r.fail(flag, "%q is not a whole number from %d to %d", text, low, high)
		return 0
	}
	return n
}

// span reads a time: a number of units, or a number with its own unit as Go writes it (90s, 1m30s).
func (r *reader) span(flag, text string, unit, low, high time.Duration) time.Duration {
	d, err := time.ParseDuration(text)
	if isNumber(text) {
		var n float64
		n, err = strconv.ParseFloat(text, 64)
		d = time.Duration(min(n*float64(unit), math.MaxInt64/2))
	}
	if err != nil || d < low || d > high {
		name := map[time.Duration]string{time.Second: "seconds", time.Millisecond: "milliseconds"}[unit]
		r.fail(flag, "%q is not a number of %s from %g to %g", text, name, float64(low)/float64(unit), float64(high)/float64(unit))
		return 0
	}
	return d
}

func (r *reader) seconds(flag, text string, low, high time.Duration) time.Duration {
	return r.span(flag, text, time.Second, low, high)
}

// offOrSeconds is seconds for a time that 0 turns off.
func (r *reader) offOrSeconds(flag, text string, low, high time.Duration) time.Duration {
	if n, err := strconv.ParseFloat(text, 64); isNumber(text) && err == nil && n == 0 {
		return 0
	}
	if d, err := time.ParseDuration(text); err == nil && d != 0 || isNumber(text) {
		return r.seconds(flag, text, low, high)
	}
	r.fail(flag, "%q is neither 0, for off, nor a number of seconds from %g to %g", text, low.Seconds(), high.Seconds())
	return 0
}

// isNumber reports whether text is digits with at most one point among them: no sign, no exponent.
func isNumber(text string) bool {
	return strings.Trim(text, "0123456789.") == "" && strings.ContainsAny(text, "0123456789") && strings.Count(text, ".") <= 1
}

// oneOf reads one of a few words.
func (r *reader) oneOf(flag, text string, words ...string) string {
	for _, w := range words {
		if strings.EqualFold(text, w) {
			return w
		}
	}
	r.fail(flag, "%q is not one of %s", text, strings.Join(words, ", "))
	return ""
}

// onOff reads a toggle.
func (r *reader) onOff(flag string, text toggle) bool {
	switch strings.ToLower(string(text)) {
	case "1", "on", "true", "yes":
		return true
	case "", "0", "off", "false", "no":
		return false
	}
	r.fail(flag, "%q is not one of on, off, 1, 0, true, false, yes, no", string(text))
	return false
}

// listen reads an address to listen on; the host may be missing.
func (r *reader) listen(flag, text string) string {
	if _, _, why := splitAddress(text, 0); why != "" {
		r.fail(flag, "%q %s: give host:port or :port, with a port from 0 to 65535", text, why)
	}
	return text
}

// dial reads an address that others connect to.
func (r *reader) dial(flag, text string) string {
	host, _, why := splitAddress(text, 1)
	if why == "" && (host == "" || isWildcard(host)) {
		why = "names no host"
	}
	if why != "" {
		r.fail(flag, "%q %s: give host:port, with a port from 1 to 65535", text, why)
	}
	return text
}

// splitAddress answers the parts of host:port, or why it is none.
func splitAddress(text string, lowest int) (host string, port int, why string) {
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, "is not an address"
	}
	port, err = strconv.Atoi(number)
	if err != nil || port < lowest || port > math.MaxUint16 {
		return "", 0, "has no port that can be used"
	}
	if strings.ContainsAny(host, "/@?#=, \t") {
		return "", 0, "has no host that can be used"
	}
	return host, port, ""
}

// isWildcard reports whether host stands for every address of the machine.
func isWildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// isLoopback reports whether host is sure to be this machine alone.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// origin reads the URL of the backend.
func (r *reader) origin(flag, text string) *url.URL {
	u, err := url.Parse(text)
	shown := text
	var why string
	switch {
	case err != nil:
		why = "is not a URL"
		if strings.Contains(text, "@") {
			shown = "the value (not shown: it may hold a password)"
		}
	case u.User != nil:
		why, shown = "has a user or a password", u.Redacted()
	case u.Scheme != "http" && u.Scheme != "https":
		why = "is not http:// or https://"
	case u.Hostname() == "":
		why = "names no host"
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		why = "has a path, and the visitor's path is forwarded as it is"
	default:
		if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
			if n, err := strconv.Atoi(port); err != nil || n < 1 || n > math.MaxUint16 {
				why = "has no port that can be used"
			}
		}
	}
	if why != "" {
		r.fail(flag, "%q %s: give http://host:port or https://host", shown, why)
		return nil
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}
}

// place reads where a visitor may be sent: a path of the site, or a whole URL.
func (r *reader) place(flag, text string) string {
	u, err := url.Parse(text)
	path := strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "//") && !strings.HasPrefix(text, `/\`)
	if err != nil || strings.ContainsAny(text, " \t\r\n") || !path && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		r.fail(flag, "%q is neither a path that begins with / nor an http or https URL", text)
	}
	return text
}

// sources reads who may frame a page, and answers it as a Content-Security-Policy says it.
func (r *reader) sources(flag, text string) string {
	var all []string
	words := strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' })
	for _, word := range words {
		switch u, err := url.Parse(strings.Replace(word, "*.", "", 1)); {
		case word == "self" || word == "none" && len(words) == 1:
			word = "'" + word + "'"
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
			u.Path != "" || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(word, ";'\"?#%"):
			r.fail(flag, "%q is not self, none alone, or origins such as https://shop.example", word)
			return ""
		}
		all = append(all, word)
	}
	if len(all) == 0 {
		r.fail(flag, "%q names nobody: give self, none, or origins such as https://shop.example", text)
	}
	return strings.Join(all, " ")
}

// cookieName reads a name as RFC 6265 allows it: a token of RFC 9110.
func (r *reader) cookieName(flag, text string) string {
	if text == "" || strings.Trim(text, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		r.fail(flag, "%q is not a cookie name: letters, digits and any of !#$%%&'*+-.^_`|~", text)
	}
	return text
}

// readable reads the path of a file that must open and hold no more than limit bytes; empty stays empty.
func (r *reader) readable(flag, path string, limit int64) string {
	if path == "" {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		r.fail(flag, "%q cannot be read: %v", path, reason(err))
		return ""
	}
	defer f.Close()
	switch info, err := f.Stat(); {
	case err != nil || !info.Mode().IsRegular():
		r.fail(flag, "%q is not a file", path)
	case info.Size() > limit:
		r.fail(flag, "%q has %d bytes, more than %d", path, info.Size(), limit)
	}
	return path
}

// visible reads a text without control characters.
func (r *reader) visible(flag, text string) string {
	if strings.ContainsFunc(text, unicode.IsControl) {
		r.fail(flag, "%q has a control character", text)
	}
	return text
}

// networks reads CIDRs, or single addresses, separated by commas or spaces.
func (r *reader) networks(flag, text string) []netip.Prefix {
	var all []netip.Prefix
	for _, item := range strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' }) {
		p, err := netip.ParsePrefix(item)
		if ip, single := netip.ParseAddr(item); err != nil && single == nil {
			p, err = ip.Prefix(ip.BitLen())
		}
		if err != nil {
			r.fail(flag, "%q is not a network such as 10.0.0.0/8 or fd00::/8", item)
			return nil
		}
		all = append(all, p.Masked())
	}
	return all
}

// nodeName reads the name of a node, as it stands in the list of peers.
func (r *reader) nodeName(flag, text string) string {
	if text == "" || len(text) > 64 || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`=,"\/`, c) }) {
		r.fail(flag, `%q is not a node name: up to 64 visible ASCII characters, none of = , " \ /`, text)
	}
	return text
}

// A peer is one node of the cluster and the address at which the others reach it.
type peer struct {
	ID, Address string
}

// peers reads n1=host:port,n2=host:port.
func (r *reader) peers(flag, text string) []peer {
	var all []peer
	seen := map[string]string{} // an id or an address → the peer that has it
	for item := range strings.SplitSeq(text, ",") {
		item = strings.TrimSpace(item)
		if item == "" && text == "" {
			break
		}
		id, address, found := strings.Cut(item, "=")
		if !found {
			r.fail(flag, "%q in %q is not name=host:port", item, text)
			return nil
		}
		p := peer{ID: r.nodeName(flag, id), Address: r.dial(flag, address)}
		for _, what := range []string{p.ID, p.Address} {
			if _, twice := seen[what]; twice {
				r.fail(flag, "%q has %s twice: every node needs a name and an address of its own", text, what)
			}
			seen[what] = p.ID
		}
		all = append(all, p)
	}
	if r.err != nil {
		return nil
	}
	return all
}

// reason is the part of a file error that does not repeat the path.
func reason(err error) error {
	if pe, ok := err.(*os.PathError); ok { //nolint:errorlint // os.Open and os.ReadFile answer it unwrapped
		return pe.Err
	}
	return err
}
