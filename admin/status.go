package admin

import "github.com/openwaitingroom/owr/queue"

// Status is the JSON of /v1/status: what this node knows as of its last applied entry.
type Status struct {
	Node         string  `json:"node"`
	Role         string  `json:"role"`   // leader, follower, candidate, …
	Leader       string  `json:"leader"` // empty while nobody leads
	Term         uint64  `json:"term"`
	AppliedIndex uint64  `json:"applied_index"`
	FeatureLevel int     `json:"feature_level"` // what every voter understands
	TableSum     string  `json:"table_sum"`     // equal on two nodes whose AppliedIndex is equal
	Peers        []Peer  `json:"peers"`
	Room         Room    `json:"room"`
	Mirror       *Mirror `json:"mirror,omitempty"` // on the leader only
}

// Peer is one member of the cluster as this node sees it.
type Peer struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
	Healthy bool   `json:"healthy"`
}

// Room is how many visitors there are, and the limits in force.
type Room struct {
	Active   int `json:"active"`
	Released int `json:"released"`
	Queued   int `json:"queued"` // includes Absent
	Absent   int `json:"absent"`
	// Unconfirmed are those of Active whose cookie has not come back since their first visit, and TakenBack those of Absent that had
	// to give their slot to somebody who waited.
	Unconfirmed int `json:"unconfirmed"`
	TakenBack   int `json:"taken_back"`
	Limits
	// Overrides holds those of the limits that the admin API has set; the others come from the
	// environment of the node that leads.
	Overrides map[string]float64 `json:"overrides"`
}

// NewRoom describes a room. overridden are the fields that the admin API has set.
func NewRoom(counts queue.Counts, limits queue.Limits, overridden queue.Field) Room {
	r := Room{
		Active: counts.Active, Released: counts.Released, Queued: counts.Queued, Absent: counts.Absent,
		Unconfirmed: counts.Unconfirmed, TakenBack: counts.TakenBack,
		Limits: newLimits(limits), Overrides: map[string]float64{},
	}
	for _, f := range queue.Fields {
		if overridden&f.Field != 0 {
			v := float64(limits.Get(f.Field))
			if !f.Count {
				v /= 1000
			}
			r.Overrides[f.Name] = v
		}
	}
	return r
}

// Mirror is how the picture in Redis is.
type Mirror struct {
	Enabled  bool   `json:"enabled"`
	Healthy  bool   `json:"healthy"`
	BehindMS int64  `json:"behind_ms"`
	Error    string `json:"error,omitempty"` // why it is not healthy
}

// Limits are the limits of a room as JSON shows them: visitors, and seconds.
type Limits struct {
	MaxActive   int     `json:"max_active"`
	ActiveTTL   float64 `json:"active_ttl"`
	ClaimTTL    float64 `json:"claim_ttl"`
	QueueAbsent float64 `json:"queue_absent"`
	QueueTTL    float64 `json:"queue_ttl"`
	QueueMax    int     `json:"queue_max"`
	FirstHitTTL float64 `json:"first_hit_ttl"` // 0: off
}

func newLimits(l queue.Limits) Limits {
	return Limits{
		MaxActive: l.MaxActive, QueueMax: l.QueueMax,
		ActiveTTL: l.ActiveTTL.Seconds(), ClaimTTL: l.ClaimTTL.Seconds(),
		QueueAbsent: l.QueueAbsent.Seconds(), QueueTTL: l.QueueTTL.Seconds(), FirstHitTTL: l.FirstHitTTL.Seconds(),
	}
}
