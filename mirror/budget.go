package mirror

import "time"

// A budget bounds what changes in the middle of the line may cost Redis over time, counted in
// elements it has to walk over, about 10 ns each. Past it a full pass is the better way: that one
// costs Redis about as much as walking over 100 elements for each visitor, but in small pieces.
type budget struct {
	left int
	at   time.Time
}

const (
	budgetFloor = 1_000_000 // elements, however short the line is
	budgetLines = 20        // or the whole line this many times, if that is more
	// budgetRefill is how long an empty budget takes to be full again. At a million visitors
	// that allows 20 million elements in two seconds: a tenth of Redis's time.
	budgetRefill = 2 * time.Second
)

func budgetOf(line int) int { return max(budgetFloor, budgetLines*line) }

func newBudget(line int, now time.Time) budget { return budget{left: budgetOf(line), at: now} }

// spend takes scan elements out of the budget and reports whether they were in it.
func (b *budget) spend(scan, line int, now time.Time) bool {
	if scan == 0 {
		return true
	}
	full := budgetOf(line)
	refill := int(float64(full) * now.Sub(b.at).Seconds() / budgetRefill.Seconds())
	b.left, b.at = min(full, b.left+refill), now
	if scan > b.left {
		return false
	}
	b.left -= scan
	return true
}
