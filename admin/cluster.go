package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Members is the JSON of /v1/cluster: who belongs to the cluster, as the leader sees it, or this node while no leader can be asked.
type Members struct {
	By      string   `json:"by"`     // the node whose view it is
	Leader  string   `json:"leader"` // empty while nobody leads
	Members []Member `json:"members"`
}

// Member is one of them.
type Member struct {
	ID            string `json:"id"`
	Address       string `json:"address"`
	Voter         bool   `json:"voter"`
	Edge          bool   `json:"edge"` // never to become a voter
	Leader        bool   `json:"leader"`
	Reachable     bool   `json:"reachable"`
	LastContactMS int64  `json:"last_contact_ms"` // since its last answer; -1: none yet
	Behind        uint64 `json:"behind"`          // entries that it lacked then
}

// The changes of members, by the last part of their path.
const (
	OpJoin     = "join"
	OpPromote  = "promote"
	OpRemove   = "remove"
	OpTransfer = "transfer"
)

// MemberChange is one change: the body of POST /v1/cluster/{join, promote, remove, transfer}.
type MemberChange struct {
	Op      string
	ID      string // may be empty to transfer: to whoever is furthest
	Address string // host:port of who joins
	Edge    bool   // who joins has to be an edge node
}

// RefusedError says why a change was not made. Nothing was done.
type RefusedError struct {
	Reason  string
	Unknown bool // there is no such member
}

func (e *RefusedError) Error() string { return e.Reason }

func (s *Server) members(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	writeJSON(w, http.StatusOK, "application/json", s.cfg.Members(ctx))
}

// changeMembers answers with the members after the change.
func (s *Server) changeMembers(op string) call {
	return func(w http.ResponseWriter, r *http.Request, who *caller) {
		body, status, err := readJSON(w, r)
		change := MemberChange{Op: op}
		if err == nil {
			status = http.StatusBadRequest
			err = decodeMemberChange(body, &change)
		}
		attrs := who.attrs("change", op, "member", shorten(change.ID), "address", shorten(change.Address))
		if err != nil {
			s.log.Info("members not changed", append(attrs, "status", status, "err", err)...)
			problem(w, status, err.Error())
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
		defer cancel()
		err = s.cfg.ChangeMembers(ctx, change)
		refused := (*RefusedError)(nil)
		switch {
		case err == nil:
			s.log.Info("members changed", append(attrs, "status", http.StatusOK, "applied_index", s.cfg.Status().AppliedIndex)...)
			writeJSON(w, http.StatusOK, "application/json", s.cfg.Members(ctx))
		case errors.As(err, &refused):
			status = http.StatusConflict
			if refused.Unknown {
				status = http.StatusNotFound
			}
			s.log.Info("members not changed", append(attrs, "status", status, "err", err)...)
			problem(w, status, refused.Reason)
		default:
			s.log.Warn("members perhaps not changed", append(attrs, "status", http.StatusServiceUnavailable, "err", err)...)
			unavailable(w, err)
		}
	}
}

// decodeMemberChange reads the body of a change: one object, each name once and spelt as it is here.
func decodeMemberChange(data []byte, change *MemberChange) error {
	if !json.Valid(data) {
		return errors.New("the body is not JSON: " + syntaxError(data))
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if start, _ := d.Token(); start != json.Delim('{') {
		return errors.New("the body is not an object")
	}
	seen := map[string]bool{}
	for d.More() {
		name, value, err := member(d)
		if err != nil {
			return err
		}
		if seen[name] {
			return fmt.Errorf("%s: given twice", name)
		}
		seen[name] = true
		text, isText := value.(string)
		switch {
		case name == "id" && isText:
			change.ID = text
		case name == "address" && isText && change.Op == OpJoin:
			change.Address = text
		case name == "edge" && change.Op == OpJoin:
			yes, ok := value.(bool)
			if !ok {
				return fmt.Errorf("edge: %s is neither true nor false", describe(value))
			}
			change.Edge = yes
		case name == "id" || name == "address" && change.Op == OpJoin:
			return fmt.Errorf("%s: %s is not a text", name, describe(value))
		default:
			return fmt.Errorf("%q is nothing that %s takes", name, change.Op)
		}
	}
	switch {
	case change.ID == "" && change.Op != OpTransfer:
		return errors.New("id: it is missing")
	case change.Address == "" && change.Op == OpJoin:
		return errors.New("address: it is missing")
	}
	return nil
}
