package faults

import (
	"bufio"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// echo is a server that sends every line back.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if _, err := conn.Write([]byte(line)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func dialLink(t *testing.T, k *link) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", k.address)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn, bufio.NewReader(conn)
}

// hears reports whether an answer comes within the time.
func hears(t *testing.T, conn net.Conn, r *bufio.Reader, within time.Duration) bool {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(within)))
	_, err := r.ReadString('\n')
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return err == nil
}

func say(t *testing.T, conn net.Conn) {
	t.Helper()
	_, err := conn.Write([]byte("hello\n"))
	must(t, err)
}

func TestALinkIsCutInEitherDirection(t *testing.T) {
	for _, c := range []struct {
		name        string
		forth, back bool
	}{{"forth", true, false}, {"back", false, true}, {"both", true, true}} {
		k := newLink(t, echo(t))
		conn, r := dialLink(t, k)
		say(t, conn)
		if !hears(t, conn, r, 5*time.Second) {
			t.Fatalf("%s: nothing comes through a whole link", c.name)
		}
		k.set(c.forth, c.back)
		say(t, conn)
		if hears(t, conn, r, 100*time.Millisecond) {
			t.Errorf("%s: an answer came through a cut link", c.name)
		}
		newer, other := dialLink(t, k)
		say(t, newer)
		if hears(t, newer, other, 100*time.Millisecond) {
			t.Errorf("%s: a new connection came through a cut link", c.name)
		}
		k.set(false, false)
		if !hears(t, conn, r, 5*time.Second) || !hears(t, newer, other, 5*time.Second) {
			t.Errorf("%s: what was held does not come once the link is whole", c.name)
		}
	}
}

func TestASlowLink(t *testing.T) {
	k := newLink(t, echo(t))
	conn, r := dialLink(t, k)
	k.slow(60*time.Millisecond, 0)
	begun := time.Now()
	say(t, conn)
	if !hears(t, conn, r, 5*time.Second) || time.Since(begun) < 120*time.Millisecond {
		t.Errorf("there and back took %v, want 120 ms and more", time.Since(begun))
	}
}
