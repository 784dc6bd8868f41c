package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
)

// A response is the head of what the origin answers. Its slices point into the reader of the
// connection and are gone with the next read from it.
type response struct {
	status int // 0: not a byte of it has come
	reason []byte
	fields []field
	named  [][]byte // header names that Connection lists
	length int64    // of the body; lengthChunked, lengthToEnd, or 0 for none
	told   int64    // the Content-Length line of one that has no body itself (HEAD, 304); -1: none
	keep   bool     // the connection may serve another request

	upgrade []byte // what a 101 switches to
}

const (
	lengthChunked = -1
	lengthToEnd   = -2 // the end of the connection is the end of the body
)

// maxInterim is how many 1xx answers may come before the real one.
const maxInterim = 16

// A badResponse says what is wrong with bytes that should have been a response's head.
type badResponse string

func (e badResponse) Error() string { return string(e) }

const (
	errBareLF     = badResponse("a line does not end in CRLF")
	errNotHTTP    = badResponse("no HTTP response")
	errHeadSize   = badResponse("the head is too large")
	errStatusLine = badResponse("the status line is malformed")
	errFraming    = badResponse("the length of the body is ambiguous")
	errInterim    = badResponse("too many interim responses")
	errSwitch     = badResponse("the protocol was switched without being asked")
)

// read reads the head of the response to a request with that method. The fields stay valid
// until the caller discards size bytes.
func (r *response) read(br *bufio.Reader, method []byte, upgrade bool) (size int, err error) {
	r.status = 0
	for range maxInterim {
		block, err := peekHead(br)
		if err != nil {
			return 0, err
		}
		if err := r.parse(block, method, upgrade); err != nil {
			return 0, err
		}
		if r.status >= 200 || r.status == 101 {
			return len(block), nil
		}
		if _, err := br.Discard(len(block)); err != nil {
			return 0, err
		}
	}
	return 0, errInterim
}

// readBytes is read for bytes that have come already. It returns 0 when the head is not whole.
func (r *response) readBytes(data, method []byte) (size int, err error) {
	r.status = 0
	for range maxInterim {
		n, _, err := findHead(data[size:], 0)
		switch {
		case err != nil:
			return 0, err
		case n == 0 && len(data)-size >= maxOriginHead:
			return 0, errHeadSize
		case n == 0:
			return 0, nil
		}
		if err := r.parse(data[size:size+n], method, false); err != nil {
			return 0, err
		}
		if size += n; r.status >= 200 || r.status == 101 {
			return size, nil
		}
	}
	return 0, errInterim
}

// findHead returns the size of the head at the beginning of have, its empty line included, or 0 when it is not whole. It fails
// as soon as what has come cannot become one. Lines up to checked have been looked at before.
func findHead(have []byte, checked int) (size, next int, err error) {
	if n := min(len(have), len("HTTP/1.")); string(have[:n]) != "HTTP/1."[:n] {
		return 0, 0, errNotHTTP
	}
	for {
		i := bytes.IndexByte(have[checked:], '\n')
		if i < 0 {
			return 0, checked, nil
		}
		end := checked + i
		if end == 0 || have[end-1] != '\r' {
			return 0, 0, errBareLF
		}
		checked = end + 1
		if end >= 3 && have[end-2] == '\n' {
			return checked, checked, nil
		}
	}
}

// peekHead returns the next head, its empty line included, without taking it. It gives up as
// soon as what has come cannot become one.
func peekHead(br *bufio.Reader) ([]byte, error) {
	checked := 0
	for {
		have, _ := br.Peek(br.Buffered())
		size, next, err := findHead(have, checked)
		if err != nil || size > 0 {
			return have[:size], err
		}
		checked = next
		if len(have) == br.Size() {
			return nil, errHeadSize
		}
		if _, err := br.Peek(len(have) + 1); err != nil {
			if errors.Is(err, io.EOF) && len(have) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

func (r *response) parse(block, method []byte, upgrade bool) error {
	*r = response{fields: r.fields[:0], named: r.named[:0], told: -1}
	end := bytes.IndexByte(block, '\n')
	line := block[:end-1]
	if len(line) < 12 || line[8] != ' ' || line[7] < '0' || line[7] > '9' || len(line) > 12 && line[12] != ' ' {
		return errStatusLine
	}
	old := line[7] == '0'
	status, ok := parseLength(line[9:12])
	if !ok || status < 100 {
		return errStatusLine
	}
	r.status = int(status)
	if len(line) > 13 {
		r.reason = line[13:]
	}
	for _, c := range r.reason {
		if c < ' ' && c != '\t' || c == 0x7f {
			return errStatusLine
		}
	}
	var err error
	if r.fields, err = parseFields(block[end+1:], r.fields); err != nil {
		return badResponse(err.Error())
	}
	return r.frame(string(method) == "HEAD", old, upgrade)
}

// appendStatus appends the status line as the origin has it, but for the version.
func (r *response) appendStatus(dst []byte) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(r.status), 10)
	dst = append(dst, ' ')
	dst = append(dst, r.reason...)
	return append(dst, "\r\n"...)
}

// frame finds out where the body ends. Two answers to that question are none.
func (r *response) frame(head, old, upgrade bool) error {
	length, chunked := int64(-1), false
	r.keep = !old
	for i := range r.fields {
		f := &r.fields[i]
		switch f.kind {
		case fieldContentLength:
			n, ok := parseLength(f.value)
			if !ok || length >= 0 {
				return errFraming
			}
			length = n
		case fieldTransferEncoding:
			if chunked || old || !equalFold(f.value, "chunked") {
				return errFraming
			}
			chunked = true
		case fieldUpgrade:
			r.upgrade = f.value
		case fieldConnection:
			for list := f.value; list != nil; {
				var name []byte
				name, list = nextElement(list)
				switch {
				case len(name) == 0:
				case equalFold(name, "close"):
					r.keep = false
				case equalFold(name, "keep-alive"):
					r.keep = r.keep || old
				default:
					r.named = append(r.named, name)
				}
			}
		}
	}
	switch {
	case length >= 0 && chunked:
		return errFraming
	case r.status == 101:
		if !upgrade {
			return errSwitch
		}
	case r.status < 200 || r.status == 204:
	case head || r.status == 304:
		r.told = length
	case chunked:
		r.length = lengthChunked
	case length >= 0:
		r.length = length
	default:
		r.length = lengthToEnd
		r.keep = false
	}
	return nil
}

// A bodyReader reads the body of a response, and io.EOF only where the origin has ended it.
type bodyReader struct {
	br     *bufio.Reader
	length int64 // as in response
	left   int64 // of the body, or of the current chunk
	inside bool  // a chunk has begun
	ended  bool
}

func newBodyReader(br *bufio.Reader, length int64) bodyReader {
	return bodyReader{br: br, length: length, left: max(length, 0), ended: length == 0}
}

func (b *bodyReader) Read(p []byte) (int, error) {
	if b.ended {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	switch b.length {
	case lengthToEnd:
		n, err := b.br.Read(p)
		b.ended = err == io.EOF
		return n, err
	case lengthChunked:
		if b.left == 0 {
			if err := b.nextChunk(); err != nil {
				return 0, err
			}
			if b.ended {
				return 0, io.EOF
			}
		}
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.br.Read(p)
	b.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && b.left == 0 && b.length >= 0 {
		b.ended = true
		err = io.EOF
	}
	return n, err
}

var errChunk = errors.New("a chunk is malformed")

// maxTrailer is how many bytes may follow the last chunk. They are read and dropped.
const maxTrailer = 16 << 10

// nextChunk reads the line end of the last chunk and the size of the next one; after the last
// one it reads the trailer.
func (b *bodyReader) nextChunk() error {
	if b.inside {
		end, err := b.line()
		if err != nil {
			return err
		}
		if len(end) > 0 {
			return errChunk
		}
	}
	line, err := b.line()
	if err != nil {
		return err
	}
	size, ok := parseChunkSize(line)
	if !ok {
		return errChunk
	}
	b.inside, b.left = true, size
	if size > 0 {
		return nil
	}
	for total := 0; total < maxTrailer; total += len(line) {
		if line, err = b.line(); err != nil {
			return err
		}
		if len(line) == 0 {
			b.ended = true
			return nil
		}
	}
	return errChunk
}

// line reads a line and returns it without its CRLF.
func (b *bodyReader) line() ([]byte, error) {
	line, err := b.br.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, errChunk
	case err != nil:
		return nil, err
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return nil, errChunk
	}
	return line[:len(line)-2], nil
}

// parseChunkSize reads up to 15 hexadecimal digits and skips extensions.
func parseChunkSize(line []byte) (int64, bool) {
	digits, _, _ := bytes.Cut(line, []byte{';'})
	digits = trimSpace(digits)
	if len(digits) == 0 || len(digits) > 15 || lowerByte(line[0]) != lowerByte(digits[0]) {
		return 0, false
	}
	n := int64(0)
	for _, c := range digits {
		d := unhex(c)
		if d > 15 {
			return 0, false
		}
		n = n<<4 | int64(d)
	}
	return n, true
}
