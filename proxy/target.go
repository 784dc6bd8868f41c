package proxy

import (
	"bytes"
)

// The paths that owr answers itself. They match byte for byte, so no spelling of a site's
// path can reach them by accident, nor the other way round.
const (
	pathHealth = "/wr_healthcheck"
	pathReady  = "/wr_ready"
	pathQueue  = "/queue.html"
	pathCheck  = "/wr_check"
)

func ownPath(path []byte) bool {
	switch string(path) {
	case pathHealth, pathReady, pathQueue, pathCheck:
		return true
	}
	return false
}

// safeTarget reports whether a visitor may be sent to target: a path on this host, with
// perhaps a query, that no browser can take for another host, and none of owr's own.
func safeTarget(target []byte) bool {
	path := target
	if i := bytes.IndexAny(target, "?#"); i >= 0 {
		path = target[:i]
	}
	if ownPath(path) || !plainPath(path) {
		return false
	}
	for _, c := range target {
		if c < ' ' || c == 0x7f || c == '\\' {
			return false
		}
	}
	// Somebody on the way may decode the path once more.
	decoded, ok := appendUnescaped(nil, path)
	return ok && plainPath(decoded)
}

// plainPath reports whether path begins with one slash and has no byte that browsers drop or
// take for a slash.
func plainPath(path []byte) bool {
	if len(path) == 0 || path[0] != '/' || len(path) > 1 && path[1] == '/' {
		return false
	}
	for _, c := range path {
		if c < ' ' || c == 0x7f || c == '\\' {
			return false
		}
	}
	return true
}

// queryValue returns the value of the first parameter of that name, percent-decoded, and
// whether there is one that can be decoded. A plus sign stays one.
func queryValue(target []byte, name string) ([]byte, bool) {
	_, query, _ := bytes.Cut(target, []byte{'?'})
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		if key, value, ok := bytes.Cut(pair, []byte{'='}); ok && string(key) == name {
			return appendUnescaped(nil, value)
		}
	}
	return nil, false
}

// queryPosition returns the position that a query carries, or 0.
func queryPosition(target []byte) int {
	value, ok := queryValue(target, "p")
	if !ok || len(value) == 0 || len(value) > 9 {
		return 0
	}
	n, ok := parseLength(value)
	if !ok {
		return 0
	}
	return int(n)
}

const hexDigits = "0123456789ABCDEF"

// appendEscaped appends a value as it may stand in a query: only what RFC 3986 calls
// unreserved, and the slash, stays as it is.
func appendEscaped(dst, value []byte) []byte {
	for _, c := range value {
		switch {
		case 'a' <= lowerByte(c) && lowerByte(c) <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~', c == '/':
			dst = append(dst, c)
		default:
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

// appendUnescaped is the inverse; it reports false for a percent sign without two digits.
func appendUnescaped(dst, value []byte) ([]byte, bool) {
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c == '%' {
			if i+2 >= len(value) {
				return dst, false
			}
			hi, lo := unhex(value[i+1]), unhex(value[i+2])
			if hi > 15 || lo > 15 {
				return dst, false
			}
			c = hi<<4 | lo
			i += 2
		}
		dst = append(dst, c)
	}
	return dst, true
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= lowerByte(c) && lowerByte(c) <= 'f':
		return lowerByte(c) - 'a' + 10
	}
	return 0xff
}

// appendLocation appends a target as a Location header may carry it: bytes that are no part
// of a URL are percent-encoded, everything else stays as it came.
func appendLocation(dst, target []byte) []byte {
	for _, c := range target {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '<' || c == '>' || c == '\\' {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// maxCarried is the longest way back, escaped, that a redirect carries: the page's own
// request and its polls have to stay within what a target may measure.
const maxCarried = 6 << 10

// appendQueuePage appends the address of the waiting page for a visitor that asked for
// target: the way back, when there is a safe one, and its position, when it has one.
func appendQueuePage(dst, target []byte, position int) []byte {
	dst = append(dst, pathQueue...)
	separator := byte('?')
	if safeTarget(target) {
		start := len(dst)
		dst = appendEscaped(append(dst, "?r="...), target)
		separator = '&'
		if len(dst)-start > maxCarried {
			dst, separator = dst[:start], '?'
		}
	}
	if position > 0 {
		dst = append(dst, separator, 'p', '=')
		dst = appendInt(dst, position)
	}
	return dst
}

// wayBack returns where a visitor that was let in goes: what the query of the request
// carries, else main.
func wayBack(target []byte, main string) []byte {
	if value, ok := queryValue(target, "r"); ok && safeTarget(value) {
		return appendLocation(nil, value)
	}
	return []byte(main)
}
