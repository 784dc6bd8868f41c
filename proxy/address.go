package proxy

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
)

// A sender is who a request comes from.
type sender struct {
	peer    netip.Addr // the other end of the connection
	client  netip.Addr // the visitor: the peer, or whom a trusted peer speaks for
	trusted bool       // the peer's X-Forwarded-… lines are believed
	https   bool       // the visitor's side is https
}

// peerAddr is the address of the other end, without a port and without the IPv6 form of an
// IPv4 address.
func peerAddr(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

func (s *Server) isTrusted(a netip.Addr) bool {
	for _, p := range s.cfg.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// senderOf finds out who sent a request. Only what a trusted peer says is believed, and of
// its X-Forwarded-For only the end: the last address that is not itself a trusted proxy.
func (s *Server) senderOf(peer netip.Addr, fields []field) sender {
	from := sender{peer: peer, client: peer, https: s.tls != nil}
	if len(s.cfg.TrustedProxies) == 0 || !s.isTrusted(peer) {
		return from
	}
	from.trusted = true
	named := false
	for _, f := range slices.Backward(fields) {
		if f.kind == fieldForwardedFor {
			named = true
			if !s.walk(f.value, &from) {
				break
			}
		}
	}
	for i := range fields {
		switch f := &fields[i]; f.kind {
		case fieldRealIP:
			if a, ok := parseAddr(f.value); ok && !named {
				from.client = a
			}
		case fieldForwardedProto:
			first, _ := nextElement(f.value)
			from.https = equalFold(first, "https")
		}
	}
	return from
}

// walk goes through one X-Forwarded-For line from its end and reports whether an earlier line
// may say more.
func (s *Server) walk(line []byte, from *sender) bool {
	for {
		i := bytes.LastIndexByte(line, ',')
		a, ok := parseAddr(trimSpace(line[i+1:]))
		if !ok {
			return false
		}
		from.client = a
		if !s.isTrusted(a) {
			return false
		}
		if i < 0 {
			return true
		}
		line = line[:i]
	}
}

// parseAddr reads an address as proxies write it: bare, in brackets, or with a port.
func parseAddr(text []byte) (netip.Addr, bool) {
	t := string(text)
	if a, err := netip.ParseAddr(t); err == nil {
		return a.Unmap().WithZone(""), true
	}
	if ap, err := netip.ParseAddrPort(t); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	if n := len(t); n > 2 && t[0] == '[' && t[n-1] == ']' {
		if a, err := netip.ParseAddr(t[1 : n-1]); err == nil {
			return a.Unmap().WithZone(""), true
		}
	}
	return netip.Addr{}, false
}
