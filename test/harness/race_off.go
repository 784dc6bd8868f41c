//go:build !race

package harness

// raceEnabled says whether owr is built with the race detector.
const raceEnabled = false
