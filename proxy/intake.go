package proxy

import (
	"bytes"
	"errors"
)

// An intake reads what a client sends before fasthttp does, and says how much of it belongs to the request at hand. So there is
// one reading of where a request ends, and it is the strict one (RFC 9112): fasthttp is given the bytes of one request and not
// a byte more until it has been answered. Whatever it makes of them, the next request begins where the intake says, and the
// head that the proxy acts on is the one that was read here.
//
// It belongs to whoever reads the connection.
type intake struct {
	phase   intakePhase
	head    []byte // the head as it came, as far as it has come, without the empty lines before it
	line    int    // where in head its last line begins
	refusal *refusal

	left  int64 // of a body with a length, or of a chunk
	chunk chunkState
	size  int // digits of the chunk's size so far
	room  int // for the rest of a size line, or of the trailer
}

type intakePhase uint8

const (
	intakeHead    intakePhase = iota
	intakeSized               // in a body with a Content-Length
	intakeChunked             // in a body in chunks
	intakeWhole               // the request has come, and the next may not begin yet
	intakeRefused             // it is none: nothing more is read
	intakeTunnel              // there are no more requests
)

var (
	errMalformed = errors.New("the request is malformed")
	errBeyond    = errors.New("the request has ended")
)

// before is the error of a read that must not look at the connection.
func (in *intake) before() error {
	switch in.phase {
	case intakeWhole:
		return errBeyond
	case intakeRefused:
		return errMalformed
	}
	return nil
}

// take takes in the next bytes of the connection. It returns how many of them belong to the request, and whether its head ends
// with them: then body or refuse has to be called.
func (in *intake) take(data []byte) (n int, headEnds bool) {
	switch in.phase {
	case intakeHead:
		return in.takeHead(data)
	case intakeSized:
		n = int(min(in.left, int64(len(data))))
		if in.left -= int64(n); in.left == 0 {
			in.phase = intakeWhole
		}
		return n, false
	case intakeChunked:
		return in.takeChunks(data), false
	case intakeTunnel:
		return len(data), false
	}
	return 0, false
}

func (in *intake) takeHead(data []byte) (n int, ends bool) {
	for n < len(data) {
		i := bytes.IndexByte(data[n:], '\n')
		if i < 0 {
			in.head = append(in.head, data[n:]...)
			return len(data), false
		}
		in.head = append(in.head, data[n:n+i+1]...)
		n += i + 1
		switch length := len(in.head) - in.line; {
		case length < 2 || in.head[len(in.head)-2] != '\r':
			in.refuse(&refusal{400, "a line does not end in CRLF"})
			return n, false
		case length > 2:
			in.line = len(in.head)
		case in.line > 0:
			return n, true
		default:
			in.head = in.head[:0] // empty lines before a request are left out (RFC 9112, section 2.2)
		}
	}
	return n, false
}

// body says what follows the head: so many bytes, chunks (-1), or nothing.
func (in *intake) body(length int64) {
	switch {
	case length > 0:
		in.phase, in.left = intakeSized, length
	case length < 0:
		in.phase = intakeChunked
		in.beginChunk()
	default:
		in.phase = intakeWhole
	}
}

func (in *intake) refuse(r *refusal) { in.phase, in.refusal = intakeRefused, r }

// next lets the next request begin.
func (in *intake) next() {
	if in.phase == intakeWhole {
		*in = intake{head: in.head[:0]}
	}
}

// whole reports whether all of the request has come.
func (in *intake) whole() bool { return in.phase == intakeWhole }

// --- chunks --------------------------------------------------------------------------------

// A chunkState says where in a chunked body (RFC 9112, section 7.1) the next byte is.
type chunkState uint8

const (
	chunkSize      chunkState = iota
	chunkPadding              // white space behind the size, which some clients send
	chunkExtension            // behind the semicolon
	chunkSizeEnd              // the LF of the size line
	chunkData
	chunkDataCR
	chunkDataLF
	trailerBegin // of a line of the trailer
	trailerName
	trailerValue
	trailerLF
	trailerEnd // the LF of the last line
)

const (
	maxChunkDigits = 15      // a size fits into an int64
	maxChunkLine   = 4 << 10 // bytes of a size line, its extensions included
)

func (in *intake) beginChunk() { in.chunk, in.left, in.size, in.room = chunkSize, 0, 0, maxChunkLine }

// takeChunks returns how many bytes belong to the body, up to one that cannot.
func (in *intake) takeChunks(data []byte) (n int) {
	for n < len(data) {
		if in.chunk == chunkData {
			k := int(min(in.left, int64(len(data)-n)))
			n += k
			if in.left -= int64(k); in.left == 0 {
				in.chunk, in.room = chunkDataCR, len("\r\n")
			}
			continue
		}
		if in.room--; in.room < 0 || !in.chunkByte(data[n]) {
			in.refuse(&refusal{400, "a chunk is malformed"})
			return n
		}
		n++
		if in.phase == intakeWhole {
			return n
		}
	}
	return n
}

// chunkByte takes in one byte that is not data, and reports whether it may stand where it does.
func (in *intake) chunkByte(c byte) bool {
	switch in.chunk {
	case chunkSize:
		if d := unhex(c); d <= 15 {
			in.left, in.size = in.left<<4|int64(d), in.size+1
			return in.size <= maxChunkDigits
		}
		return in.size > 0 && in.behindSize(c)
	case chunkPadding:
		return c != ';' && in.behindSize(c)
	case chunkExtension:
		if c == '\r' {
			in.chunk = chunkSizeEnd
			return true
		}
		return textByte(c)
	case chunkSizeEnd:
		in.chunk = chunkData
		if in.left == 0 {
			in.chunk, in.room = trailerBegin, maxTrailer
		}
		return c == '\n'
	case chunkDataCR:
		in.chunk = chunkDataLF
		return c == '\r'
	case chunkDataLF:
		in.beginChunk()
		return c == '\n'
	}
	return in.trailerByte(c)
}

func (in *intake) behindSize(c byte) bool {
	switch c {
	case '\r':
		in.chunk = chunkSizeEnd
	case ';':
		in.chunk = chunkExtension
	case ' ', '\t':
		in.chunk = chunkPadding
	default:
		return false
	}
	return true
}

func (in *intake) trailerByte(c byte) bool {
	switch in.chunk {
	case trailerBegin:
		if c == '\r' {
			in.chunk = trailerEnd
			return true
		}
		in.chunk = trailerName
		return tokenBytes[c]
	case trailerName:
		if c == ':' {
			in.chunk = trailerValue
			return true
		}
		return tokenBytes[c]
	case trailerValue:
		if c == '\r' {
			in.chunk = trailerLF
			return true
		}
		return textByte(c)
	case trailerLF:
		in.chunk = trailerBegin
		return c == '\n'
	}
	if c != '\n' {
		return false
	}
	in.phase = intakeWhole
	return true
}
