package test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// Three nodes that speak TLS to each other are one room for a visitor on any of them; so they stay while the leader is killed and comes back,
// and a node joins through TLS too.
func TestNodesSpeakTLS(t *testing.T) {
	w := harness.PrepareWorld(t, 5, nil)
	n4 := harness.NewNode(t, "n4", w.Origin.URL, harness.Settings{"WR_JOIN": w.Nodes[1].Cluster, "WR_ROLE": "edge"})
	w.Secure(n4)
	w.Start()
	watch := w.Watch()
	inside, waiting := w.LineUp(8)
	places(t, w, waiting)
	for _, n := range w.Nodes {
		if e := inside[0].Get(n, "/"); e.Outcome != harness.Inside {
			t.Errorf("one visitor, on %s: %v", n.ID, e)
		}
		if left, err := n.Metric(`owr_tls_certificate_expiry_seconds{use="cluster"}`); err != nil || left < 300*86400 {
			t.Errorf("%s: its certificate is good for %g s, %v", n.ID, left, err)
		}
		config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"owr-cluster"}}
		if conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", n.Cluster, config); err != nil {
			t.Errorf("%s speaks no TLS at its cluster port: %v", n.ID, err)
		} else {
			if names := conn.ConnectionState().PeerCertificates[0].URIs; len(names) != 1 || names[0].String() != "owr://node/"+n.ID {
				t.Errorf("%s shows %v", n.ID, names)
			}
			conn.Close()
		}
	}

	dead := w.Leader()
	dead.Kill()
	for _, b := range inside {
		leave(t, w, b)
	}
	harness.WaitFor(t, "the head of the line is inside", again, func() bool { return waiting[0].Enter(w.Alive()[0]).Outcome == harness.Inside })
	dead.Start()
	dead.WaitReady()
	n4.Start()
	n4.WaitReady()
	if e := waiting[0].Get(n4, "/"); e.Outcome != harness.Inside {
		t.Errorf("on the node that joined: %v", e)
	}
	for _, n := range w.Nodes {
		if strings.Contains(n.Log(), "wrong_name") || strings.Contains(n.Log(), "wrong_authority") {
			t.Errorf("%s has refused one of the others", n.ID)
		}
	}
	audit(w, watch, nil, waiting...)
}
