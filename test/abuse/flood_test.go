package abuse

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// A flood of clients that keep no cookies costs no memory, no entry of the log and nobody's place.
func TestFloodWithoutCookies(t *testing.T) {
	v := attacked(t, 1, nil)
	v.visit()
	for range 5 {
		v.visit()
	}
	before, steady := v.status(), time.Now()
	harness.WaitFor(t, "the presence of the six is committed", time.Minute, func() bool {
		if s := v.status(); s.AppliedIndex != before.AppliedIndex {
			before, steady = s, time.Now()
		}
		return time.Since(steady) > 2*time.Second
	})
	rss := v.rss()
	if before.Room.Active != 1 || before.Room.Queued != 5 {
		t.Fatalf("before: %+v", before.Room)
	}
	n, begun := size(20_000, 100_000), time.Now()
	each(t, 32, 32, func(int) error {
		w, err := v.dial()
		if err != nil {
			return err
		}
		defer w.Close()
		for range n / 32 {
			if status, _, err := w.ask("GET", "/", ""); err != nil || status != http.StatusFound {
				return fmt.Errorf("got %d, %w", status, err)
			}
		}
		return nil
	})
	after, grown := v.status(), v.rss()-rss
	t.Logf("%d requests in %v: RSS grew by %.1f MiB, the log by %d entries", n, time.Since(begun).Round(time.Millisecond), grown, after.AppliedIndex-before.AppliedIndex)
	if grown > 50 {
		t.Errorf("RSS grew by %.1f MiB", grown)
	}
	if after.AppliedIndex != before.AppliedIndex || after.Room.Queued != before.Room.Queued || after.TableSum != before.TableSum {
		t.Errorf("the table is another one: %+v, then %+v", before, after)
	}
}

// While there is room such a flood takes the slots, and nothing beyond them.
func TestFloodWithRoom(t *testing.T) {
	v := attacked(t, 20, nil)
	w, err := v.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 500 {
		if _, _, err := w.ask("GET", "/", ""); err != nil {
			t.Fatal(err)
		}
	}
	if room := v.status().Room; room.Active+room.Released > 20 || room.Queued > 0 {
		t.Errorf("got %+v", room)
	}
}

// Who polls far too often is told so, and the log does not hear of it.
func TestPollHammering(t *testing.T) {
	v := attacked(t, 0, harness.Settings{"WR_POLL_RPS": "10"})
	cookie, _ := v.visit()
	w, err := v.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	index, counts, begun := v.status().AppliedIndex, map[int]int{}, time.Now()
	for range 1000 {
		status, _, err := w.ask("GET", "/wr_check", cookie)
		if err != nil {
			t.Fatal(err)
		}
		counts[status]++
	}
	seconds := time.Since(begun).Seconds()
	// The visit has taken one of the burst of forty.
	if most := 41 + int(10*seconds); 1+counts[200] < 40 || counts[200] > most || counts[200]+counts[429] != 1000 {
		t.Errorf("in %.1f s: got %v, want at most %d answers", seconds, counts, most)
	}
	if grown := v.status().AppliedIndex - index; float64(grown) > 3+2*seconds { // its presence, once a second
		t.Errorf("the log grew by %d entries in %.1f s", grown, seconds)
	}
}

// A place that nobody keeps is passed over.
func TestParkedPlaces(t *testing.T) {
	v := attacked(t, 1, harness.Settings{"WR_QUEUE_ABSENT": "3", "WR_CLAIM_TTL": "60"})
	v.visit()
	const parked, present = 1000, 10
	cookies := make([]string, parked+present)
	join := func(i int) error {
		w, err := v.dial()
		if err != nil {
			return err
		}
		defer w.Close()
		if _, cookies[i], err = w.ask("GET", "/", ""); err != nil {
			return err
		}
		_, cookies[i], err = w.ask("GET", "/wr_check", cookies[i])
		return err
	}
	each(t, parked, 16, join)
	each(t, present, 1, func(i int) error { return join(parked + i) })
	poll := func() (in int) {
		each(t, present, 1, func(i int) error {
			w, err := v.dial()
			if err != nil {
				return err
			}
			defer w.Close()
			status, _, err := w.ask("GET", "/wr_check", cookies[parked+i])
			if status == http.StatusFound {
				in++
			}
			return err
		})
		return in
	}
	harness.WaitFor(t, "all but ten are absent", time.Minute, func() bool {
		poll()
		room := v.status().Room
		return room.Absent == parked && room.Queued == parked+present
	})
	v.SetLimits(map[string]any{"max_active": 500})
	harness.WaitFor(t, "the ten are let in", time.Minute, func() bool { return poll() == present })
	if room := v.status().Room; room.Active+room.Released != 1+present || room.Absent != parked {
		t.Errorf("500 slots, ten present and a thousand absent: got %+v", room)
	}
}
