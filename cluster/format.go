package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A file of owr begins with a line that says what it is and in which format: "owr snapshot 2". From some format on a
// second line names the version of owr that wrote it, in every later format too, so that a version which can not read
// the rest can tell which one can.
const (
	snapshotKind   = "owr snapshot "
	snapshotFormat = 3 // the newest that this version reads and writes
	snapshotNamed  = 2 // the first with the second line

	maxLine = 80 // bytes of such a line
)

var errNewer = errors.New("a newer version of owr wrote it")

// appendFormat appends the line, or the two lines, that a file in this format begins with.
func appendFormat(dst []byte, kind string, format, named int, version string) []byte {
	dst = fmt.Appendf(dst, "%s%d\n", kind, format)
	if format < named {
		return dst
	}
	return fmt.Appendf(dst, "owr %.60s\n", cmp.Or(strings.Join(strings.Fields(version), " "), "devel"))
}

// readFormat is its inverse. It refuses a format beyond newest and says who wrote it.
func readFormat(r io.Reader, kind string, newest, named int) (format int, version string, err error) {
	line, err := readLine(r)
	if err != nil && (strings.HasPrefix(line, kind) || strings.HasPrefix(kind, line)) {
		return 0, "", err // it ends too soon
	}
	number, ours := strings.CutPrefix(line, kind)
	format, err = strconv.Atoi(number)
	if !ours || err != nil || format < 1 || strconv.Itoa(format) != number {
		return 0, "", fmt.Errorf("it does not begin with %q and a number: nobody of us wrote it, or it is damaged", kind)
	}
	if format >= named {
		if version, err = readLine(r); err != nil {
			return 0, "", err
		}
	}
	if format > newest {
		return 0, "", fmt.Errorf("%w: %s, in format %d, and this version reads formats up to %d: run that version or a later one",
			errNewer, version, format, newest)
	}
	return format, version, nil
}

// readLine reads one line, byte by byte: what follows it is not text.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); len(line) < maxLine; line = append(line, b[0]) {
		if _, err := io.ReadFull(r, b); err != nil {
			return string(line), err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
	}
	return string(line), nil // too long to be one of ours, which its reader finds out
}
