package faults

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// A link is the way from one node to another: a TCP proxy on a port of its own, which the one has for the other's
// cluster port. It can be cut in either direction, without a word to either side as a cable that is pulled, and made slow.
type link struct {
	address string

	forth, back atomic.Bool  // cut: bytes from the dialing node, and to it, are held
	delay       atomic.Int64 // nanoseconds added to each piece of data
	rate        atomic.Int64 // bytes a second; 0: as fast as it goes

	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	mu       sync.Mutex
	to       string        // mu
	changed  chan struct{} // mu; closed when forth or back change
}

func newLink(t testing.TB, to string) *link {
	t.Helper()
	return newLinkOn(t, harness.Host, to)
}

// newLinkOn listens on another of this machine's addresses.
func newLinkOn(t testing.TB, host, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	k := &link{address: l.Addr().String(), to: to, listener: l, changed: make(chan struct{})}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.wg.Go(k.accept)
	t.Cleanup(func() {
		k.cancel()
		l.Close()
		k.wg.Wait()
	})
	return k
}

// set cuts or heals the two directions.
func (k *link) set(forth, back bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forth.Store(forth)
	k.back.Store(back)
	close(k.changed)
	k.changed = make(chan struct{})
}

// lead has all connections from now on go to another address.
func (k *link) lead(to string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.to = to
}

// port is the link's own.
func (k *link) port() int { return k.listener.Addr().(*net.TCPAddr).Port }

// slow adds a delay to each piece of data and bounds the bytes per second; zeros end that.
func (k *link) slow(delay time.Duration, rate int64) {
	k.delay.Store(int64(delay))
	k.rate.Store(rate)
}

func (k *link) accept() {
	for {
		from, err := k.listener.Accept()
		if err != nil {
			return
		}
		k.wg.Go(func() { k.serve(from) })
	}
}

// serve carries one connection. Through a link that is cut nothing can be dialed: the dialer has its connection and
// hears nothing more, as from a host that drops packets.
func (k *link) serve(from net.Conn) {
	stop := context.AfterFunc(k.ctx, func() { from.Close() })
	defer stop()
	defer from.Close()
	if !k.open(&k.forth) || !k.open(&k.back) {
		return
	}
	k.mu.Lock()
	target := k.to
	k.mu.Unlock()
	to, err := (&net.Dialer{}).DialContext(k.ctx, "tcp", target)
	if err != nil {
		return
	}
	defer to.Close()
	stopTo := context.AfterFunc(k.ctx, func() { to.Close() })
	defer stopTo()
	done := make(chan struct{}, 2)
	go func() { k.carry(to, from, &k.forth); done <- struct{}{} }()
	go func() { k.carry(from, to, &k.back); done <- struct{}{} }()
	<-done
	from.Close()
	to.Close()
	<-done
}

// carry copies one direction of one connection until it ends.
func (k *link) carry(to io.Writer, from io.Reader, cut *atomic.Bool) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			wait := time.Duration(k.delay.Load())
			if rate := k.rate.Load(); rate > 0 {
				wait += time.Duration(n) * time.Second / time.Duration(rate)
			}
			if wait > 0 {
				rest(k.ctx, wait)
			}
			if !k.open(cut) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			k.open(cut) // the end of a stream does not get through a cut link either
			return
		}
	}
}

// open waits until the direction is not cut, and reports false when the link ends first.
func (k *link) open(cut *atomic.Bool) bool {
	for {
		k.mu.Lock()
		changed := k.changed
		closed := cut.Load()
		k.mu.Unlock()
		if !closed {
			return k.ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-k.ctx.Done():
			return false
		}
	}
}
