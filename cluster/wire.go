package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/openwaitingroom/owr/queue"
)

// Forwarding speaks in frames: four bytes of length, one of kind, the payload. A request is answered by one
// frame before the next one is read.
const (
	frameCommands byte = 1  // queue.AppendCommands, after two bytes of room; answered by decisions
	frameLimits   byte = 2  // queue.AppendLimits; answered by limits in the same form
	framePing     byte = 3  // the asker's id; answered by a pong
	frameAbout    byte = 4  // nothing; answered by appendAbout
	frameMembers  byte = 8  // nothing; answered by a Membership in JSON
	frameChange   byte = 9  // a change of members in JSON; answered by an outcome in JSON
	frameKeys     byte = 10 // a change of the proof keys in JSON; answered by an outcome in JSON
	frameSettled  byte = 11 // nothing; answered by eight bytes, touches.lag in milliseconds
	frameSum      byte = 12 // nothing; answered by eight bytes each of the table's newest entry and of its sum

	frameOK        byte = 64 // the answer to the request
	frameNotLeader byte = 65 // nothing was done: ask again, elsewhere or later
	frameFailed    byte = 66 // the fate is unknown; the payload says why

	maxFrame = 4 << 20
)

var errBadFrame = errors.New("bad frame")

func writeFrame(conn net.Conn, kind byte, payload []byte) error {
	if len(payload) >= maxFrame {
		return fmt.Errorf("%w: %d bytes to send", errBadFrame, len(payload))
	}
	buf := make([]byte, 0, 5+len(payload))
	buf = binary.BigEndian.AppendUint32(buf, uint32(1+len(payload)))
	buf = append(buf, kind)
	_, err := conn.Write(append(buf, payload...))
	return err
}

func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 1 || size > maxFrame {
		return 0, nil, fmt.Errorf("%w: %d bytes", errBadFrame, size)
	}
	payload = make([]byte, size-1)
	_, err = io.ReadFull(r, payload)
	return head[4], payload, err
}

const decisionSize = 1 + 1 + 8 + 8

// appendDecisions appends the index of the entry and one record per decision.
func appendDecisions(dst []byte, decisions []queue.Decision) []byte {
	index := uint64(0)
	if len(decisions) > 0 {
		index = decisions[0].Index
	}
	dst = appendUint64(dst, index)
	for _, d := range decisions {
		dst = append(dst, byte(d.State), byte(d.Refusal))
		dst = appendUint64(dst, d.Ticket)
		dst = appendUint64(dst, uint64(d.Position))
	}
	return dst
}

// decodeDecisions is its inverse, for so many decisions.
func decodeDecisions(data []byte, count int) ([]queue.Decision, error) {
	if len(data) != 8+count*decisionSize {
		return nil, fmt.Errorf("%w: %d bytes for %d decisions", errBadFrame, len(data), count)
	}
	index := binary.BigEndian.Uint64(data)
	out := make([]queue.Decision, 0, count)
	for data = data[8:]; len(data) > 0; data = data[decisionSize:] {
		d := queue.Decision{
			State: queue.State(data[0]), Refusal: queue.Refusal(data[1]), Index: index,
			Ticket: binary.BigEndian.Uint64(data[2:]), Position: int(binary.BigEndian.Uint64(data[10:])),
		}
		if d.State > queue.Active || d.Refusal > queue.NoVisitor || d.Position < 0 {
			return nil, fmt.Errorf("%w: decision % x", errBadFrame, data[:decisionSize])
		}
		out = append(out, d)
	}
	return out, nil
}
