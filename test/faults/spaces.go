package faults

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// spaces are network namespaces, one for each node and one with the bridge between them: the nodes have addresses of their own, and
// nftables in a namespace does to the node's packets what a broken network or a firewall does. Visitors, Redis and the origin are on
// the machine's own side of a cable to the bridge. The bridge is not on the machine's side, since a firewall there, Docker's for one, would drop
// what it carries. All addresses are of 198.18.0.0/15, which RFC 2544 keeps for such tests.
type spaces struct {
	t     testing.TB
	id    string            // begins the names of namespaces and cables
	net   string            // the first three bytes of every address, as text
	names map[string]string // node → namespace
}

// made is how many of them this process has made: what is deleted goes away a moment later, so each has names of its own.
var made int

// newSpaces makes the bridge, or skips the test where that is not allowed.
func newSpaces(t testing.TB) *spaces {
	t.Helper()
	for _, command := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(command); err != nil {
			t.Skipf("network namespaces are needed here, and %s is missing: make faults installs it (iproute2, nftables)", command)
		}
	}
	made++
	s := &spaces{
		t: t, id: fmt.Sprintf("owr%d%c", os.Getpid(), 'a'+made%26), names: map[string]string{},
		net: fmt.Sprintf("198.%d.%d", 18+rand.IntN(2), 1+rand.IntN(254)),
	}
	if out, err := s.run("ip", "netns", "add", s.bridge()); err != nil {
		t.Skipf("network namespaces are needed here, and making them takes root: %s", out)
	}
	t.Cleanup(func() { _, _ = s.run("ip", "netns", "del", s.bridge()) }) // and every cable with it, in a moment
	if out, err := s.run("ip", "-n", s.bridge(), "link", "add", "bridge", "type", "bridge"); err != nil {
		t.Skipf("network namespaces are needed here, and a kernel with bridges: %s", out)
	}
	s.must("ip", "-n", s.bridge(), "link", "set", "bridge", "up")
	s.plug("host", "")
	s.must("ip", "addr", "add", s.host()+"/24", "dev", s.id)
	s.must("ip", "link", "set", s.id, "up")
	return s
}

// bridge is the namespace with the bridge.
func (s *spaces) bridge() string { return s.id + "-bridge" }

// plug lays a cable from the bridge to a namespace, where its end is eth0; to the machine's own side, where its end is called as
// s.id, when name is empty.
func (s *spaces) plug(port, name string) {
	s.t.Helper()
	end := []string{"name", s.id}
	if name != "" {
		end = []string{"name", "eth0", "netns", name}
	}
	s.must("ip", append([]string{"link", "add", port, "netns", s.bridge(), "type", "veth", "peer"}, end...)...)
	s.must("ip", "-n", s.bridge(), "link", "set", port, "master", "bridge", "up")
}

// host is the machine's address.
func (s *spaces) host() string { return s.net + ".1" }

// address is a node's: n1 has .11.
func (s *spaces) address(id string) string {
	number, err := strconv.Atoi(strings.TrimPrefix(id, "n"))
	must(s.t, err)
	return fmt.Sprintf("%s.%d", s.net, 10+number)
}

// settle moves the nodes of a world, which have not been started, into namespaces of their own.
func (s *spaces) settle(w *world) {
	s.t.Helper()
	redis := newLinkOn(s.t, s.host(), harness.Address(w.redis.Port))
	origin := newLinkOn(s.t, s.host(), strings.TrimPrefix(w.origin.url, "http://"))
	var peers []string
	for _, n := range w.nodes {
		s.add(n.ID)
		move := func(address string) string {
			_, port, err := net.SplitHostPort(address)
			must(s.t, err)
			return net.JoinHostPort(s.address(n.ID), port)
		}
		n.Within("ip", "netns", "exec", s.names[n.ID])
		for _, name := range []string{"WR_LISTEN", "WR_ADMIN_LISTEN", "WR_CLUSTER_LISTEN"} {
			n.Settings[name] = move(n.Settings[name])
		}
		n.URL, n.AdminURL, n.Cluster = "http://"+n.Settings["WR_LISTEN"], "http://"+n.Settings["WR_ADMIN_LISTEN"], n.Settings["WR_CLUSTER_LISTEN"]
		n.Token = "of-the-admin-api"
		n.Settings["WR_ADMIN_TOKEN"], n.Settings["WR_CLUSTER_SECRET"] = n.Token, "of-the-cluster"
		n.Settings["WR_BACKEND_URL"] = "http://" + origin.address
		n.Settings["WR_REDIS_HOST"], n.Settings["WR_REDIS_PORT"] = s.host(), strconv.Itoa(redis.port())
		peers = append(peers, n.ID+"="+n.Cluster)
	}
	for _, n := range w.nodes {
		n.Settings["WR_PEERS"] = strings.Join(peers, ",")
	}
}

// add makes a node's namespace.
func (s *spaces) add(id string) {
	s.t.Helper()
	name := s.id + "-" + id
	s.must("ip", "netns", "add", name)
	s.t.Cleanup(func() { _, _ = s.run("ip", "netns", "del", name) })
	s.names[id] = name
	s.plug(id, name)
	s.must("ip", "-n", name, "addr", "add", s.address(id)+"/24", "dev", "eth0")
	s.must("ip", "-n", name, "link", "set", "eth0", "up")
	s.must("ip", "-n", name, "link", "set", "lo", "up")
}

func (s *spaces) run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return fmt.Sprintf("%s %s: %v: %s", name, strings.Join(args, " "), err, out), err
}

func (s *spaces) must(name string, args ...string) {
	s.t.Helper()
	if out, err := s.run(name, args...); err != nil {
		s.t.Fatal(out)
	}
}

// filter sets what a node's kernel does with packets of the others and to them: rules of nftables, either of which may be empty, with
// PEERS for the others' addresses.
func (s *spaces) filter(n *harness.Node, others []*harness.Node, in, out string) {
	s.t.Helper()
	var peers []string
	for _, other := range others {
		peers = append(peers, s.address(other.ID))
	}
	rules := fmt.Sprintf("table ip harm {\n chain in { type filter hook input priority 0; %s\n }\n chain out { type filter hook output priority 0; %s\n }\n}\n", in, out)
	cmd := exec.Command("ip", "netns", "exec", s.names[n.ID], "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(rules, "PEERS", "{ "+strings.Join(peers, ", ")+" }"))
	if text, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("nft on %s: %v: %s", n.ID, err, text)
	}
}

// The rules of the cells.
const (
	dropIn    = "ip saddr PEERS drop"
	dropOut   = "ip daddr PEERS drop"
	refuseIn  = "ip saddr PEERS meta l4proto tcp tcp flags & rst == 0 reject with tcp reset"
	refuseOut = "ip daddr PEERS meta l4proto tcp tcp flags & rst == 0 reject with tcp reset"
)

// lossy are rules that drop so many of a hundred packets each way.
func lossy(percent int) (in, out string) {
	return fmt.Sprintf("ip saddr PEERS numgen random mod 100 < %d drop", percent), fmt.Sprintf("ip daddr PEERS numgen random mod 100 < %d drop", percent)
}

// filtered has the rules in force between each victim and all others.
func filtered(in, out string) func(*world, []*harness.Node) {
	return func(w *world, victims []*harness.Node) {
		for _, n := range victims {
			var others []*harness.Node
			for _, other := range w.nodes {
				if other != n {
					others = append(others, other)
				}
			}
			w.spaces.filter(n, others, in, out)
		}
	}
}

// filteredFromLeader has the rules in force between the victim and the leader alone.
func filteredFromLeader(in, out string) func(*world, []*harness.Node) {
	return func(w *world, victims []*harness.Node) {
		w.spaces.filter(victims[0], []*harness.Node{w.leader()}, in, out)
	}
}

// unfiltered ends all that nftables does.
func unfiltered(w *world, _ []*harness.Node) {
	for _, n := range w.nodes {
		w.spaces.must("ip", "netns", "exec", w.spaces.names[n.ID], "nft", "flush", "ruleset")
	}
}

// packets is how long the cells of this file last.
const packets = 5 * time.Second
