//go:build !linux

package proxy

import (
	"net"
	"time"
)

// A loop is there on Linux alone; elsewhere goroutines do all of it.
type loop struct{}

func (s *Server) startLoops() error { return nil }
func (s *Server) drainLoops()       {}
func (s *Server) cutOffLoops()      {}
func (s *Server) stopLoops()        {}

func (s *Server) askForRoom() {}

func (s *Server) goBack(*clientConn, time.Duration) bool { return false }

func (s *Server) loopsAccept(net.Listener) bool { return false }
