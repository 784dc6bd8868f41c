package test

import (
	"net/http"
	"testing"

	"github.com/openwaitingroom/owr/admin"
	"github.com/openwaitingroom/owr/test/harness"
)

// TestKeysAreRotatedUnderLoad rotates the proof keys twice while visitors wait and move between the nodes: nobody loses a place or a
// slot, and everybody gets a cookie under the new key. With the old ones removed, only who is in the table is still known by an old cookie.
func TestKeysAreRotatedUnderLoad(t *testing.T) {
	const slots, wait = 4, 12
	w := harness.NewWorld(t, slots, nil)
	level := func() bool {
		s, err := w.Nodes[0].Status()
		return err == nil && s.FeatureLevel >= 3
	}
	harness.WaitFor(t, "the feature level", again, level)
	inside, waiting := w.LineUp(slots + wait)
	if len(inside) != slots || len(waiting) != wait {
		t.Fatalf("%d inside, %d waiting", len(inside), len(waiting))
	}
	seen := w.Browser() // it has a cookie, and no place: nothing remembers it
	seen.Get(w.Nodes[0], "/")
	unknown := seen.ID()
	ids := map[*harness.Browser]string{}
	for _, b := range append(inside, waiting...) {
		ids[b] = b.ID()
	}
	turn := 0
	look := func() {
		t.Helper()
		turn++
		for i, b := range waiting {
			if e := b.Check(w.Nodes[(turn+i)%3]); e.Outcome != harness.Waiting || e.Position != i+1 || b.ID() != ids[b] {
				t.Fatalf("%v with id %s; want place %d with id %s", e, b.ID(), i+1, ids[b])
			}
		}
		for i, b := range inside {
			if e := b.Get(w.Nodes[(turn+i)%3], "/"); e.Outcome != harness.Inside || b.ID() != ids[b] {
				t.Fatalf("%v with id %s; want the id %s inside", e, b.ID(), ids[b])
			}
		}
		// Newcomers with cookies of the moment go from node to node as well: they have a place from their first poll on.
		b := w.Browser()
		first := b.Visit(w.Nodes[turn%3], "/")
		id := b.ID()
		if e := b.Check(w.Nodes[(turn+1)%3]); e.Outcome != harness.Waiting || e.Position != first.Position || b.ID() != id {
			t.Fatalf("a newcomer was told %v, and then %v with id %s instead of %s", first, e, b.ID(), id)
		}
		if err := b.Leave(w.Nodes[0]); err != nil {
			t.Fatal(err)
		}
	}
	keys := func(method, path string) []admin.Key {
		t.Helper()
		var k admin.Keys
		if _, err := w.Nodes[turn%3].Admin(method, path, &k); err != nil {
			t.Fatal(err)
		}
		return k.Keys
	}
	look()
	cookie := waiting[0].Headers()
	if got := keys("GET", "/v1/keys"); len(got) != 1 || got[0].ID != 1 || !got[0].Signs || got[0].Age == nil {
		t.Errorf("at first the keys are %+v", got)
	}
	keys("POST", "/v1/keys/rotate")
	look()
	if got := keys("POST", "/v1/keys/rotate"); len(got) != 3 || got[0].ID != 3 || got[0].Signs {
		t.Errorf("after two rotations the keys are %+v", got)
	}
	harness.WaitFor(t, "the newest key signs", 2*again, func() bool {
		look()
		return keys("GET", "/v1/keys")[0].Signs
	})
	look()
	if waiting[0].Headers() == cookie {
		t.Error("whoever waits has no new cookie")
	}
	for _, id := range []string{"1", "2"} {
		keys("DELETE", "/v1/keys/"+id)
		for _, n := range w.Nodes { // at once, on every node
			var k admin.Keys
			if _, err := n.Admin("GET", "/v1/keys", &k); err != nil || k.Keys[len(k.Keys)-1].ID == 1 {
				t.Errorf("%s: %+v, %v", n.ID, k, err)
			}
		}
	}
	look()
	if seen.Check(w.Nodes[1]); seen.ID() == unknown {
		t.Error("whom nothing remembers is known by a cookie under a removed key")
	}
	var k admin.Keys
	if code, err := w.Nodes[2].Admin("DELETE", "/v1/keys/3", &k); code != http.StatusConflict {
		t.Errorf("the last key: %d %v, want 409", code, err)
	}
	if code, err := w.Nodes[2].Admin("DELETE", "/v1/keys/1", &k); code != http.StatusNotFound {
		t.Errorf("a key that is gone: %d %v, want 404", code, err)
	}
}
