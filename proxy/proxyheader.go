package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// The PROXY protocol is how a balancer that does not read HTTP tells whose connection it passes on: a header before the first
// byte of the connection, as a line (version 1) or in binary (version 2).
// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
//
// The header is read to its last byte and no further, so that the connection can go on to a loop as if the client had made it.

const (
	proxyHeaderTimeout = 3 * time.Second // for a whole header

	proxyLine   = 107     // the longest header of version 1, its line end included
	proxyFixed  = 16      // of version 2: signature, command, family, length
	maxProxyTLV = 4 << 10 // what may follow in version 2: addresses, and what else the balancer has to tell
)

var proxySignature = []byte("\r\n\r\n\x00\r\nQUIT\n")

var errProxyHeader = errors.New("no PROXY protocol header")

// A proxied is what a header says of its connection.
type proxied struct {
	from   netip.Addr // who has made it; invalid: somebody whose address the balancer does not know, or does not tell
	itself bool       // the balancer has, to look whether we live
}

// readProxyHeader reads the header of a connection. Only LOCAL, in version 2, says that the balancer speaks for itself, and as such is
// believed what it says of others. Whoever has no address is not the balancer: a client that comes to it by a Unix socket, say.
func readProxyHeader(r io.Reader) (proxied, error) {
	var buf [proxyLine]byte
	head := buf[:len(proxySignature)] // what is shorter is a header of neither version
	if _, err := io.ReadFull(r, head); err != nil {
		return proxied{}, err
	}
	if bytes.Equal(head, proxySignature) {
		return readProxyBinary(r)
	}
	if !bytes.HasPrefix(head, []byte("PROXY ")) {
		return proxied{}, errProxyHeader
	}
	for n := len(head); ; n++ { // byte by byte: what follows the line is not ours. Version 2 costs three reads
		switch {
		case buf[n-1] == '\n':
			return parseProxyLine(buf[:n])
		case n == len(buf):
			return proxied{}, errProxyHeader
		}
		if _, err := io.ReadFull(r, buf[n:n+1]); err != nil {
			return proxied{}, err
		}
	}
}

// parseProxyLine reads "PROXY TCP4 source destination sourceport destinationport\r\n", each with one space.
func parseProxyLine(line []byte) (proxied, error) {
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return proxied{}, errProxyHeader
	}
	if text = text[len("PROXY "):]; bytes.Equal(text, []byte("UNKNOWN")) || bytes.HasPrefix(text, []byte("UNKNOWN ")) {
		return proxied{}, nil
	}
	parts := bytes.Split(text, []byte{' '})
	if len(parts) != 5 || !isPort(parts[3]) || !isPort(parts[4]) {
		return proxied{}, errProxyHeader
	}
	var wide bool
	switch string(parts[0]) {
	case "TCP4":
	case "TCP6":
		wide = true
	default:
		return proxied{}, errProxyHeader
	}
	from, err := netip.ParseAddr(string(parts[1]))
	to, err2 := netip.ParseAddr(string(parts[2]))
	if err != nil || err2 != nil || from.Is4() == wide || to.Is4() == wide || from.Zone() != "" {
		return proxied{}, errProxyHeader
	}
	return proxied{from: from.Unmap()}, nil
}

func isPort(text []byte) bool {
	n, err := strconv.ParseUint(string(text), 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == string(text)
}

// readProxyBinary reads what follows the signature.
func readProxyBinary(r io.Reader) (proxied, error) {
	var fixed [proxyFixed - 12]byte // the signature has been read
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return proxied{}, err
	}
	command, family, length := fixed[0], fixed[1], int(binary.BigEndian.Uint16(fixed[2:]))
	if command>>4 != 2 || length > maxProxyTLV {
		return proxied{}, errProxyHeader
	}
	rest := make([]byte, length)
	if _, err := io.ReadFull(r, rest); err != nil {
		return proxied{}, err
	}
	switch {
	case command&0xf == 0: // LOCAL
		return proxied{itself: true}, nil
	case command&0xf != 1:
		return proxied{}, errProxyHeader
	case family == 0x11 && length >= 12: // TCP over IPv4
		return proxied{from: netip.AddrFrom4([4]byte(rest))}, nil
	case family == 0x21 && length >= 36: // TCP over IPv6
		return proxied{from: netip.AddrFrom16([16]byte(rest)).Unmap()}, nil
	case family == 0x00 || family == 0x31: // of no kind, and a Unix socket
		return proxied{}, nil
	}
	return proxied{}, errProxyHeader
}

var noProxyHeader = []byte("HTTP/1.1 400 Bad Request\r\nCache-Control: no-store\r\nVary: Cookie\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

// introduce reads the header of a connection from a trusted proxy and goes on with it as the client's. Its errors end the
// connection.
func (s *Server) introduce(c *clientConn) {
	conn := c.Conn
	if c.paced != nil {
		conn = c.paced.Conn // the header comes before TLS
	}
	_ = conn.SetReadDeadline(time.Now().Add(proxyHeaderTimeout))
	who, err := readProxyHeader(conn)
	if !c.state.CompareAndSwap(connIdle, connActive) {
		return // a shutdown has closed it
	}
	if err != nil {
		s.metrics.refused.Inc()
		s.log.Debug("a trusted proxy has sent no PROXY protocol header", "peer", c.peer, "err", err)
		if errors.Is(err, errProxyHeader) && c.paced == nil {
			_, _ = c.Write(noProxyHeader)
			c.lingers()
		}
		_ = c.Close()
		return
	}
	if !who.itself && !s.conns.rename(c, who.from, s.countsConns(who.from)) {
		s.metrics.limited[limitAddress].Inc()
		if c.paced == nil {
			_, _ = c.Write(unwelcome(limitAddress))
		}
		_ = c.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	c.state.CompareAndSwap(connActive, connIdle)
	if s.draining.Load() {
		c.closeIfIdle()
		return
	}
	switch {
	case c.paced != nil:
		s.serveSecure(c)
	case !s.goBack(c, s.cfg.HeaderTimeout):
		s.serveClient(c)
	}
}

// introduces reports whether a connection begins with a PROXY protocol header.
func (s *Server) introduces(conn net.Conn) bool {
	return s.cfg.ProxyProtocol && s.isTrusted(peerAddr(conn.RemoteAddr()))
}
