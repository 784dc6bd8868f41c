package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
)

// clusterCommands show and change who belongs to the cluster. Each asks the admin listener of one node, whichever leads.
type clusterCommands struct {
	List     memberListFlags     `cmd:"" help:"Show the members as the leader sees them."`
	Join     memberJoinFlags     `cmd:"" help:"Take in a node that runs with --join and waits."`
	Promote  memberFlags         `cmd:"" help:"Give a member its vote now. A voter that joined gets it by itself once it has kept up for a while."`
	Remove   memberFlags         `cmd:"" help:"Take a member out of the cluster; its process ends. Refused when too few voters would be left."`
	Transfer memberTransferFlags `cmd:"" help:"Hand leadership to another voter."`
}

type memberListFlags struct {
	dialFlags
	readerFlags
}

type memberCallFlags struct {
	dialFlags
	AdminToken     string `placeholder:"SECRET" help:"Bearer token of the admin API."`
	AdminTokenFile string `placeholder:"PATH" help:"File that holds the bearer token of the admin API."`
}

type memberJoinFlags struct {
	ID      string `arg:"" help:"Its WR_NODE_ID."`
	Address string `arg:"" help:"HOST:PORT of its cluster port."`
	Edge    toggle `help:"Only if it is an edge node, which never votes." variable:"-"`
	memberCallFlags
}

type memberFlags struct {
	ID string `arg:"" help:"WR_NODE_ID of the member."`
	memberCallFlags
}

type memberTransferFlags struct {
	ID string `arg:"" optional:"" help:"WR_NODE_ID of the voter that is to lead. Default: the one that is furthest."`
	memberCallFlags
}

// memberChange is the body of the changing calls.
type memberChange struct {
	ID      string `json:"id,omitempty"`
	Address string `json:"address,omitempty"`
	Edge    bool   `json:"edge,omitempty"`
}

// cluster carries out one of the commands.
func (l *commandLine) cluster(ctx context.Context, stdout io.Writer) error {
	f := &l.flags.Cluster
	op := strings.Fields(l.command)[1]
	if op == "list" {
		token, err := l.readerToken(&f.List.readerFlags)
		if err != nil {
			return err
		}
		node, err := l.adminNode(&f.List.dialFlags)
		if err != nil {
			return err
		}
		return listMembers(ctx, node, token, stdout)
	}
	r := &reader{env: l.env}
	var call *memberCallFlags
	var change memberChange
	switch op {
	case "join":
		call = &f.Join.memberCallFlags
		change = memberChange{ID: f.Join.ID, Address: r.dial("HOST:PORT", f.Join.Address), Edge: r.onOff("edge", f.Join.Edge)}
	case "promote":
		call, change.ID = &f.Promote.memberCallFlags, f.Promote.ID
	case "remove":
		call, change.ID = &f.Remove.memberCallFlags, f.Remove.ID
	case "transfer":
		call, change.ID = &f.Transfer.memberCallFlags, f.Transfer.ID
	}
	if op != "transfer" || change.ID != "" {
		r.nodeName("ID", change.ID)
	}
	token := r.secret("admin-token", call.AdminToken, call.AdminTokenFile)
	if r.err != nil {
		return r.err
	}
	node, err := l.adminNode(&call.dialFlags)
	if err != nil {
		return err
	}
	var members clusterMembers
	if err := node.call(ctx, http.MethodPost, "/v1/cluster/"+op, token, change, &members); err != nil {
		return fmt.Errorf("%s %s: %w", op, change.ID, err)
	}
	return members.write(stdout)
}

// clusterMembers is what GET /v1/cluster and the changing calls answer.
type clusterMembers struct {
	By      string
	Leader  string
	Members []struct {
		ID, Address                    string
		Voter, Edge, Leader, Reachable bool
		LastContactMS                  int64 `json:"last_contact_ms"`
		Behind                         uint64
	}
}

func listMembers(ctx context.Context, node *adminNode, token secret, w io.Writer) error {
	body, err := ask(ctx, node.http, node.url("/v1/cluster"), token)
	if err != nil {
		return fmt.Errorf("members by %s: %w", node.address, err)
	}
	var m clusterMembers
	if err := json.Unmarshal(body, &m); err != nil {
		return fmt.Errorf("members by %s: %w", node.address, err)
	}
	return m.write(w)
}

func (m *clusterMembers) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	leader := m.Leader
	if leader == "" {
		leader = "none"
	}
	fmt.Fprintf(w, "leader\t%s\n", leader)
	if m.By != m.Leader {
		fmt.Fprintf(w, "seen by\t%s, since the leader can not be asked\n", m.By)
	}
	fmt.Fprintf(w, "\nmember\taddress\trole\treachable\tlast contact\tbehind\n")
	for _, v := range m.Members {
		role := "joining"
		switch {
		case v.Leader:
			role = "leader"
		case v.Voter:
			role = "voter"
		case v.Edge:
			role = "edge"
		}
		contact, behind := "never", "?"
		if v.LastContactMS >= 0 {
			contact, behind = (time.Duration(v.LastContactMS) * time.Millisecond).String(), fmt.Sprint(v.Behind)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", v.ID, v.Address, role, yesNo(v.Reachable), contact, behind)
	}
	return w.Flush()
}
