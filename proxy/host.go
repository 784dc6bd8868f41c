package proxy

import "bytes"

// hostBytes are the bytes of a host and its port: letters and digits, and what else names and addresses are made of.
var hostBytes = func() (table [256]hostByte) {
	for _, c := range []byte(".-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		table[c] = hostName
	}
	table[':'] = hostColon
	for _, c := range []byte("[]%~") {
		table[c] = hostSpecial
	}
	return table
}()

// A hostByte says where in a host a byte may stand; zero: nowhere.
type hostByte uint8

const (
	hostName    hostByte = 1 << iota // in a name or an IPv4 address
	hostColon                        // ahead of a port, or in brackets
	hostSpecial                      // elsewhere
)

// readHost reports whether a Host value names a host and perhaps a port, and nothing else, and whether that host is
// plain: a name or an IPv4 address.
func readHost(host []byte) (valid, plain bool) {
	var seen hostByte
	for _, c := range host {
		b := hostBytes[c]
		if b == 0 {
			return false, false
		}
		seen |= b
	}
	if seen == hostName {
		return true, true
	}
	// What follows the first colon outside brackets is a port, and what stands ahead of it is never nothing: some take such a host
	// for their default one.
	name, port := host, []byte(nil)
	end := bytes.LastIndexByte(host, ']') + 1
	if i := bytes.IndexByte(host[end:], ':'); i >= 0 {
		name, port = host[:end+i], host[end+i+1:]
	}
	if len(name) == 0 || end > 0 && (len(name) > end || end < len("[::]")) {
		return false, false
	}
	return isHostPort(port), seen&hostSpecial == 0
}

// isHostPort reports whether text may follow the colon behind a host: a port, or nothing (RFC 3986, section 3.2.3).
func isHostPort(text []byte) bool {
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return len(text) <= len("65535") && n <= 65535
}

func validHost(host []byte) bool {
	valid, _ := readHost(host)
	return valid
}
