package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/openwaitingroom/owr/cluster"
)

// recoverFlags do not read WR_PEERS: it names the nodes that are lost.
type recoverFlags struct {
	NodeID  string `placeholder:"NAME" help:"Name of the node whose directory it is. Default: the host name."`
	DataDir string `default:"./owr-data" help:"Directory of the node that is left; the node must not run."`
	Peers   string `placeholder:"n1=HOST:PORT,..." help:"The nodes of the cluster from now on, this one included. Default: this one alone." variable:"-"`
	Yes     toggle `help:"Do it. Without it, say what would be done." variable:"-"`
}

type recoverConfig struct {
	serveConfig
	Yes bool
}

func (l *commandLine) recoverConfig() (recoverConfig, error) {
	f := &l.flags.Recover
	r := &reader{env: l.env}
	cfg := recoverConfig{Yes: r.onOff("yes", f.Yes), serveConfig: serveConfig{DataDir: f.DataDir, Peers: r.peers("peers", f.Peers)}}
	id := f.NodeID
	if id == "" {
		var err error
		if id, err = os.Hostname(); err != nil {
			r.fail("node-id", "it is not set, and the host has no name: %v", err)
		}
	}
	cfg.NodeID = r.nodeName("node-id", id)
	if f.DataDir == "" {
		r.fail("data-dir", `"" is not a directory`)
	}
	return cfg, r.err
}

// recoverNode makes the directory of one node that of a cluster that goes on without those that are lost.
func recoverNode(cfg recoverConfig, stdout io.Writer) (err error) {
	s, err := cluster.OpenSurvivor(offline(cfg.serveConfig))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	fmt.Fprintf(stdout, "%s is the directory of %s, one of %s: entry %d, %d inside, %d released, %d queued\n", cfg.DataDir, cfg.NodeID, names(s.Members), s.Index,
		s.Counts.Active, s.Counts.Released, s.Counts.Queued)
	if !cfg.Yes {
		return usagef("nothing was done: with --yes %s goes on with all of it as the cluster of %s; none of the other directories of %s may ever be used again, or there are two clusters that disagree",
			cfg.NodeID, names(s.Peers), names(s.Members))
	}
	if err := s.Recover(); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "it goes on as the cluster of %s: start it with WR_PEERS=%s\n", names(s.Peers), list(s.Peers))
	if len(s.Peers) > 1 {
		fmt.Fprintln(stdout, "copy the directory to each of the others before you start any of them: an empty one knows nobody and may vote")
	}
	return nil
}

// list is the text of WR_PEERS.
func list(peers []cluster.Peer) string {
	var all []string
	for _, p := range peers {
		all = append(all, p.ID+"="+p.Address)
	}
	return strings.Join(all, ",")
}
