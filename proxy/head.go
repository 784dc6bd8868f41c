package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// A field is one header line as it came. Both slices point into the head that was read.
type field struct {
	name  []byte
	value []byte // without the white space around it
	kind  fieldKind
}

// A fieldKind says what the proxy has to do with a header. Everything else it passes on.
type fieldKind uint8

const (
	fieldOther fieldKind = iota
	fieldAccept
	fieldCacheControl
	fieldConnection
	fieldContentLength
	fieldCookie
	fieldExpect
	fieldForwarded // Forwarded, and every X-Forwarded-… that has no kind of its own
	fieldForwardedFor
	fieldForwardedHost
	fieldForwardedProto
	fieldHop // ends at the next hop (RFC 9110, section 7.6.1), whatever Connection says
	fieldHost
	fieldRealIP
	fieldRewrite // would change the path behind our back: X-Original-URL and its like
	fieldSetCookie
	fieldSharedCache // Cache-Control of one kind of shared cache
	fieldTransferEncoding
	fieldUpgrade
)

// knownFields are the names that mean something to the proxy, in lower case.
var knownFields = func() (byLength [32][]knownField) {
	for name, kind := range map[string]fieldKind{
		"accept":              fieldAccept,
		"cache-control":       fieldCacheControl,
		"connection":          fieldConnection,
		"content-length":      fieldContentLength,
		"cookie":              fieldCookie,
		"expect":              fieldExpect,
		"forwarded":           fieldForwarded,
		"x-forwarded-for":     fieldForwardedFor,
		"x-forwarded-host":    fieldForwardedHost,
		"x-forwarded-proto":   fieldForwardedProto,
		"x-real-ip":           fieldRealIP,
		"keep-alive":          fieldHop,
		"proxy-connection":    fieldHop,
		"proxy-authenticate":  fieldHop,
		"proxy-authorization": fieldHop,
		"te":                  fieldHop,
		"trailer":             fieldHop,
		"http2-settings":      fieldHop,
		"host":                fieldHost,
		"x-original-url":      fieldRewrite,
		"x-rewrite-url":       fieldRewrite,
		"set-cookie":          fieldSetCookie,
		"cdn-cache-control":   fieldSharedCache,
		"surrogate-control":   fieldSharedCache,
		"transfer-encoding":   fieldTransferEncoding,
		"upgrade":             fieldUpgrade,
	} {
		byLength[len(name)] = append(byLength[len(name)], knownField{name, kind})
	}
	return byLength
}()

type knownField struct {
	name string
	kind fieldKind
}

// knownFirsts has a bit for the first letter of each name of a length.
var knownFirsts = func() (byLength [len(knownFields)]uint32) {
	for length, known := range knownFields {
		for _, k := range known {
			byLength[length] |= 1 << (k.name[0] & 31)
		}
		if length > len(forwardedPrefix) {
			byLength[length] |= 1 << (forwardedPrefix[0] & 31)
		}
	}
	return byLength
}()

// forwardedPrefix begins the names of what proxies say of a request, to which each adds its own: -User, -Email, -Client-Cert.
const forwardedPrefix = "x-forwarded-"

// kindOf finds the kind of a header name. Many origins read X_Forwarded_For as
// X-Forwarded-For, so what only an underscore tells from a forwarding header is cut out.
func kindOf(name []byte) fieldKind {
	// What browsers send with every request, as they write it.
	switch string(name) {
	case "Host":
		return fieldHost
	case "Accept":
		return fieldAccept
	case "Cookie":
		return fieldCookie
	case "Connection":
		return fieldConnection
	case "Cache-Control":
		return fieldCacheControl
	}
	kind := knownKind(name)
	if kind == fieldOther && len(name) > len(forwardedPrefix) && lowerByte(name[0]) == 'x' {
		switch same, exact := sameName(name[:len(forwardedPrefix)], forwardedPrefix); {
		case same && exact:
			return fieldForwarded
		case same:
			return fieldRewrite
		}
	}
	return kind
}

// hasKind is false for most names that have no kind, after one look.
func hasKind(name []byte) bool {
	return len(name) >= len(knownFields) || len(name) > 0 && knownFirsts[len(name)]>>(name[0]&31)&1 != 0
}

func knownKind(name []byte) fieldKind {
	if len(name) >= len(knownFields) {
		return fieldOther
	}
	for i := range knownFields[len(name)] {
		k := &knownFields[len(name)][i]
		switch same, exact := sameName(name, k.name); {
		case same && exact:
			return k.kind
		case same && (name[0] == 'x' || name[0] == 'X'):
			return fieldRewrite
		}
	}
	return fieldOther
}

// sameName compares a name with one in lower case; exact is false when an underscore stood
// for a dash.
func sameName(name []byte, lower string) (same, exact bool) {
	exact = true
	for i, c := range name {
		if c == '_' && lower[i] == '-' {
			c, exact = '-', false
		}
		if lowerByte(c) != lower[i] {
			return false, false
		}
	}
	return true, exact
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// equalFold compares ASCII text without regard to case; lower is in lower case.
func equalFold(text []byte, lower string) bool {
	if len(text) != len(lower) {
		return false
	}
	for i, c := range text {
		if lowerByte(c) != lower[i] {
			return false
		}
	}
	return true
}

var (
	errLine = errors.New("a header line has a control byte or no proper end")
	errFold = errors.New("a header line is folded")
	errName = errors.New("a header line has no proper name and colon")
)

// parseFields reads header lines up to the empty line or the end of block and appends them
// to fields. It accepts what RFC 9112 calls a field line and nothing that its readers have
// disagreed about: no bare CR or LF, no folding, no white space around a name, and nothing
// behind the empty line.
func parseFields(block []byte, fields []field) ([]field, error) {
	for at := 0; at < len(block); {
		switch block[at] {
		case '\r':
			if string(block[at:]) != "\r\n" {
				return fields, errLine
			}
			return fields, nil
		case ' ', '\t':
			return fields, errFold
		}
		colon := letters(block, at)
		if colon < len(block) && block[colon] != ':' {
			colon = tokenEnd(block, colon)
		}
		if colon == at || colon == len(block) || block[colon] != ':' {
			return fields, errName
		}
		value := colon + 1
		if value < len(block) && block[value] == ' ' {
			value++
		}
		end := printable(block, value)
		if end < len(block) && block[end] != '\r' {
			end = textEnd(block, end)
		}
		if end+1 >= len(block) || block[end] != '\r' || block[end+1] != '\n' {
			return fields, errLine
		}
		if len(fields) == cap(fields) {
			fields = append(fields, field{})
		} else {
			fields = fields[:len(fields)+1]
		}
		f := &fields[len(fields)-1]
		f.name = block[at:colon]
		if f.kind = fieldOther; hasKind(f.name) {
			f.kind = kindOf(f.name)
		}
		if f.value = block[value:end]; value < end && (block[value] <= ' ' || block[end-1] <= ' ') {
			f.value = trimSpace(f.value)
		}
		at = end + 2
	}
	return fields, nil
}

const ones, lows, tops = 0x0101010101010101, 0x7f7f7f7f7f7f7f7f, 0x8080808080808080

// controls has the top bit of each byte of eight that is a control byte: below 0x20, or 0x7f.
func controls(eight uint64) uint64 {
	low := eight & lows // so that nothing is carried from byte to byte
	return (^(low + (0x80-' ')*ones) | (low + ones)) &^ eight & tops
}

// unusual has the top bit of each byte of eight that is no letter and no dash, of which most names are.
func unusual(eight uint64) uint64 {
	low := eight & lows
	letter := low | 0x20*ones
	letter = (letter + (0x80-'a')*ones) &^ (letter + (0x7f-'z')*ones)
	dash := ^((low ^ '-'*ones) + lows)
	return ^((letter | dash) &^ eight) & tops
}

// letters returns a place up to which b has nothing but letters and dashes from at on.
func letters(b []byte, at int) int {
	for len(b)-at >= 8 {
		if hit := unusual(binary.LittleEndian.Uint64(b[at:])); hit != 0 {
			return at + bits.TrailingZeros64(hit)/8
		}
		at += 8
	}
	return at
}

// printable returns a place up to which b has no control byte from at on.
func printable(b []byte, at int) int {
	for len(b)-at >= 8 {
		if hit := controls(binary.LittleEndian.Uint64(b[at:])); hit != 0 {
			return at + bits.TrailingZeros64(hit)/8
		}
		at += 8
	}
	return at
}

// textEnd returns where the text that begins at at ends: at a control byte, unless it is a tab, or with b.
func textEnd(b []byte, at int) int {
	at = printable(b, at)
	for at < len(b) && textByte(b[at]) {
		at++
	}
	return at
}

// tokenEnd returns where the token that begins at at ends.
func tokenEnd(b []byte, at int) int {
	for i, c := range b[at:] {
		if !tokenBytes[c] {
			return at + i
		}
	}
	return len(b)
}

// textByte reports whether a byte may stand in a header value: no control byte but the tab.
func textByte(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }

// tokenBytes are the bytes of a token in RFC 9110, section 5.6.2: methods and header names.
var tokenBytes = func() (table [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		table[c] = true
	}
	return table
}()

// trimSpace cuts spaces and tabs, and only those, from both ends.
func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// nextElement cuts the first element off a comma separated list.
func nextElement(list []byte) (element, rest []byte) {
	element, rest, _ = bytes.Cut(list, []byte{','})
	return trimSpace(element), rest
}

// A head is what the proxy knows of one request. Its slices point into the request and are
// gone when the handler returns.
type head struct {
	method  []byte
	target  []byte // path and query as sent; "*" for OPTIONS *
	path    []byte // target up to the query
	host    []byte
	plain   bool   // host is a name or an IPv4 address, perhaps with a port
	html    bool   // the client takes HTML, or does not say what it takes
	upgrade []byte // what the client asks to upgrade to, when Connection says so too
	http10  bool
	expects bool  // there is an Expect line
	length  int64 // of the body; -1: chunked; 0: none
	sized   bool  // there is a Content-Length line
	fields  []field
	named   [][]byte // header names that Connection lists
}

// A refusal is a request that is answered without asking anybody, and the connection closed.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d: %s", r.status, r.reason) }

// maxTarget is the longest request target taken (CONTRACT: 414 beyond it).
const maxTarget = 8 << 10

// readRaw fills h from a whole head, from the request line to the empty line. Every request that the proxy acts on is read
// here, whichever way it takes from then on, and what is ambiguous is refused.
func (h *head) readRaw(raw []byte) *refusal {
	end := bytes.IndexByte(raw, '\n')
	first := bytes.IndexByte(raw, ' ')
	if first < 1 || first > end || raw[end-1] != '\r' {
		return h.noRequest()
	}
	target, proto, ok := bytes.Cut(raw[first+1:end-1], []byte{' '})
	if !ok {
		return h.noRequest()
	}
	return h.read(raw[:first], target, proto, raw[end+1:])
}

func (h *head) noRequest() *refusal {
	*h = head{fields: h.fields[:0], named: h.named[:0]}
	return &refusal{400, "request line"}
}

// read fills h from the parts of a head: block is what follows the request line.
func (h *head) read(method, target, proto, block []byte) *refusal {
	*h = head{method: method, target: target, fields: h.fields[:0], named: h.named[:0]}
	switch {
	case string(proto) == "HTTP/1.1":
	case string(proto) == "HTTP/1.0":
		h.http10 = true
	case isVersion(proto):
		return &refusal{505, "HTTP version"}
	default:
		return &refusal{400, "request line"}
	}
	if len(target) > maxTarget {
		return &refusal{414, "target too long"}
	}
	for _, c := range method {
		if !tokenBytes[c] {
			return &refusal{400, "method"}
		}
	}
	var err error
	if h.fields, err = parseFields(block, h.fields); err != nil {
		return &refusal{400, err.Error()}
	}
	if r := h.readFields(); r != nil {
		return r
	}
	return h.readTarget()
}

// isVersion reports whether text names a version of HTTP (RFC 9112, section 2.3).
func isVersion(text []byte) bool {
	return len(text) == 8 && string(text[:5]) == "HTTP/" && text[6] == '.' &&
		'0' <= text[5] && text[5] <= '9' && '0' <= text[7] && text[7] <= '9'
}

// maxNamed is how many names Connection may list, over all its lines. Browsers list one or two. Each field of the head is compared
// with each of them, so a head of nothing else would cost a loop, and all whom it serves, millions of comparisons.
const maxNamed = 32

func (h *head) readFields() *refusal {
	hosts, hostOK, upgradeNamed, accepts := 0, false, false, false
	for i := range h.fields {
		f := &h.fields[i]
		switch f.kind {
		case fieldHost:
			hosts++
			h.host = f.value
			hostOK, h.plain = readHost(f.value)
		case fieldAccept:
			accepts = accepts || len(f.value) > 0
			h.html = h.html || takesHTML(f.value)
		case fieldContentLength:
			n, ok := parseLength(f.value)
			if h.sized || h.length < 0 || !ok {
				return &refusal{400, "Content-Length"}
			}
			h.sized, h.length = true, n
		case fieldTransferEncoding:
			if h.sized || h.length < 0 || h.http10 || !equalFold(f.value, "chunked") {
				return &refusal{400, "Transfer-Encoding"}
			}
			h.length = -1
		case fieldConnection:
			for list := f.value; list != nil; {
				var name []byte
				if name, list = nextElement(list); len(name) > 0 {
					if len(h.named) == maxNamed {
						return &refusal{400, "Connection"}
					}
					h.named = append(h.named, name)
					upgradeNamed = upgradeNamed || equalFold(name, "upgrade")
				}
			}
		case fieldUpgrade:
			h.upgrade = f.value
		case fieldExpect:
			h.expects = true
		}
	}
	h.html = h.html || !accepts
	if !upgradeNamed || h.http10 {
		h.upgrade = nil
	}
	if hosts > 1 || hosts == 0 && !h.http10 || hosts == 1 && !hostOK {
		return &refusal{400, "Host"}
	}
	return nil
}

func (h *head) readTarget() *refusal {
	switch {
	case string(h.method) == "CONNECT" || string(h.method) == "TRACE":
		return &refusal{405, "method"}
	case string(h.target) == "*":
		if string(h.method) != "OPTIONS" {
			return &refusal{400, "target"}
		}
	case len(h.target) == 0:
		return &refusal{400, "target"}
	case h.target[0] != '/':
		// absolute-form: it must name the host that Host names, and goes on as origin-form.
		rest, ok := cutPrefixFold(h.target, "http://")
		if !ok {
			rest, ok = cutPrefixFold(h.target, "https://")
		}
		slash := bytes.IndexAny(rest, "/?")
		if slash < 0 {
			slash = len(rest)
		}
		if !ok || !bytes.EqualFold(rest[:slash], h.host) {
			return &refusal{400, "target"}
		}
		if h.target = rest[slash:]; len(h.target) == 0 || h.target[0] != '/' {
			h.target = append([]byte{'/'}, h.target...)
		}
	}
	h.path = h.target
	if i := bytes.IndexByte(h.target, '?'); i >= 0 {
		h.path = h.target[:i]
	}
	if bytes.IndexByte(h.path, '\\') >= 0 || bytes.Contains(h.path, escapedNUL) {
		return &refusal{400, "target"}
	}
	if textEnd(h.target, 0) < len(h.target) {
		return &refusal{400, "target"}
	}
	for _, never := range []byte(" \t#") { // a fragment is the browser's own (RFC 9110, section 7.1), and servers differ about it
		if bytes.IndexByte(h.target, never) >= 0 {
			return &refusal{400, "target"}
		}
	}
	return nil
}

// escapedNUL ends a path for whoever decodes it into a C string, and for nobody else.
var escapedNUL = []byte("%00")

func cutPrefixFold(b []byte, lower string) ([]byte, bool) {
	if len(b) < len(lower) || !equalFold(b[:len(lower)], lower) {
		return nil, false
	}
	return b[len(lower):], true
}

// parseLength reads a Content-Length: digits and nothing else, up to 2^62.
func parseLength(value []byte) (int64, bool) {
	if len(value) == 0 || len(value) > 18 {
		return 0, false
	}
	n := int64(0)
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// hasBody reports whether bytes follow the head.
func (h *head) hasBody() bool { return h.length != 0 }

// names reports whether Connection lists a header, which then ends here.
func (h *head) names(name []byte) bool { return contains(h.named, name) }

func contains(list [][]byte, name []byte) bool {
	for _, n := range list {
		if bytes.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// navigation reports whether a browser asks for a page: GET or HEAD by somebody who takes
// HTML or does not say what it takes.
func (h *head) navigation() bool {
	return h.html && (string(h.method) == "GET" || string(h.method) == "HEAD")
}

// takesHTML reports whether an Accept value names HTML, or everything.
func takesHTML(value []byte) bool {
	for at := 0; ; at++ {
		i := bytes.IndexByte(value[at:], '/')
		if i < 0 {
			return false
		}
		at += i
		if at > 0 && value[at-1] == '*' && at+1 < len(value) && value[at+1] == '*' {
			return true
		}
		if at >= len("text") && at+len("/html") <= len(value) && equalFold(value[at-len("text"):at+len("/html")], "text/html") {
			return true
		}
	}
}

func containsFold(text []byte, lower string) bool {
	for i := 0; i+len(lower) <= len(text); i++ {
		if equalFold(text[i:i+len(lower)], lower) {
			return true
		}
	}
	return false
}
