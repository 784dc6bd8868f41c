package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// nodeStatus is what GET /v1/status answers, as far as it is shown here.
type nodeStatus struct {
	Node         string
	Role         string
	Leader       string
	Term         uint64
	AppliedIndex uint64 `json:"applied_index"`
	TableSum     string `json:"table_sum"`
	FeatureLevel int    `json:"feature_level"`
	Peers        []struct {
		ID, Address    string
		Voter, Healthy bool
	}
	Room struct {
		Active, Released, Queued, Absent int64
		MaxActive                        int64   `json:"max_active"`
		ActiveTTL                        float64 `json:"active_ttl"`
		ClaimTTL                         float64 `json:"claim_ttl"`
		QueueAbsent                      float64 `json:"queue_absent"`
		QueueTTL                         float64 `json:"queue_ttl"`
		QueueMax                         int64   `json:"queue_max"`
		FirstHitTTL                      float64 `json:"first_hit_ttl"`
		Unconfirmed                      int64   `json:"unconfirmed"`
		// Overrides are the limits that were set by the admin API and lie over those of the environment.
		Overrides map[string]float64
	}
	Mirror *struct {
		Enabled, Healthy bool
		BehindMS         int64 `json:"behind_ms"`
		Error            string
	}
}

// printStatus asks the admin listener of a node and writes its answer as tables.
func printStatus(ctx context.Context, node *adminNode, token secret, w io.Writer) error {
	body, err := ask(ctx, node.http, node.url("/v1/status"), token)
	if err != nil {
		return fmt.Errorf("status of %s: %w", node.address, err)
	}
	var s nodeStatus
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("status of %s: %w", node.address, err)
	}
	return s.write(w)
}

func (s *nodeStatus) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	leader := s.Leader
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(w, "node\t%s, %s\n", s.Node, s.Role)
	fmt.Fprintf(w, "leader\t%s, term %d\n", leader, s.Term)
	fmt.Fprintf(w, "table\tindex %d, sum %s\n", s.AppliedIndex, s.TableSum)
	fmt.Fprintf(w, "level\t%d\n", max(s.FeatureLevel, 1)) // a node from before the levels says nothing
	fmt.Fprintf(w, "mirror\t%s\n", s.mirror())

	r := s.Room
	fmt.Fprintf(w, "\nroom\t\n")
	fmt.Fprintf(w, "slots\t%d of %d held: %d active, %d released\n", r.Active+r.Released, r.MaxActive, r.Active, r.Released)
	fmt.Fprintf(w, "queue\t%d queued, %d of them absent%s\n", r.Queued, r.Absent, limit(r.QueueMax))
	fmt.Fprintf(w, "seconds\tactive_ttl %g, claim_ttl %g, queue_absent %g, queue_ttl %g, first_hit_ttl %g\n", r.ActiveTTL, r.ClaimTTL, r.QueueAbsent, r.QueueTTL, r.FirstHitTTL)

	if len(r.Overrides) > 0 {
		fmt.Fprintf(w, "set here\t%s, by the admin API and until cleared with null\n", strings.Join(slices.Sorted(maps.Keys(r.Overrides)), ", "))
	}

	fmt.Fprintf(w, "\npeer\taddress\tvotes\thealthy\n")
	for _, p := range s.Peers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.ID, p.Address, yesNo(p.Voter), yesNo(p.Healthy))
	}
	return w.Flush()
}

func (s *nodeStatus) mirror() string {
	switch m := s.Mirror; {
	case m == nil && s.Role != "leader":
		return "the leader knows"
	case m == nil, !m.Enabled:
		return "off"
	case !m.Healthy:
		return fmt.Sprintf("not healthy, %d ms behind: %s", m.BehindMS, m.Error)
	default:
		return fmt.Sprintf("healthy, %d ms behind", m.BehindMS)
	}
}

func limit(most int64) string {
	if most == 0 {
		return ""
	}
	return fmt.Sprintf(", at most %d", most)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
