package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/openwaitingroom/owr/test/harness"
)

// TestOneCookieInManyPollsHasOneTicket: a visitor without a place asks for one a hundred times at once, on all nodes. It has one place, and
// when its turn comes one slot.
func TestOneCookieInManyPollsHasOneTicket(t *testing.T) {
	w := harness.NewWorld(t, 2, nil)
	watch := w.Watch()
	inside, _ := w.LineUp(2)
	b := w.Browser()
	if e := b.Get(w.Nodes[0], "/"); e.Outcome != harness.Waiting || b.ID() == "" {
		t.Fatalf("a newcomer: %v, id %q", e, b.ID())
	}
	rooms(t, w, 2, 0, 0) // its cookie alone remembers it
	for _, a := range together(t, w, b, "/wr_check", 100) {
		if a.status != http.StatusOK || a.Status != "waiting" || a.Position != 1 || a.id != "" && a.id != b.ID() {
			t.Errorf("one of a hundred polls: %+v, want place 1 of %s", a, b.ID())
		}
	}
	rooms(t, w, 2, 0, 1)
	next := w.Browser()
	if e := next.Visit(w.Nodes[1], "/"); e.Outcome != harness.Waiting || e.Position != 2 {
		t.Errorf("the next one: %v, want place 2", e)
	}

	leave(t, w, inside[0])
	rooms(t, w, 1, 1, 1)
	for _, a := range together(t, w, b, "/wr_check", 100) {
		if a.status != http.StatusFound || strings.HasPrefix(a.location, "/queue.html") || a.id != "" && a.id != b.ID() {
			t.Errorf("one of a hundred polls when its turn has come: %+v", a)
		}
	}
	rooms(t, w, 2, 0, 1)
	audit(w, watch, nil, inside[1], b, next)
}

// TestOneCookieOnManyConnectionsHoldsOneSlot: a visitor inside asks for fifty pages at once, on all nodes.
func TestOneCookieOnManyConnectionsHoldsOneSlot(t *testing.T) {
	w := harness.NewWorld(t, 3, nil)
	watch := w.Watch()
	inside, _ := w.LineUp(1)
	rooms(t, w, 1, 0, 0)
	for range 3 {
		for _, a := range together(t, w, inside[0], "/", 50) {
			if a.status != http.StatusOK || a.id != "" && a.id != inside[0].ID() {
				t.Errorf("one of fifty pages: %+v", a)
			}
		}
		rooms(t, w, 1, 0, 0)
	}
	more, waiting := w.LineUp(3)
	if len(more) != 2 || len(waiting) != 1 {
		t.Errorf("behind it %d are inside and %d wait, want 2 and 1", len(more), len(waiting))
	}
	audit(w, watch, nil, append(append(inside, more...), waiting...)...)
}

// An answered is what one of many requests was told.
type answered struct {
	status   int
	location string
	id       string // of the cookie that it was given; empty: none
	Status   string // in the JSON of a poll
	Position int
}

// together sends one visitor's request so many times at once, each on a connection of its own, to the nodes in turn.
func together(t *testing.T, w *harness.World, b *harness.Browser, path string, times int) []answered {
	t.Helper()
	all := make([]answered, times)
	var open, done sync.WaitGroup
	open.Add(times)
	for i := range times {
		host := strings.TrimPrefix(w.Nodes[i%len(w.Nodes)].URL, "http://")
		done.Go(func() {
			conn, err := net.Dial("tcp", host)
			open.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			open.Wait()
			if all[i], err = exchange(conn, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nAccept: */*\r\n%s\r\n", path, host, b.Headers())); err != nil {
				t.Errorf("%s on %s: %v", path, host, err)
			}
		})
	}
	done.Wait()
	return all
}

func exchange(conn net.Conn, request string) (a answered, err error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return a, err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return a, err
	}
	a.status, a.location = res.StatusCode, res.Header.Get("Location")
	for _, c := range res.Cookies() {
		if c.Name == "wr_token" {
			a.id = c.Value[:min(36, len(c.Value))]
		}
	}
	if res.Header.Get("Content-Type") == "application/json" {
		err = json.Unmarshal(body, &a)
	}
	return a, err
}

// rooms waits until every node counts so many.
func rooms(t *testing.T, w *harness.World, active, released, queued int) {
	t.Helper()
	harness.WaitFor(t, fmt.Sprintf("%d active, %d released, %d queued on every node", active, released, queued), again, func() bool {
		for _, n := range w.Nodes {
			s, err := n.Status()
			if err != nil || s.Room.Active != active || s.Room.Released != released || s.Room.Queued != queued {
				return false
			}
		}
		return true
	})
}
