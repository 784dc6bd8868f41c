package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/openwaitingroom/owr/cluster"
)

type restoreFlags struct {
	From         string `placeholder:"PATH" help:"The backup." variable:"-"`
	clusterFlags `group:"Cluster:"`
}

type restoreConfig struct {
	From string
	serveConfig
}

func (l *commandLine) restoreConfig() (restoreConfig, error) {
	f := &l.flags.Restore
	r := &reader{env: l.env}
	cfg := restoreConfig{From: f.From, serveConfig: serveConfig{DataDir: f.DataDir}}
	switch {
	case f.From == "":
		r.fail("from", "it is not set: give the file that owr backup wrote")
	case f.DataDir == "":
		r.fail("data-dir", `"" is not a directory`)
	}
	r.cluster(&cfg.serveConfig, &f.clusterFlags)
	return cfg, r.err
}

// restore makes the data directory of one node. It reads the whole backup before it writes anything.
func restore(cfg restoreConfig, stdout io.Writer) error {
	file, err := os.Open(cfg.From)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	defer file.Close()
	archive, err := cluster.ReadArchive(file)
	if err != nil {
		return fmt.Errorf("%s: %w; nothing was written", cfg.From, err)
	}
	id, err := archive.Restore(offline(cfg.serveConfig))
	if err != nil {
		return err
	}
	describeBackup(stdout, archive)
	fmt.Fprintf(stdout, "%s is now the directory of %s in the new cluster %s\n", cfg.DataDir, cfg.NodeID, id)
	if len(cfg.Peers) > 1 {
		fmt.Fprintf(stdout, "restore the same file on each of %s, all with empty directories, before you start any of them\n", names(offline(cfg.serveConfig).Peers))
	}
	return nil
}

// offline is a configuration for what is done to the directory of a node that does not run.
func offline(cfg serveConfig) cluster.Config {
	c := cluster.Config{
		NodeID: cfg.NodeID, Listen: cfg.ClusterListen, Advertise: cfg.ClusterAdvertise, DataDir: cfg.DataDir, Version: versionHere(),
	}
	for _, p := range cfg.Peers {
		c.Peers = append(c.Peers, cluster.Peer{ID: p.ID, Address: p.Address})
	}
	return c
}

func names(peers []cluster.Peer) string {
	var all []string
	for _, p := range peers {
		all = append(all, p.ID)
	}
	return strings.Join(all, ", ")
}
