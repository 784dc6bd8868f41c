//go:build !linux

package proxy

// A loop is there on Linux alone; elsewhere goroutines do all of it.
type loop struct{}

func (s *Server) startLoops() error { return nil }
func (s *Server) drainLoops()       {}
func (s *Server) cutOffLoops()      {}
func (s *Server) stopLoops()        {}

func (s *Server) migrate(*clientConn) bool { return false }
