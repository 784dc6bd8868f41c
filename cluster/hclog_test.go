package cluster

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestRaftsLinesInOurSpelling(t *testing.T) {
	var out strings.Builder
	log := newRaftLog(slog.New(slog.NewTextHandler(&out, nil)))
	log.With("node-id", "n1").Error("something broke", "last-index", 7, "error", errors.New("why"))
	log.Debug("details")
	log.Info("entering follower state", "follower", "n1")
	got := out.String()
	if !strings.Contains(got, `level=ERROR msg="raft: something broke" node_id=n1 last_index=7 err=why`) {
		t.Errorf("line %q", got)
	}
	if strings.Count(got, "\n") != 1 {
		t.Errorf("routine is logged: %q", got)
	}
}

func TestAComplaintAboutAPeerIsNotRepeated(t *testing.T) {
	var out strings.Builder
	log := newRaftLog(slog.New(slog.NewTextHandler(&out, nil)))
	for range 50 {
		log.Error("failed to heartbeat to", "peer", "n2", "error", "refused")
		log.Error("failed to heartbeat to", "peer", "n3", "error", "refused")
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines, want one for each peer", n)
	}
}
