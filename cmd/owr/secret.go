package main

import (
	"io"
	"os"
	"strconv"
	"strings"
)

// A secret is a text that must not be shown: fmt, slog and encoding/json see a placeholder.
type secret string

func (s secret) String() string {
	if s == "" {
		return ""
	}
	return "(secret)"
}

// MarshalText keeps JSON from showing it.
func (s secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// GoString keeps %#v from showing it.
func (s secret) GoString() string { return strconv.Quote(s.String()) }

// secret reads a secret that is given as it is, or as the path of a file that holds it.
func (r *reader) secret(flag, text, path string) secret {
	s := secret(r.textOrFile(flag, text, path))
	if _, inEnv := r.env.origin[flag]; text != "" && !inEnv {
		r.env.warn("a secret on the command line can be read by every user of this machine (ps): give a file", "flag", "--"+flag, "instead", r.env.describe(flag+"-file"))
	}
	return s
}

// minToken is the length below which a bearer token can be guessed, in bytes.
const minToken = 16

// bearer reads a secret that has to fit into a header line.
func (r *reader) bearer(flag, text, path string) secret {
	s := r.secret(flag, text, path)
	if strings.Trim(string(s), " ") != string(s) || strings.ContainsFunc(string(s), func(c rune) bool { return c < ' ' || c > '~' }) {
		r.fail(flag, "it has a character that cannot be sent as a bearer token: give visible ASCII")
		return ""
	}
	if s != "" && len(s) < minToken {
		r.env.warn("a token this short can be guessed: make one with openssl rand -hex 32", "setting", r.env.describe(flag), "bytes", len(s), "at_least", minToken)
	}
	return s
}

// textOrFile reads a text that is given as it is, or as the path of a file that holds it. What the
// command line says wins over the environment; both in one place are a contradiction.
func (r *reader) textOrFile(flag, text, path string) string {
	fileFlag := flag + "-file"
	_, textInEnv := r.env.origin[flag]
	_, fileInEnv := r.env.origin[fileFlag]
	if text != "" && path != "" {
		switch {
		case textInEnv && !fileInEnv:
			text = ""
		case fileInEnv && !textInEnv:
			path = ""
		default:
			r.fail(flag, "set it or %s, not both", r.env.describe(fileFlag))
			return ""
		}
	}
	if path == "" {
		return text
	}
	return r.secretFile(fileFlag, path)
}

// maxSecret is more than any secret needs, in bytes.
const maxSecret = 64 << 10

// isPrivate looks at who may touch a secret's file. What anybody may write is no secret, so it is refused; what others may read or a group
// may write is told in the log alone, because container platforms mount secrets like that and keep others out in other ways.
func (r *reader) isPrivate(flag, path string, mode os.FileMode) bool {
	switch {
	case !mode.IsRegular(): // a pipe's mode says nothing
	case mode.Perm()&0o002 != 0:
		r.fail(flag, "%q may be written by everybody (%v): chmod 0600", path, mode.Perm())
		return false
	case mode.Perm()&0o064 != 0:
		r.env.warn("a secret's file is open to others than its owner: chmod 0600 where that is possible", "setting", r.env.describe(flag), "file", path, "mode", mode.Perm().String())
	}
	return true
}

// privateKey looks at who may touch the file of a private key. Whether there is one is for others to say.
func (r *reader) privateKey(flag, path string) bool {
	info, err := os.Stat(path)
	return err != nil || r.isPrivate(flag, path, info.Mode())
}

// secretFile reads a secret from a file, without the line's end.
func (r *reader) secretFile(flag, path string) string {
	f, err := os.Open(path)
	if err != nil {
		r.fail(flag, "%q cannot be read: %v", path, reason(err))
		return ""
	}
	defer f.Close()
	info, err := f.Stat() // of what a link leads to
	if err != nil {
		r.fail(flag, "%q cannot be read: %v", path, reason(err))
		return ""
	}
	if !r.isPrivate(flag, path, info.Mode()) {
		return ""
	}
	content, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	text := strings.TrimRight(string(content), "\r\n")
	switch {
	case err != nil:
		r.fail(flag, "%q cannot be read: %v", path, reason(err))
	case len(content) > maxSecret:
		r.fail(flag, "%q has more than %d bytes, which is no secret", path, maxSecret)
	case text == "":
		r.fail(flag, "%q is empty", path)
	}
	return text
}
