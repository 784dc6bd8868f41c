package cluster

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/internal/seal"
)

func ids(f *fsm) (out []uint8) {
	for _, k := range f.identity.Load().keys {
		out = append(out, k.ID)
	}
	return out
}

func TestKeysAreRotatedAndRemoved(t *testing.T) {
	f := settled(t)
	f.feed(t, 8, appendLevel(nil, 3))
	for _, k := range f.identity.Load().keys {
		if k.Made != 2000 {
			t.Errorf("key %d was made at %d, want the time of the table when the level was raised", k.ID, k.Made)
		}
	}
	index := uint64(8)
	feed := func(entry []byte) *RefusedError {
		t.Helper()
		index++
		answer, ok := f.feed(t, index, entry).(keyAnswer)
		if !ok {
			t.Fatalf("entry %x was not applied", entry)
		}
		return answer.refused
	}
	want := func(want ...uint8) {
		t.Helper()
		if got := ids(f); !slices.Equal(got, want) {
			t.Fatalf("keys %v, want %v", got, want)
		}
	}
	want(3, 2)
	feed(appendRotation(nil, 3000, [32]byte{7}))
	feed(appendRotation(nil, 4000, [32]byte{8}))
	want(5, 4, 3, 2)
	if k := f.identity.Load().keys[1]; k != (seal.Key{ID: 4, Secret: [32]byte{7}, Made: 3000}) {
		t.Errorf("key %+v", k)
	}
	feed(appendRemoval(nil, 5)) // its number is not given again
	feed(appendRotation(nil, 5000, [32]byte{9}))
	want(6, 4, 3, 2)
	if r := feed(appendRemoval(nil, 5)); r == nil || !r.Unknown {
		t.Errorf("a key that is not there: %v", r)
	}
	for _, id := range []uint8{2, 3, 4} {
		if r := feed(appendRemoval(nil, id)); r != nil {
			t.Fatal(r)
		}
	}
	if r := feed(appendRemoval(nil, 6)); r == nil || r.Unknown {
		t.Errorf("the last key: %v", r)
	}
	want(6)
	for range maxKeys - 1 {
		if r := feed(appendRotation(nil, 6000, [32]byte{})); r != nil {
			t.Fatal(r)
		}
	}
	if r := feed(appendRotation(nil, 6000, [32]byte{})); r == nil {
		t.Error("there is no end of keys")
	}
	want(13, 12, 11, 10, 9, 8, 7, 6)
	if g, err, _ := restored(persisted(t, f)); err != nil || !bytes.Equal(persisted(t, g), persisted(t, f)) {
		t.Errorf("a snapshot of as many keys as there may be: %v", err)
	}
}

func TestKeyNumbersGoAround(t *testing.T) {
	id := identity{keys: seal.Ring{{ID: 1}}, lastKey: 254}
	for _, want := range []uint8{255, 2} { // 0 is none, and 1 is in use
		if refused, err := id.changeKeys(appendRotation(nil, 1, [32]byte{})); refused != nil || err != nil || id.keys[0].ID != want {
			t.Fatalf("%v, %v, key %d; want %d", refused, err, id.keys[0].ID, want)
		}
	}
}

func TestAKeyVerifiesBeforeItSigns(t *testing.T) {
	ring := seal.Ring{{ID: 3, Made: 60_000}, {ID: 2, Made: 50_000}, {ID: 1}}
	lead := seal.Lead / time.Millisecond
	for _, c := range []struct {
		now  int64
		want uint8
	}{{50_000, 1}, {50_000 + int64(lead), 2}, {60_000 + int64(lead) - 1, 2}, {60_000 + int64(lead), 3}} {
		if got := ring.Signer(c.now).ID; got != c.want {
			t.Errorf("at %d key %d signs, want %d", c.now, got, c.want)
		}
	}
	if got := ring[:1].Signer(60_000).ID; got != 3 {
		t.Errorf("the only key is %d, and %d signs", 3, got)
	}
}
