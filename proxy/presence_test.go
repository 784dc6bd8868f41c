package proxy

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

// A request that lasts keeps the slot of its visitor. One that did not bring the cookie does that without a touch, which would confirm
// a visitor that nobody has seen twice.
func TestALongFirstVisitConfirmsNobody(t *testing.T) {
	room := newRoom(t, 10)
	origin := newSite(t, func(w http.ResponseWriter, _ *http.Request) {
		room.advance(3 * time.Second) // it is slow
		fmt.Fprintln(w, "at last")
	})
	s := serve(t, room, origin.URL, nil)
	signs := func(token queue.Token) (touched, stayed bool) {
		eventually(t, "a sign of life", func() bool {
			room.do(func(r *fakeRoom) {
				touched, stayed = slices.Contains(r.touched, token), slices.Contains(r.stayed, token)
			})
			return touched || stayed
		})
		return touched, stayed
	}
	for _, method := range []string{"GET", "POST"} {
		first := s.ask(method, "/", "Accept: text/html")
		token, _, ok := ParseCookie([]byte(first.ours()))
		if first.StatusCode != 200 || !ok {
			t.Fatalf("%s: a first visit got %d and the cookie %q", method, first.StatusCode, first.ours())
		}
		if touched, stayed := signs(token); touched || !stayed {
			t.Errorf("%s: a first visit: touched %v, stayed %v; want it to stay alone", method, touched, stayed)
		}
		known, cookie := room.active(t)
		if again := s.ask(method, "/", "Accept: text/html", "Cookie: "+cookie); again.StatusCode != 200 {
			t.Fatalf("%s: with a cookie it got %d", method, again.StatusCode)
		}
		if touched, stayed := signs(known); !touched || stayed {
			t.Errorf("%s: with a cookie: touched %v, stayed %v; want touches alone", method, touched, stayed)
		}
	}
}
