package mirror

import (
	"errors"
	"strconv"
	"time"
)

// A marker is what wr:mirror said when it was read. The zero value: there is none.
type marker struct {
	cluster   string
	term      uint64
	node      string
	updatedAt string // as it is there; Unix ms when an owr wrote it
}

const (
	// freshFor is how long a picture of another cluster counts as being kept up after its last refresh.
	freshFor = 30 * time.Second
	// watchFor is how long one that looks older is watched before it is replaced: more than two
	// beats. Two clusters need not have the same time, and one that beats is alive whatever its clock says.
	watchFor = 5 * beatEvery / 2
)

// errWatching says that another cluster's picture looks abandoned, and that this is being made sure of.
var errWatching = errors.New("another cluster's old picture is there; waiting whether it is still kept up")

// A sighting is how long another cluster's marker has been seen unchanged.
type sighting struct {
	marker marker
	since  time.Time
	moved  time.Time // when it was last seen to change; zero: never
}

// look takes note of the marker as it was at that time and answers nil when it may be replaced,
// errForeign while its cluster is alive, and errWatching while that is open.
func (s *sighting) look(m marker, now time.Time) error {
	switch {
	case s.marker.cluster != m.cluster:
		*s = sighting{marker: m, since: now}
	case s.marker != m:
		s.marker, s.since, s.moved = m, now, now
	}
	still := now.Sub(s.since)
	switch {
	case still >= freshFor:
		return nil // whatever its clock says
	case !s.moved.IsZero() || m.fresh(now):
		return errForeign
	case still < watchFor:
		return errWatching
	}
	return nil
}

// fresh reports whether the marker was refreshed within freshFor, or says so: a time in the
// future is a clock that is ahead.
func (m marker) fresh(now time.Time) bool {
	ms, err := strconv.ParseInt(m.updatedAt, 10, 64)
	return err == nil && now.Sub(time.UnixMilli(ms)) < freshFor
}

// parseMarker reads the four fields as HMGET gives them. A term that is no number counts as 0: the
// full pass that follows puts it right.
func parseMarker(values []any) marker {
	field := func(i int) string {
		text, _ := values[i].(string)
		return text
	}
	term, _ := strconv.ParseUint(field(1), 10, 64)
	return marker{cluster: field(0), term: term, node: field(2), updatedAt: field(3)}
}
