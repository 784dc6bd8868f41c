package faults

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/test/harness"
)

// A cell is one kind of harm: who suffers it, what is done, how it is undone, and what is expected of the room meanwhile. The
// audit is the same for all of them.
type cell struct {
	name   string
	kind   string // for the table of figures
	expect string
	quick  bool // part of -quick
	slow   bool // left out of a soak, where one cluster lives through everything

	// victims chooses who suffers, just before; their word and their touches may be lost. nil: no node.
	victims func(*world) []*harness.Node
	// lost says that no majority lives, or that none is in reach of itself.
	lost bool
	// alive says that the victims are cut off, wholly or in part, and nothing else: they let in whom they know to be inside.
	alive bool
	// site says that the origin is harmed.
	site bool

	// What is special about the cluster that the cell is played on. Such a cell is slow.
	direct bool      // the nodes have each other's addresses, and no links between them
	spaces bool      // the nodes have network namespaces of their own
	twin   bool      // Redis has a second one that follows it
	spares int       // nodes that are prepared and not started
	limits *[2]Rules // in force, and to be kept to; nil: rules, as both

	terms   uint64                          // the most new terms that there may be, one for what calls for no election; 0: any number
	prepare func(testing.TB, *harness.Node) // before a node of the cell's cluster starts
	harm    func(*world, []*harness.Node)   // on the test's goroutine
	lasts   time.Duration                   // between harm and heal
	heal    func(*world, []*harness.Node)   // until then; nil: nothing to undo
}

func theLeader(w *world) []*harness.Node    { return []*harness.Node{w.leader()} }
func aFollower(w *world) []*harness.Node    { return []*harness.Node{w.follower()} }
func everybody(w *world) []*harness.Node    { return w.nodes }
func leaderAndOne(w *world) []*harness.Node { return []*harness.Node{w.leader(), w.follower()} }

func kill(_ *world, victims []*harness.Node) {
	for _, n := range victims {
		n.Kill()
	}
}

// again starts every victim that has ended.
func again(_ *world, victims []*harness.Node) {
	for _, n := range victims {
		if !n.Alive() {
			n.Start()
		}
	}
}

func suspend(_ *world, victims []*harness.Node) {
	for _, n := range victims {
		n.Pause()
	}
}

func resume(_ *world, victims []*harness.Node) {
	for _, n := range victims {
		n.Continue()
	}
}

func terminate(w *world, victims []*harness.Node) {
	for _, n := range victims {
		if code := n.Terminate(30 * time.Second); code != 0 {
			w.t.Errorf("%s ended with exit code %d", n.ID, code)
		}
	}
}

func isolate(w *world, victims []*harness.Node) {
	for _, n := range victims {
		w.isolate(n, true)
	}
}

func mend(w *world, _ []*harness.Node) {
	for _, n := range w.nodes {
		w.isolate(n, false)
		for _, k := range w.links[n.ID] {
			k.slow(0, 0)
		}
	}
}

// deaf cuts what the others send to the victim; dumb what it sends.
func deaf(w *world, victims []*harness.Node) {
	for _, other := range w.nodes {
		if other != victims[0] {
			w.mute(other, victims[0], true)
		}
	}
}

func dumb(w *world, victims []*harness.Node) {
	for _, other := range w.nodes {
		if other != victims[0] {
			w.mute(victims[0], other, true)
		}
	}
}

// slowed makes every link of the victims slow.
func slowed(delay time.Duration, rate int64) func(*world, []*harness.Node) {
	return func(w *world, victims []*harness.Node) {
		for _, n := range victims {
			for _, other := range w.nodes {
				if other != n {
					for _, k := range w.between(n, other) {
						k.slow(delay, rate)
					}
				}
			}
		}
	}
}

// wipe ends a node and removes all that it kept.
func wipe(w *world, victims []*harness.Node) {
	for _, n := range victims {
		n.Kill()
		must(w.t, os.RemoveAll(n.Settings["WR_DATA_DIR"]))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func onRedis(do func(*world, context.Context) error) func(*world, []*harness.Node) {
	return func(w *world, _ []*harness.Node) { must(w.t, do(w, context.Background())) }
}

// longer are limits of so many times those of other cells.
func longer(times float64) *[2]Rules {
	r := rules
	r.ActiveTTL, r.ClaimTTL, r.QueueAbsent = times*r.ActiveTTL, times*r.ClaimTTL, times*r.QueueAbsent
	return &[2]Rules{r, r}
}

// cells is the table.
var cells = []cell{
	{
		name: "kill -9 the leader", kind: "kill -9", quick: true, expect: "another one leads; those inside on the others notice nothing",
		victims: theLeader, harm: kill, lasts: 3 * time.Second, heal: again,
	},
	{
		name: "kill -9 a follower", kind: "kill -9", expect: "nothing but its own connections",
		victims: aFollower, harm: kill, lasts: 3 * time.Second, heal: again,
	},
	{
		name: "kill -9 the leader and a follower", kind: "kill -9", expect: "nobody new until one is back; nothing lost",
		victims: leaderAndOne, lost: true, harm: kill, lasts: 2 * time.Second, heal: again,
	},
	{
		name: "kill -9 all", kind: "kill -9", quick: true, expect: "every place and slot is there again",
		victims: everybody, lost: true, harm: kill, lasts: 2 * time.Second, heal: again,
	},

	{
		name: "pause the leader", kind: "SIGSTOP", quick: true, expect: "another one leads; the old one serves nothing old as new",
		victims: theLeader, harm: suspend, lasts: 3 * time.Second, heal: resume,
	},
	{
		name: "pause the leader past every deadline", kind: "SIGSTOP", expect: "as above, with slots that have been given away meanwhile",
		victims: theLeader, harm: suspend, lasts: 9 * time.Second, heal: resume,
	},
	{
		name: "pause a follower", kind: "SIGSTOP", expect: "nothing but its own connections",
		victims: aFollower, harm: suspend, lasts: 4 * time.Second, heal: resume,
	},
	{
		name: "pause all", kind: "SIGSTOP", expect: "nobody is served meanwhile; nothing lost",
		victims: everybody, lost: true, harm: suspend, lasts: 3 * time.Second, heal: resume,
	},

	{
		name: "SIGTERM to the leader", kind: "SIGTERM", expect: "leadership is handed over, the process ends with 0",
		victims: theLeader, harm: terminate, lasts: time.Second, heal: again,
	},
	{
		name: "SIGTERM to a follower", kind: "SIGTERM", expect: "the process ends with 0",
		victims: aFollower, harm: terminate, lasts: time.Second, heal: again,
	},
	{
		name: "hand-overs one after the other", kind: "hand-over", slow: true, expect: "every one succeeds",
		victims: everybody, lost: true, harm: func(w *world, v []*harness.Node) { handOvers(handOverCount)(w, v) },
	},
	{
		name: "a hundred transfers of leadership", kind: "hand-over", expect: "every one ends soon, those too in which the way between the two is cut",
		terms: 110, harm: func(w *world, _ []*harness.Node) { transfers(w, 100) }, lasts: time.Second,
	},

	{
		name: "the leader is cut off", kind: "partition", quick: true, terms: 2, expect: "the others choose another one; it lets in nobody beyond what the table gave",
		victims: theLeader, alive: true, harm: isolate, lasts: 5 * time.Second, heal: mend,
	},
	{
		name: "the leader is cut off past every deadline", kind: "partition", expect: "those inside on its side are let in up to their deadline only",
		victims: theLeader, alive: true, harm: isolate, lasts: 10 * time.Second, heal: mend,
	},
	{
		name: "a follower is cut off", kind: "partition", terms: 1, expect: "the others notice nothing",
		victims: aFollower, alive: true, harm: isolate, lasts: 5 * time.Second, heal: mend,
	},
	{
		name: "all are cut off from one another", kind: "partition", expect: "nobody new until it heals; nothing lost",
		victims: everybody, lost: true, alive: true, harm: isolate, lasts: 4 * time.Second, heal: mend,
	},
	{
		name: "the leader is cut off for less than active_ttl", kind: "partition", slow: true, limits: longer(4), expect: "whoever was inside is let in on its side too",
		victims: theLeader, alive: true, harm: isolate, lasts: 8 * time.Second, heal: mend,
	},
	{
		name: "all are cut off for less than active_ttl", kind: "partition", slow: true, limits: longer(4), expect: "whoever was inside still is, and nobody else",
		victims: everybody, lost: true, alive: true, harm: isolate, lasts: 8 * time.Second, heal: mend,
	},
	{
		name: "the leader is deaf", kind: "partition", terms: 2, expect: "it steps down, or the others choose another one",
		victims: theLeader, alive: true, harm: deaf, lasts: 5 * time.Second, heal: mend,
	},
	{
		name: "the leader is dumb", kind: "partition", terms: 2, expect: "the others choose another one",
		victims: theLeader, alive: true, harm: dumb, lasts: 5 * time.Second, heal: mend,
	},
	{
		name: "a follower is deaf", kind: "partition", terms: 1, expect: "it holds no election that disturbs the others",
		victims: aFollower, alive: true, harm: deaf, lasts: 5 * time.Second, heal: mend,
	},
	{
		name: "a follower is dumb", kind: "partition", terms: 1, expect: "the others notice nothing",
		victims: aFollower, alive: true, harm: dumb, lasts: 5 * time.Second, heal: mend,
	},
	{
		name: "the leader and a follower are cut from one another", kind: "partial partition", terms: 3, expect: "the leader stays; that follower serves who it knows",
		victims: aFollower, alive: true, lasts: 5 * time.Second, heal: mend,
		harm: func(w *world, v []*harness.Node) {
			leader := w.leader()
			w.mute(leader, v[0], true)
			w.mute(v[0], leader, true)
		},
	},
	{
		name: "two followers are cut from one another", kind: "partial partition", terms: 1, expect: "nobody notices anything",
		lasts: 4 * time.Second, heal: mend,
		harm: func(w *world, _ []*harness.Node) {
			two := w.all.Followers()
			w.mute(two[0], two[1], true)
			w.mute(two[1], two[0], true)
		},
	},
	{
		name: "slow links of a follower", kind: "slow link", terms: 1, expect: "it lags; the others do not",
		victims: aFollower, alive: true, harm: slowed(150*time.Millisecond, 0), lasts: 5 * time.Second, heal: mend,
	},
	{
		name: "slow links of the leader", kind: "slow link", terms: 1, expect: "every commit takes longer; nothing else",
		victims: theLeader, alive: true, harm: slowed(60*time.Millisecond, 0), lasts: 5 * time.Second, heal: mend,
	},
	{
		name: "narrow links of a follower", kind: "slow link", terms: 1, expect: "it lags; the others do not",
		victims: aFollower, alive: true, harm: slowed(0, 16<<10), lasts: 5 * time.Second, heal: mend,
	},

	{
		name: "Redis is killed", kind: "Redis", quick: true, expect: "no visitor notices; the picture is right within 5 s of its return",
		harm: func(w *world, _ []*harness.Node) { w.redis.Kill() }, lasts: 3 * time.Second, heal: func(w *world, _ []*harness.Node) { w.redis.Start() },
	},
	{
		name: "Redis hangs", kind: "Redis", expect: "the same",
		harm: func(w *world, _ []*harness.Node) { w.redis.Pause() }, lasts: 4 * time.Second, heal: func(w *world, _ []*harness.Node) { w.redis.Continue() },
	},
	{
		name: "Redis is flushed", kind: "Redis", expect: "the same",
		harm: onRedis(func(w *world, ctx context.Context) error { return w.redis.Client.FlushAll(ctx).Err() }),
	},
	{
		name: "a key in Redis is of another type", kind: "Redis", expect: "the same",
		harm: onRedis(func(w *world, ctx context.Context) error {
			if err := w.redis.Client.Del(ctx, "wr:queue").Err(); err != nil {
				return err
			}
			return w.redis.Client.Set(ctx, "wr:queue", "not a list", 0).Err()
		}),
	},
	{
		name: "Redis fails over to one that is behind", kind: "Redis", slow: true, twin: true, expect: "the same, though it shows an older table at first",
		harm: failOver,
	},

	{
		name: "the origin hangs", kind: "origin", site: true, expect: "504 in time; slots stay where they are",
		harm: func(w *world, _ []*harness.Node) { w.origin.mode.Store(originHangs) }, lasts: 3 * time.Second,
		heal: func(w *world, _ []*harness.Node) { w.origin.mode.Store(originAnswers) },
	},
	{
		name: "the origin sends a byte a second", kind: "origin", site: true, expect: "visitors give up; slots stay where they are, nothing piles up",
		harm: func(w *world, _ []*harness.Node) { w.origin.mode.Store(originDrips) }, lasts: 4 * time.Second,
		heal: func(w *world, _ []*harness.Node) { w.origin.mode.Store(originAnswers) },
	},
	{
		name: "the origin breaks off in the middle", kind: "origin", site: true, expect: "no answer ends as if it was whole; slots stay where they are",
		harm: func(w *world, _ []*harness.Node) { w.origin.mode.Store(originBreaks) }, lasts: 3 * time.Second,
		heal: func(w *world, _ []*harness.Node) { w.origin.mode.Store(originAnswers) },
	},
	{
		name: "the origin resets", kind: "origin", site: true, expect: "502; slots stay where they are",
		harm: func(w *world, _ []*harness.Node) { w.origin.mode.Store(originResets) }, lasts: 3 * time.Second,
		heal: func(w *world, _ []*harness.Node) { w.origin.mode.Store(originAnswers) },
	},

	{
		name: "an edge node comes, goes, and comes back", kind: "membership", slow: true, direct: true, spares: 1,
		expect:  "it serves while it is a member; the others notice nothing",
		victims: theSpare, harm: edgeComesAndGoes, lasts: 2 * time.Second,
	},
	{
		name: "a voter comes, and the leader is removed", kind: "membership", slow: true, direct: true, spares: 1,
		expect:  "one change at a time; leadership is handed over before the last one",
		victims: theSpareAndTheLeader, harm: voterComesAndLeaderGoes, lasts: 2 * time.Second,
	},

	{
		name: "the leader's packets are dropped", kind: "packets", slow: true, spaces: true, terms: 2, expect: "the others choose another one; it lets in nobody beyond what the table gave",
		victims: theLeader, alive: true, harm: filtered(dropIn, dropOut), lasts: packets, heal: unfiltered,
	},
	{
		name: "packets to the leader are dropped", kind: "packets", slow: true, spaces: true, terms: 2, expect: "it steps down, or the others choose another one",
		victims: theLeader, alive: true, harm: filtered(dropIn, ""), lasts: packets, heal: unfiltered,
	},
	{
		name: "the leader's packets are refused", kind: "packets", slow: true, spaces: true, terms: 2, expect: "the others choose another one, at once",
		victims: theLeader, alive: true, harm: filtered(refuseIn, refuseOut), lasts: packets, heal: unfiltered,
	},
	{
		name: "packets between the leader and a follower are dropped", kind: "packets", slow: true, spaces: true, terms: 3, expect: "the leader stays, or the third one leads; no storm of elections",
		victims: aFollower, alive: true, harm: filteredFromLeader(dropIn, dropOut), lasts: packets, heal: unfiltered,
	},
	{
		name: "three of ten packets of a follower are lost", kind: "packets", slow: true, spaces: true, terms: 1, expect: "it lags; the others do not",
		victims: aFollower, alive: true, harm: filtered(lossy(30)), lasts: packets, heal: unfiltered,
	},
	{
		name: "a fifth of the leader's packets is lost", kind: "packets", slow: true, spaces: true, terms: 3, expect: "commits take longer, or another one leads",
		victims: theLeader, alive: true, harm: filtered(lossy(20)), lasts: packets, heal: unfiltered,
	},

	{
		name: "a follower's data directory is wiped", kind: "disk", expect: "it is sent everything",
		victims: aFollower, harm: wipe, lasts: 2 * time.Second, heal: again,
	},
	{
		name: "a follower's log has wrong bits", kind: "disk", slow: true, expect: "it refuses to start and names the file, or has the same table",
		victims: aFollower, harm: spoil, lasts: time.Second, heal: againOrWiped,
	},
	{
		name: "a follower's snapshot has wrong bits", kind: "disk", slow: true, prepare: compacts(lowTrailing), expect: "it refuses to start, names the snapshot and says what to do",
		victims: aFollower, harm: spoilSnapshot, lasts: time.Second, heal: refusesSnapshot,
	},
	{
		name: "a follower's snapshot has wrong bits, and its log reaches back", kind: "disk", slow: true, prepare: compacts(allTrailing), expect: "it starts from the older one",
		victims: aFollower, harm: spoilSnapshot, lasts: time.Second, heal: fallsBack,
	},
	{
		name: "the leader is away until the log is cut down", kind: "partition", slow: true, prepare: compacts(lowTrailing), expect: "it is sent a snapshot, and no more than a few",
		victims: theLeader, alive: true, harm: awayForLong, heal: backBySnapshot,
	},
	{
		name: "the leader's disk refuses to sync", kind: "disk", expect: "the node ends; another one leads",
		victims: theLeader, harm: breakSync("error=EIO"), lasts: 3 * time.Second, heal: endedByIt,
	},
	{
		name: "a follower's disk refuses to sync", kind: "disk", expect: "the node ends; the others notice nothing",
		victims: aFollower, harm: breakSync("error=EIO"), lasts: 3 * time.Second, heal: endedByIt,
	},
	{
		name: "the leader's disk stalls", kind: "disk", expect: "commits wait; nobody is expired by it",
		victims: theLeader, harm: breakSync("delay_enter=3000000"), lasts: 4 * time.Second, heal: unbreakSync,
	},
	{
		name: "the leader's disk hangs until its watchdog ends it", kind: "disk", slow: true, limits: longer(3), terms: 2,
		expect:  "the node ends by itself; another one leads; with a disk again it comes back",
		victims: theLeader, harm: hangs, lasts: 2 * time.Second, heal: unbreakSync,
	},
	{
		name: "a follower's disk stalls", kind: "disk", expect: "the others notice nothing",
		victims: aFollower, harm: breakSync("delay_enter=3000000"), lasts: 4 * time.Second, heal: unbreakSync,
	},
	{
		name: "the leader's disk is full", kind: "disk", slow: true, expect: "the node ends and names the file; with space again it comes back",
		victims: theLeader, prepare: smallDisk, harm: fillDisk, lasts: 3 * time.Second, heal: emptyDisk,
	},
	{
		name: "a follower's disk is full", kind: "disk", slow: true, expect: "the same",
		victims: aFollower, prepare: smallDisk, harm: fillDisk, lasts: 3 * time.Second, heal: emptyDisk,
	},

	{
		name: "a power cut at the leader, and one at all", kind: "power cut", slow: true, expect: "nothing that anybody was told is lost",
		prepare: forgets, victims: everybody, lost: true, harm: powerCuts, lasts: time.Second, heal: again,
	},

	{
		name: "no processor time for the leader", kind: "starvation", terms: 1, expect: "slow, and nothing lost",
		victims: theLeader, harm: starve, lasts: 4 * time.Second, heal: feed,
	},
	{
		name: "clocks an hour apart, and the leader is killed", kind: "clock", slow: true, expect: "time does not jump; nobody expires early",
		prepare: apart, victims: theLeader, harm: kill, lasts: 3 * time.Second, heal: again,
	},
	{
		name: "clocks an hour apart, and all are killed", kind: "clock", slow: true, expect: "an outage expires nobody, whatever the clocks say",
		prepare: apart, victims: everybody, lost: true, harm: kill, lasts: 2 * time.Second, heal: again,
	},
	{
		name: "clocks ten percent too fast and too slow lead in turn", kind: "clock", slow: true, expect: "nobody expires early",
		limits: ratedLimits(1, 1.2), prepare: rates("1.1", "0.9"), victims: theFast, harm: slowThenFast, lasts: 3 * time.Second, heal: again,
	},
	{
		name: "clocks at twice and half the rate lead in turn", kind: "clock", slow: true, expect: "nobody expires before the fastest clock says so",
		limits: ratedLimits(2, 4), prepare: rates("2", "0.5"), victims: theFast, harm: slowThenFast, lasts: 3 * time.Second, heal: again,
	},
}

// dataDir is where a node keeps its log.
func dataDir(n *harness.Node) string { return n.Settings["WR_DATA_DIR"] }

func logFile(n *harness.Node) string { return filepath.Join(dataDir(n), "raft.db") }
