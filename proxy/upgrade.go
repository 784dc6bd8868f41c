package proxy

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/openwaitingroom/owr/queue"
)

// isWebSocket reports whether a request asks for the one upgrade that is passed on. Any other
// is answered as if it had not been asked for, which RFC 9110 lets every server do.
func (s *Server) isWebSocket(h *head) bool {
	return equalFold(h.upgrade, "websocket") && string(h.method) == "GET" && !h.hasBody()
}

// forwardUpgrade passes a WebSocket handshake on. The connection to the origin is made for it
// and used for nothing else, and the client's is taken over only after a 101 that fits.
func (s *Server) forwardUpgrade(ctx *fasthttp.RequestCtx, x *exchange, p presence) {
	out := buffers.get()
	defer buffers.put(out)
	out.data = s.appendOriginHead(out.data, &x.head, &x.from)
	c, err := s.origin.dial(s.base)
	if err != nil {
		s.forwardFailed(ctx, x, err, nil)
		p.stay.end()
		return
	}
	r := responses.Get().(*response)
	defer responses.Put(r)
	size := 0
	if _, err = c.Write(out.data); err == nil {
		size, err = r.read(c.reader, x.head.method, true)
	}
	if err == nil && r.status == 101 && (!equalFold(r.upgrade, "websocket") || !accepts(r, &x.head)) {
		err = errSwitch
	}
	if err != nil {
		s.origin.discard(c)
		s.forwardFailed(ctx, x, err, nil)
		p.end()
		return
	}
	r.keep = false
	if r.status != 101 {
		s.relay(ctx, x, relayed{c, r, size, nil, p})
		return
	}
	head := s.appendSwitchHead(nil, x, r)
	_, _ = c.reader.Discard(size)
	s.openTunnel(ctx, c, head, p)
}

// accepts reports whether a 101 answers this handshake and no other: its Sec-WebSocket-Accept is made of the request's
// Sec-WebSocket-Key (RFC 6455, section 4.2.2). A browser looks as well; here it keeps a tunnel from being opened to an origin
// that has answered out of turn. A handshake without a key is no browser's, and there is nothing to compare.
func accepts(r *response, h *head) bool {
	key, ok := valueOf(h.fields, "sec-websocket-key")
	if !ok {
		return true
	}
	sum := sha1.Sum(append(append([]byte(nil), key...), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	got, _ := valueOf(r.fields, "sec-websocket-accept")
	return string(got) == base64.StdEncoding.EncodeToString(sum[:])
}

// valueOf is the value of the first field with that name, in lower case.
func valueOf(fields []field, lower string) ([]byte, bool) {
	for i := range fields {
		if equalFold(fields[i].name, lower) {
			return fields[i].value, true
		}
	}
	return nil, false
}

func (s *Server) appendSwitchHead(dst []byte, x *exchange, r *response) []byte {
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"...)
	dst = appendClientFields(dst, r, s.cfg.CookieName, false)
	dst, _ = s.appendCookieLine(dst, &x.verdict, x.from.https)
	return append(dst, "\r\n"...)
}

// A tunnel is a client's and an origin's connection whose bytes are no longer ours to read.
type tunnel struct {
	s      *Server
	client *clientConn
	origin *originConn
	token  queue.Token
	moved  atomic.Int64 // when a byte last passed, Unix nanoseconds
}

// openTunnel takes the client's connection over from fasthttp.
func (s *Server) openTunnel(ctx *fasthttp.RequestCtx, c *originConn, head []byte, p presence) {
	t := &tunnel{s: s, client: clientOf(ctx), origin: c, token: p.token}
	t.client.intake.phase = intakeTunnel
	s.metrics.tunnels.Inc()
	s.takeOver(ctx, func(conn net.Conn) { t.run(conn, head, p) }, func() {
		p.stay.end()
		s.metrics.tunnels.Dec()
		s.origin.discard(c)
	})
}

// watchEvery is how often a tunnel looks whether its visitor still has its slot.
const watchEvery = time.Second

// run copies both ways until both sides have ended, one has failed, or the visitor has lost
// its slot: a tunnel without traffic is no sign of life, so it ends with its visitor's slot.
func (t *tunnel) run(client io.Reader, head []byte, p presence) {
	if _, err := t.client.Write(head); err != nil {
		return
	}
	t.origin.wait()
	t.moved.Store(time.Now().UnixNano())
	ended := make(chan bool, 2) // whether a direction ended as it should
	go func() { ended <- t.copy(t.origin, client, p) }()
	go func() { ended <- t.copy(t.client, t.origin.reader, p) }()
	left := 2
	defer func() { // whatever the end: who reads from the connections must have ended before they are given up
		if left > 0 {
			_ = t.client.abort()
			_ = t.origin.raw.Close()
		}
		for ; left > 0; left-- {
			<-ended
		}
	}()
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for left > 0 {
		select {
		case ok := <-ended:
			if left--; !ok {
				return
			}
		case <-ticker.C:
			idle := time.Since(time.Unix(0, t.moved.Load()))
			if !t.s.still(t.token) || left == 1 && idle > t.s.cfg.IdleTimeout {
				return
			}
		case <-t.s.base.Done():
			return
		}
	}
}

type halfCloser interface {
	io.Writer
	CloseWrite() error
}

// copy moves bytes in one direction and passes the end on. It reports false when a side
// failed, or we did.
func (t *tunnel) copy(to halfCloser, from io.Reader, p presence) (whole bool) {
	defer t.s.caught()
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := from.Read(buf[:])
		if n > 0 {
			p.beat()
			t.moved.Store(time.Now().UnixNano())
			if _, werr := to.Write(buf[:n]); werr != nil {
				return false
			}
		}
		if errors.Is(err, io.EOF) {
			return to.CloseWrite() == nil
		}
		if err != nil {
			return false
		}
	}
}

// still reports whether a visitor has its slot, or passes without one in an outage. Past the slot's deadline this replica's word
// is not enough (I5); the touches of a busy tunnel get a moment more to be committed.
func (s *Server) still(token queue.Token) bool {
	v := s.room.Lookup(token)
	return v.State == queue.Active && s.room.Now() < v.Deadline+s.cfg.DecisionTimeout.Milliseconds() || s.outage.lets(token)
}
