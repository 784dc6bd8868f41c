package proxy

import (
	"bytes"
	"net/netip"
)

// appendOriginHead appends the head of the request to the origin: the visitor's own lines in
// their order and spelling, without what ends here, without owr's cookie, and with what the
// origin has to know about the visitor.
func (s *Server) appendOriginHead(dst []byte, h *head, from *sender) []byte {
	dst = append(dst, h.method...)
	dst = append(dst, ' ')
	dst = append(dst, h.target...)
	dst = append(dst, " HTTP/1.1\r\n"...)
	if len(h.host) == 0 {
		dst = appendLine(dst, "Host", []byte(s.cfg.Backend.Host)) // HTTP/1.0 may leave it out
	}
	forwarded := false // a trusted peer's X-Forwarded-Host has gone along
	for i := range h.fields {
		f := &h.fields[i]
		switch f.kind {
		case fieldHop, fieldConnection, fieldTransferEncoding, fieldExpect, fieldUpgrade, fieldRewrite,
			fieldForwardedFor, fieldForwardedProto, fieldRealIP:
			continue
		case fieldCookie:
			start := len(dst)
			dst = append(dst, f.name...)
			dst = append(dst, ": "...)
			value := len(dst)
			dst = appendWithout(dst, f.value, s.cfg.CookieName)
			if len(dst) == value && len(f.value) > 0 {
				dst = dst[:start] // nothing but ours
				continue
			}
			dst = append(dst, "\r\n"...)
			continue
		case fieldForwarded:
			if !from.trusted {
				continue
			}
		case fieldForwardedHost:
			if !from.trusted || forwarded || !validHost(f.value) {
				continue
			}
			forwarded = true
		case fieldHost, fieldContentLength:
			// Connection cannot take these away: the origin would read another request than we did.
		default:
			if h.names(f.name) && !equalFold(f.name, "authorization") {
				continue
			}
		}
		dst = appendField(dst, f)
	}
	if h.length < 0 {
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	dst = s.appendForwarding(dst, h, from, forwarded)
	if len(h.upgrade) > 0 {
		dst = append(dst, "Connection: Upgrade\r\nUpgrade: websocket\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// appendForwarding appends who the visitor is and how it came.
func (s *Server) appendForwarding(dst []byte, h *head, from *sender, hostSent bool) []byte {
	dst = append(dst, "X-Real-IP: "...)
	dst = appendAddr(dst, from.client)
	dst = append(dst, "\r\nX-Forwarded-For: "...)
	if from.trusted {
		for i := range h.fields {
			if h.fields[i].kind == fieldForwardedFor && len(h.fields[i].value) > 0 {
				dst = append(dst, h.fields[i].value...)
				dst = append(dst, ", "...)
			}
		}
	}
	dst = appendAddr(dst, from.peer)
	dst = append(dst, "\r\nX-Forwarded-Proto: "...)
	if from.https {
		dst = append(dst, "https\r\n"...)
	} else {
		dst = append(dst, "http\r\n"...)
	}
	if !hostSent && len(h.host) > 0 {
		dst = appendLine(dst, "X-Forwarded-Host", h.host)
	}
	return dst
}

func appendAddr(dst []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(dst, "unknown"...)
	}
	return a.AppendTo(dst)
}

func appendLine(dst []byte, name string, value []byte) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}

func appendField(dst []byte, f *field) []byte {
	dst = append(dst, f.name...)
	dst = append(dst, ": "...)
	dst = append(dst, f.value...)
	return append(dst, "\r\n"...)
}

// appendClientFields appends the origin's header lines that go on to the visitor: without
// what ends here, without a cookie of our name, and, when the response gains our Set-Cookie,
// without permission for a shared cache to keep it.
func appendClientFields(dst []byte, r *response, cookieName string, gains bool) []byte {
	for i := range r.fields {
		f := &r.fields[i]
		switch f.kind {
		case fieldHop, fieldConnection, fieldTransferEncoding, fieldUpgrade, fieldContentLength:
			continue
		case fieldSetCookie:
			if setsCookie(f.value, cookieName) {
				continue
			}
		case fieldCacheControl:
			if gains {
				continue
			}
		case fieldSharedCache:
			if gains {
				continue
			}
		default:
			if contains(r.named, f.name) {
				continue
			}
		}
		dst = appendField(dst, f)
	}
	if gains {
		dst = append(dst, "Cache-Control: private"...)
		for i := range r.fields {
			if r.fields[i].kind == fieldCacheControl {
				dst = appendPrivate(dst, r.fields[i].value)
			}
		}
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// appendPrivate appends the directives of a Cache-Control value that may stand beside
// private. Those with a quoted argument go too: they speak to shared caches.
func appendPrivate(dst, value []byte) []byte {
	if bytes.IndexByte(value, '"') >= 0 {
		if containsFold(value, "no-store") {
			dst = append(dst, ", no-store"...)
		}
		return dst
	}
	for rest := value; rest != nil; {
		var directive []byte
		directive, rest = nextElement(rest)
		name, _, _ := bytes.Cut(directive, []byte{'='})
		switch {
		case len(directive) == 0, equalFold(name, "public"), equalFold(name, "private"), equalFold(name, "s-maxage"), equalFold(name, "proxy-revalidate"):
			continue
		}
		dst = append(dst, ", "...)
		dst = append(dst, directive...)
	}
	return dst
}
