package proxy

import (
	"net"

	"github.com/valyala/fasthttp"
)

// takeOver has serve called with the client's connection, from which it reads what has been buffered first, once the handler has
// returned. The connection ends with it, and then free is called. Where fasthttp finds the connection broken it does not
// call back, and free is called at the end of serveHTTP. Nobody else serves the connection by then, so it is once in either case.
func (s *Server) takeOver(ctx *fasthttp.RequestCtx, serve func(net.Conn), free func()) {
	c := clientOf(ctx)
	s.work.Add(1)
	c.onBreak = func() {
		defer s.work.Done()
		defer s.caught()
		free()
	}
	end := c.onBreak
	ctx.HijackSetNoResponse(true)
	ctx.Hijack(func(conn net.Conn) {
		defer end()
		defer func() { _ = c.abort() }()
		defer s.caught()
		serve(conn)
	})
}
