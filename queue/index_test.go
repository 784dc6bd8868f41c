package queue

import (
	"testing"

	"pgregory.net/rapid"
)

// The index does what a map does, also with tokens whose hashes meet.
func TestIndexAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &shard{slabs: []*[slabRows]row{new([slabRows]row)}}
		want := map[Token]uint32{}
		free := []uint32{}
		for slot := range uint32(slabRows) {
			free = append(free, slot)
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				token := person(rapid.IntRange(0, 300).Draw(t, "token"))
				if _, ok := want[token]; ok || len(free) == 0 {
					return
				}
				slot := free[0]
				free = free[1:]
				s.at(slot).token = token
				s.index.add(&token, slot)
				want[token] = slot
			},
			"remove": func(t *rapid.T) {
				token := person(rapid.IntRange(0, 300).Draw(t, "token"))
				if slot, ok := want[token]; ok {
					s.index.remove(&token, slot)
					*s.at(slot) = row{}
					free = append(free, slot)
					delete(want, token)
				}
			},
			"": func(t *rapid.T) {
				for n := range 301 {
					token := person(n)
					slot, ok := s.index.find(&token, s)
					if wanted, there := want[token]; ok != there || slot != wanted {
						t.Fatalf("%x: %d, %v; want %d, %v", token, slot, ok, wanted, there)
					}
				}
			},
		})
	})
}
