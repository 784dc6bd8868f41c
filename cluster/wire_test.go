package cluster

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

func TestDecisionsRoundTrip(t *testing.T) {
	want := []queue.Decision{
		{State: queue.Active, Index: 9}, {State: queue.Queued, Ticket: 1 << 40, Position: 77, Index: 9}, {Refusal: queue.QueueFull, Index: 9},
	}
	got, err := decodeDecisions(appendDecisions(nil, want), len(want))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v became %+v, %v", want, got, err)
	}
	if _, err := decodeDecisions(appendDecisions(nil, want), 2); !errors.Is(err, errBadFrame) {
		t.Errorf("three decisions for two commands: %v", err)
	}
}

func FuzzDecodeDecisions(f *testing.F) {
	f.Add(appendDecisions(nil, []queue.Decision{{State: queue.Queued, Ticket: 1, Position: 2, Index: 3}}), 1)
	f.Fuzz(func(t *testing.T, data []byte, count int) {
		if count < 0 || count > 1000 {
			return
		}
		got, err := decodeDecisions(data, count)
		if err == nil && count > 0 && !bytes.Equal(appendDecisions(nil, got), data) {
			t.Fatalf("%x became %x", data, appendDecisions(nil, got))
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, framePing})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if kind, payload, err := readFrame(bytes.NewReader(data)); err == nil && (kind != data[4] || len(payload)+5 > len(data)) {
			t.Fatalf("%x gave kind %d and %d bytes", data, kind, len(payload))
		}
	})
}

// greeting opens both ends of a connection with the secrets given and returns what each end says. Either end
// hangs up only when it is not content: a pipe that one end has closed fails the other end's last step too. It
// runs in a bubble, where the deadline of an end that waits for nothing passes at once.
func greeting(t *testing.T, dialer, server *card) (purpose byte, dialed, welcomed error) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	done := make(chan error, 1)
	go func() {
		err := greet(near, "far", time.Now().Add(preambleTimeout), dialer, preamble, purposeForward)
		if err != nil {
			near.Close()
		}
		done <- err
	}()
	if err := far.SetDeadline(time.Now().Add(preambleTimeout)); err != nil {
		t.Error(err)
	}
	purpose, welcomed = welcome(far, server)
	if welcomed != nil {
		far.Close()
	}
	return purpose, <-done, welcomed
}

// cardOf is that of a node in a cluster; 0 stands for none.
func cardOf(secret string, cluster byte) *card {
	id := clusterID{}
	id[0] = cluster
	return &card{secret: secret, cluster: func() clusterID { return id }, first: func() bool { return false }, dial: dialTCP, log: slog.New(slog.DiscardHandler), told: newSaid(), refused: newRefusals()}
}

// Nodes of two clusters refuse each other, each with both ids in its log; one that belongs to none yet is welcome.
func TestClustersDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, secret := range []string{"", "s3cret"} {
			for _, c := range []struct {
				dialer, server byte
				fit            bool
			}{{1, 1, true}, {0, 0, true}, {1, 0, true}, {0, 1, true}, {1, 2, false}} {
				var logs [2]bytes.Buffer
				cards := [2]*card{cardOf(secret, c.dialer), cardOf(secret, c.server)}
				for i := range cards {
					cards[i].log = slog.New(slog.NewTextHandler(&logs[i], nil))
				}
				_, dialed, welcomed := greeting(t, cards[0], cards[1])
				if c.fit != (dialed == nil && welcomed == nil) || !c.fit && (!errors.Is(dialed, errForeign) || !errors.Is(welcomed, errForeign)) {
					t.Errorf("secret %q, clusters %d and %d: %v, %v", secret, c.dialer, c.server, dialed, welcomed)
				}
				for i := range logs {
					line := logs[i].String()
					told := strings.Contains(line, "01000000000000000000000000000000") && strings.Contains(line, "02000000000000000000000000000000") && strings.Contains(line, "WR_DATA_DIR")
					if told == c.fit {
						t.Errorf("secret %q, clusters %d and %d: side %d logs %q", secret, c.dialer, c.server, i, line)
					}
				}
			}
		}
	})
}

func TestPongsRoundTrip(t *testing.T) {
	for _, want := range []pong{{}, {applied: 1 << 40, id: "n1"}, {wants: true, id: "n2"}, {placed: true}, {leads: true}, {out: true, wants: true, placed: true, id: "n3"}} {
		if got, err := decodePong(appendPong(nil, want)); err != nil || got != want {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
	}
	for _, data := range [][]byte{nil, make([]byte, 7), {0, 0, 0, 0, 0, 0, 0, 0, 16}} {
		if _, err := decodePong(data); !errors.Is(err, errBadFrame) {
			t.Errorf("% x: %v", data, err)
		}
	}
}

func TestPreamble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, secret := range []string{"", "s3cret"} {
			purpose, dialed, welcomed := greeting(t, cardOf(secret, 0), cardOf(secret, 0))
			if purpose != purposeForward || dialed != nil || welcomed != nil {
				t.Errorf("secret %q on both sides: purpose %c, %v, %v", secret, purpose, dialed, welcomed)
			}
		}
		for _, c := range [][2]string{{"one", "other"}, {"", "other"}, {"one", ""}} {
			// Without a secret of its own one side notices nothing until the other one hangs up; both never agree.
			if _, dialed, welcomed := greeting(t, cardOf(c[0], 0), cardOf(c[1], 0)); dialed == nil && welcomed == nil {
				t.Errorf("secrets %q and %q: both sides are content", c[0], c[1])
			}
		}
		near, far := net.Pipe()
		defer near.Close()
		go near.Write([]byte("GET / HTTP/1.1\r\n"))
		if _, err := welcome(far, cardOf("s3cret", 0)); err == nil {
			t.Error("a browser was welcome")
		}
		far.Close()
	})
}

// Another node's frames are refused when they bring what only the leader may say.
func TestForwardRefusesTheLeadersCommands(t *testing.T) {
	n := &Node{cfg: Config{Timing: Timing{}.withDefaults(true)}, ctx: context.Background()}
	n.batcher = &batcher{room: queue.DefaultRoom}
	for name, payload := range map[string][]byte{
		"tick":         queue.AppendCommands([]byte{0, 0}, []queue.Command{{Kind: queue.KindTick}}),
		"resume":       queue.AppendCommands([]byte{0, 0}, []queue.Command{{Kind: queue.KindResume, Arg: 1}}),
		"another room": queue.AppendCommands([]byte{0, 5}, []queue.Command{{Kind: queue.KindArrive, Token: visitor(1)}}),
		"garbage":      {0, 0, 1, 2, 3},
		"nothing":      nil,
	} {
		if kind, text := n.answer(frameCommands, payload); kind != frameFailed {
			t.Errorf("%s: answered %d %s", name, kind, text)
		}
	}
	if kind, _ := n.answer(200, nil); kind != frameFailed {
		t.Errorf("a frame of no known kind: answered %d", kind)
	}
	if kind, _ := n.answer(frameCommands, queue.AppendCommands([]byte{0, 0}, []queue.Command{{Kind: queue.KindArrive, Token: visitor(1)}})); kind != frameNotLeader {
		t.Errorf("a node that does not lead answered %d", kind)
	}
}
