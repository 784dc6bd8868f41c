//go:build !race

package queue

import "testing"

// The hot path allocates nothing: what it asks the table is asked for every request of every visitor.
func TestNoAllocations(t *testing.T) {
	table := busy(t)
	text := person(12).AppendText(nil)
	dst := make([]byte, 0, TokenLen)
	for name, f := range map[string]func(){
		"Lookup, active":  func() { table.Lookup(person(1)) },
		"Lookup, queued":  func() { table.Lookup(person(12)) },
		"Lookup, unknown": func() { table.Lookup(person(99)) },
		"HasRoom":         func() { table.HasRoom() },
		"Stats":           func() { table.Stats() },
		"ParseToken":      func() { ParseToken(text) },
		"AppendText":      func() { dst = person(3).AppendText(dst[:0]) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}
