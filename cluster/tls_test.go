package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openwaitingroom/owr/internal/authority"
	"github.com/openwaitingroom/owr/internal/certs"
)

func newAuthority(t testing.TB) *authority.Authority {
	t.Helper()
	a, _, err := authority.New("test", 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// papers writes the files of one node.
func papers(t testing.TB, a *authority.Authority, r authority.Request) *TLS {
	t.Helper()
	r.Server, r.Client = true, true
	if r.Life == 0 {
		r.Life = time.Hour
	}
	pair, err := a.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := &TLS{Cert: filepath.Join(dir, "node.crt"), Key: filepath.Join(dir, "node.key"), CA: filepath.Join(dir, "ca.crt")}
	for path, content := range map[string][]byte{files.Cert: pair.Cert, files.Key: pair.Key, files.CA: a.CertPEM()} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func papersOf(t testing.TB, a *authority.Authority, node string) *TLS {
	return papers(t, a, authority.Request{Name: node, URI: authority.MemberURI(node)})
}

// forge is a passport that nobody has checked.
func forge(t testing.TB, files *TLS, node string) *passport {
	t.Helper()
	keys, err := certs.NewReloader(certs.Config{Cert: files.Cert, Key: files.Key, CA: files.CA})
	if err != nil {
		t.Fatal(err)
	}
	p := &passport{node: node, prefer: files.Prefer, keys: keys, log: slog.New(slog.DiscardHandler)}
	p.shown.Store(&shown{keys.Certificate(), keys.Certificate()})
	return p
}

// A gate is a cluster port, or somebody who dials one.
type gate struct {
	*card
	port  *port
	peers chan string // who came in
	mu    sync.Mutex
	text  bytes.Buffer // its log
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.Write(p)
}

func (g *gate) logged() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.String()
}

// newGate makes one with a passport, or without TLS. It dials, and wants the node that at says.
func newGate(t testing.TB, p *passport, at string) *gate {
	t.Helper()
	g := &gate{card: cardOf("", 1), peers: make(chan string, 100)}
	g.passport, g.nodeAt = p, func(string) string { return at }
	g.log = slog.New(slog.NewTextHandler(g, nil))
	return g
}

// open lets it take connections.
func (g *gate) open(t testing.TB) *gate {
	t.Helper()
	var err error
	g.port, err = listenPort("127.0.0.1:0", "", g.card, g.log, make(chan struct{}), func(conn net.Conn) {
		g.peers <- peerOf(conn)
		_, _ = io.Copy(io.Discard, conn)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.port.close() })
	return g
}

func (g *gate) address() string { return g.port.listener.Addr().String() }

func (g *gate) dialTo(other *gate) (peer string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := dialPeer(ctx, other.address(), g.card, purposeForward)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return peerOf(conn), nil
}

func (g *gate) count(why refusal) float64 {
	return testutil.ToFloat64(g.refused.WithLabelValues(string(why)))
}

// refuses waits until the gate has counted a refusal for this reason and told it.
func (g *gate) refuses(t testing.TB, why refusal) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for g.count(why) == 0 || !strings.Contains(g.logged(), "reason="+string(why)) {
		if time.Now().After(deadline) {
			t.Errorf("no refusal for %s: %s", why, g.logged())
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestNodesKnowEachOtherByTheirCertificates(t *testing.T) {
	a := newAuthority(t)
	for _, id := range []string{"n1", "a?b#c:d%"} {
		one, err := newPassport(papersOf(t, a, id), id, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		two := forge(t, papersOf(t, a, "n2"), "n2")
		server := newGate(t, one, "").open(t)
		for _, want := range []string{id, ""} { // as a member, and as whoever is there
			peer, err := newGate(t, two, want).dialTo(server)
			if err != nil || peer != id {
				t.Errorf("dialed %q: %q, %v", want, peer, err)
			}
			if came := <-server.peers; came != "n2" {
				t.Errorf("%q came in", came)
			}
		}
	}
}

func TestWhoIsNotTakenIn(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	plain := func() *passport { return nil }
	node := func(a *authority.Authority, files func(*TLS), id string) func() *passport {
		return func() *passport {
			f := papersOf(t, a, id)
			if files != nil {
				files(f)
			}
			return forge(t, f, id)
		}
	}
	someone := func(r authority.Request) func() *passport {
		return func() *passport { return forge(t, papers(t, a, r), "n2") }
	}
	ourRoots := func(f *TLS) { write(t, f.CA, a.CertPEM()) }
	for name, c := range map[string]struct {
		dialer, server func() *passport
		dialed         error // as the dialer says; nil: anything
		why            refusal
	}{
		"a node of another authority dials":        {node(other, ourRoots, "n2"), node(a, nil, "n1"), errRefusesUs, refusedAuthority},
		"a node of another authority is dialed":    {node(a, nil, "n2"), node(other, ourRoots, "n1"), errAuthority, refusedByThem},
		"another node of this authority is dialed": {node(a, nil, "n2"), node(a, nil, "n3"), errWrongName, refusedByThem},
		"a certificate of no node":                 {someone(authority.Request{Name: "ann", Unit: "operate"}), node(a, nil, "n1"), errRefusesUs, refusedName},
		"an expired certificate":                   {someone(authority.Request{Name: "n2", URI: authority.MemberURI("n2"), Life: -time.Minute}), node(a, nil, "n1"), errRefusesUs, refusedAuthority},
		"without TLS to a port with it":            {plain, node(a, nil, "n1"), nil, refusedPlain}, // the first version of the preamble has no answer to wait for
		"TLS to a port without it":                 {node(a, nil, "n2"), plain, errNoTLS, refusedTLS},
	} {
		t.Run(name, func(t *testing.T) {
			dialer, server := newGate(t, c.dialer(), "n1"), newGate(t, c.server(), "").open(t)
			if _, err := dialer.dialTo(server); c.dialed != nil && !errors.Is(err, c.dialed) {
				t.Errorf("the dialer says %v, want %v", err, c.dialed)
			}
			server.refuses(t, c.why)
			if c.dialed != nil && !strings.Contains(dialer.logged(), "no connection to another node") {
				t.Errorf("the dialer's log: %q", dialer.logged())
			}
			if len(server.peers) > 0 {
				t.Errorf("%q came in", <-server.peers)
			}
		})
	}
}

// The secret counts through TLS too.
func TestSecretInsideTLS(t *testing.T) {
	a := newAuthority(t)
	server, dialer := newGate(t, forge(t, papersOf(t, a, "n1"), "n1"), "").open(t), newGate(t, forge(t, papersOf(t, a, "n2"), "n2"), "n1")
	server.secret, dialer.secret = "s3cret", "s3cret"
	if peer, err := dialer.dialTo(server); err != nil || peer != "n1" {
		t.Errorf("%q, %v", peer, err)
	}
	dialer.secret = "another"
	if _, err := dialer.dialTo(server); !errors.Is(err, errStranger) {
		t.Errorf("another secret: %v", err)
	}
	server.refuses(t, refusedSecret)
}

// A cluster changes over node by node: with prefer both ways are open, and TLS is taken wherever both sides know it.
func TestPrefer(t *testing.T) {
	a := newAuthority(t)
	with := func(id, mode string) *passport {
		if mode == "plain" {
			return nil
		}
		f := papersOf(t, a, id)
		f.Prefer = mode == "prefer"
		return forge(t, f, id)
	}
	for _, c := range []struct {
		dialer, server string
		secured, fails bool
	}{
		{"prefer", "plain", false, false},
		{"plain", "prefer", false, false},
		{"prefer", "prefer", true, false},
		{"prefer", "require", true, false},
		{"require", "prefer", true, false},
		{"require", "plain", false, true},
		{"plain", "require", false, true},
	} {
		for _, secret := range []string{"", "s3cret"} {
			dialer, server := newGate(t, with("n2", c.dialer), "n1"), newGate(t, with("n1", c.server), "").open(t)
			dialer.secret, server.secret = secret, secret
			peer, err := dialer.dialTo(server)
			if c.fails && c.dialer == "plain" {
				server.refuses(t, refusedPlain) // without a secret the dialer has nothing to wait for, and does not notice
			} else if c.fails != (err != nil) || c.secured != (peer == "n1") {
				t.Errorf("%s dials %s: %q, %v", c.dialer, c.server, peer, err)
			}
			if c.fails {
				if len(server.peers) > 0 {
					t.Errorf("%s dials %s: it came in", c.dialer, c.server)
				}
				continue
			}
			select {
			case came := <-server.peers:
				if c.secured != (came == "n2") {
					t.Errorf("%s dials %s: %q came in", c.dialer, c.server, came)
				}
			case <-time.After(20 * time.Second):
				t.Errorf("%s dials %s: nobody came in", c.dialer, c.server)
			}
		}
	}
	f := papersOf(t, newAuthority(t), "n2")
	f.Prefer = true
	if _, err := newGate(t, forge(t, f, "n2"), "n1").dialTo(newGate(t, with("n1", "prefer"), "").open(t)); !errors.Is(err, errAuthority) {
		t.Errorf("a certificate that is not good is no reason to go without: %v", err)
	}
}

// Whatever strangers say, they are gone within 10 s, most of them at once, and the log has a line for each kind and not for each of them.
func TestStrangersAtTheClusterPort(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	files := papersOf(t, a, "n1")
	server := newGate(t, forge(t, files, "n1"), "").open(t)
	noise := make([]byte, 1<<20)
	rand.Read(noise)
	noise[0] = 'x'
	record := append([]byte{tlsHandshake, 3, 1, 0x40, 0}, noise[:1<<14]...)
	var wg sync.WaitGroup
	for name, say := range map[string][]byte{
		"HTTP": []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "noise": noise, "noise in a record": record, "silence": nil,
		"half a record": {tlsHandshake, 3, 1, 2, 0}, "half a preamble": []byte("ow"), "a preamble": append([]byte(preamble), purposeRaft),
	} {
		wg.Go(func() {
			conn, err := net.Dial("tcp", server.address())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = conn.Write(say) // it may be cut off
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: still open", name)
			}
		})
	}
	for name, config := range map[string]*tls.Config{
		"TLS 1.2":                  {MaxVersion: tls.VersionTLS12},
		"no certificate":           {NextProtos: []string{clusterProtocol}},
		"for another port":         {Certificates: []tls.Certificate{*forge(t, files, "n1").certificate()}},
		"for another port by ALPN": {Certificates: []tls.Certificate{*forge(t, files, "n1").certificate()}, NextProtos: []string{"http/1.1"}},
	} {
		config.InsecureSkipVerify = true
		wg.Go(func() {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", server.address(), config)
			if err != nil {
				return
			}
			defer conn.Close()
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for range 50 {
		wg.Go(func() {
			if conn, err := net.Dial("tcp", server.address()); err == nil {
				_, _ = conn.Write([]byte("GET /\r\n"))
				_, _ = io.Copy(io.Discard, conn)
				conn.Close()
			}
		})
	}
	wg.Wait()
	for _, why := range []refusal{refusedSilent, refusedStranger, refusedPlain, refusedHandshake} {
		server.refuses(t, why)
	}
	if got := server.count(refusedStranger); got < 51 {
		t.Errorf("%g strangers were counted", got)
	}
	if lines := strings.Count(server.logged(), "\n"); lines > 3*len(refusals) {
		t.Errorf("%d lines in the log", lines)
	}
	if len(server.peers) > 0 {
		t.Error("one of them came in")
	}
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is shown is always this node's own, whatever somebody puts into the place of its files.
func TestACertificateOfAnotherNodeIsNotTaken(t *testing.T) {
	a := newAuthority(t)
	files := papersOf(t, a, "n1")
	g := newGate(t, nil, "")
	p, err := newPassport(files, "n1", g.log)
	if err != nil {
		t.Fatal(err)
	}
	first := p.certificate()
	replace := func(id string, a *authority.Authority) {
		pair, err := a.Issue(authority.Request{Name: id, URI: authority.MemberURI(id), Server: true, Client: true, Life: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		write(t, files.Cert, pair.Cert)
		write(t, files.Key, pair.Key)
		if err := p.keys.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	replace("n2", a)
	again := p.certificate()
	if again != first || p.certificate() != first || strings.Count(g.logged(), "can not be used") != 1 {
		t.Errorf("that of n2: %s", g.logged())
	}
	replace("n1", newAuthority(t))
	if p.certificate() != first {
		t.Error("that of another authority is shown")
	}
	replace("n1", a)
	if p.certificate() == first {
		t.Error("its own new one is not shown")
	}
	for name, c := range map[string]*TLS{
		"another node's": papersOf(t, a, "n2"), "nobody's": papers(t, a, authority.Request{Name: "n1"}), "none": {Cert: "none", Key: "none", CA: "none"},
		"an expired one": papers(t, a, authority.Request{Name: "n1", URI: authority.MemberURI("n1"), Life: -time.Minute}),
	} {
		if err := c.Check("n1"); err == nil {
			t.Errorf("%s: no complaint", name)
		}
	}
}

// --- what a node says of itself -------------------------------------------------------------

// raftOver makes Raft's side of a gate: what comes in, and a way to send.
func raftOver(t *testing.T, g *gate) (*raft.NetworkTransport, *intake) {
	t.Helper()
	i := newIntake(g.port, 5*time.Second, g.log)
	tr := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: newStreams(g.port, i.unsure), MaxPool: 1, Timeout: 5 * time.Second, Logger: newRaftLog(slog.New(slog.DiscardHandler)),
	})
	i.take(tr, "")
	t.Cleanup(func() {
		tr.Close()
		tr.CloseStreams()
		i.close()
	})
	return tr, i
}

// A node that has a certificate of its own can not send Raft's messages as another one, and a stranger none at all (K03).
func TestRaftHearsNobodyWhoSpeaksForAnother(t *testing.T) {
	a := newAuthority(t)
	server, dialer := newGate(t, forge(t, papersOf(t, a, "n1"), "n1"), "").open(t), newGate(t, forge(t, papersOf(t, a, "n3"), "n3"), "n1").open(t)
	plain := newGate(t, nil, "n1").open(t)
	_, in := raftOver(t, server)
	out, _ := raftOver(t, dialer)
	stranger, _ := raftOver(t, plain)
	heard := make(chan string, 10)
	go func() {
		for {
			select {
			case rpc := <-in.out:
				heard <- string(rpc.Command.(raft.WithRPCHeader).GetRPCHeader().ID)
				if rpc.Reader != nil {
					_, _ = io.Copy(io.Discard, rpc.Reader)
					rpc.Respond(&raft.InstallSnapshotResponse{}, nil)
					continue
				}
				rpc.Respond(&raft.RequestVoteResponse{}, nil)
			case <-in.done:
				return
			}
		}
	}()
	address := raft.ServerAddress(server.address())
	vote := func(tr *raft.NetworkTransport, as string) error {
		return tr.RequestVote("n1", address, &raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(as), Addr: []byte("x")}, Term: 1 << 40}, &raft.RequestVoteResponse{})
	}
	snapshot := func(as string) error {
		data := bytes.Repeat([]byte("x"), 100_000)
		return out.InstallSnapshot("n1", address, &raft.InstallSnapshotRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(as), Addr: []byte("x")}, Size: int64(len(data))}, &raft.InstallSnapshotResponse{}, bytes.NewReader(data))
	}
	if err := vote(out, "n2"); err == nil || !strings.Contains(err.Error(), errPretends.Error()) {
		t.Errorf("n3 as n2: %v", err)
	}
	if err := snapshot("n2"); err == nil || !strings.Contains(err.Error(), errPretends.Error()) {
		t.Errorf("a snapshot of n3 as n2: %v", err)
	}
	if err := vote(stranger, "n3"); err == nil {
		t.Error("a stranger was answered")
	}
	server.refuses(t, refusedPlain)
	if len(heard) > 0 {
		t.Errorf("%q was heard", <-heard)
	}
	if err := vote(out, "n3"); err != nil { // over the same connection
		t.Errorf("n3 as itself: %v", err)
	}
	if err := snapshot("n3"); err != nil {
		t.Errorf("a snapshot of n3 as itself: %v", err)
	}
	if len(heard) != 2 || <-heard != "n3" {
		t.Errorf("%d were heard", len(heard))
	}
}

// --- the lobby ------------------------------------------------------------------------------

type fromHost struct {
	net.Conn
	host string
}

func (c fromHost) RemoteAddr() net.Addr { return hostAddr(c.host + ":1") }

// Who floods the port pushes out its own connections, the silent ones first, and nobody else's.
func TestLobbyPushesOutTheFlood(t *testing.T) {
	var l lobby
	enter := func(host string, heard bool) (in, out *tracked) {
		in = &tracked{Conn: fromHost{host: host}}
		in.heard.Store(heard)
		return in, l.enter(in)
	}
	peer, _ := enter("10.0.0.1", false)
	talks, _ := enter("10.0.0.9", true)
	first, _ := enter("10.0.0.9", false)
	for range maxWaiting - 3 {
		if _, out := enter("10.0.0.9", false); out != nil {
			t.Fatal("it is full too soon")
		}
	}
	if _, out := enter("10.0.0.9", false); out != first {
		t.Error("not the oldest of the flood that is silent")
	}
	for range 5000 {
		if _, out := enter("10.0.0.9", false); out == peer || out == talks || out == nil {
			t.Fatal("not one of the flood's silent ones")
		}
	}
	l.leave(peer)
	l.leave(peer)
	for range maxWaiting {
		enter("10.0.0.9", true)
	}
	if _, out := enter("10.0.0.2", true); out == nil || out.host != "10.0.0.9" || len(l.waiting) != maxWaiting {
		t.Errorf("%d are waiting", len(l.waiting))
	}
}
