package main

import "github.com/openwaitingroom/owr/test/overlay"

// one is a mutant's single edit.
func one(file, from, to string) []overlay.Edit {
	return []overlay.Edit{{File: file, From: from, To: to}}
}

var mutants = []mutant{
	// The table (package queue).
	{
		name: "released not counted as held", pkg: "./queue", test: "TestTableAgainstModel|TestStories",
		edits: one("queue/table.go", "for t.counts[Active]+t.counts[Released] < limit && t.counts[Queued] > 0 {", "for t.counts[Active] < limit && t.counts[Queued] > 0 {"),
	},
	{
		name: "a free slot goes to whoever asks first", pkg: "./queue", test: "TestStories|TestTableAgainstModel",
		edits: []overlay.Edit{
			{File: "queue/table.go", From: "			t.remove(id)\n			t.promote()\n", To: "			t.remove(id)\n"},
			{File: "queue/table.go", From: "t.limits.Load().MaxActive && t.counts[Queued] == 0", To: "t.limits.Load().MaxActive"},
		},
	},
	{
		name: "the limit is one too high", pkg: "./queue", test: "TestStories|TestTableAgainstModel",
		edits: one("queue/table.go", "return t.counts[Active]+t.counts[Released] < t.limits.Load().MaxActive", "return t.counts[Active]+t.counts[Released] <= t.limits.Load().MaxActive"),
	},
	{
		name: "clock read in Apply", pkg: "./queue", test: "TestTableAgainstModel|TestStories",
		edits: one("queue/table.go", "t.now = max(t.now, now)", "t.now = max(t.now, now, time.Now().UnixMilli())"),
	},
	{
		name: "map order in promotion", pkg: "./queue", test: "TestStories|TestTableAgainstModel",
		edits: one("queue/table.go", "id, ok := t.line.firstPresent()", `ids := map[rowID]bool{}
		for _, b := range t.byState[Queued].buckets {
			for id := b.first; id != noRow; id = t.row(id).next {
				ids[id] = true
			}
		}
		id, ok := t.line.firstPresent()
		for other := range ids {
			id = other
			break
		}`),
	},
	{
		name: "time runs back with a new leader's clock", pkg: "./queue", test: "TestTableAgainstModel",
		edits: one("queue/table.go", "t.now = max(t.now, now)", "t.now = now"),
	},
	{
		name: "expiry not held back after an election", pkg: "./queue", test: "TestStories|TestTableAgainstModel",
		edits: one("queue/table.go", "t.holdUntil = t.now + resumeHold.Milliseconds()", "t.holdUntil = 0"),
	},
	{
		name: "the time without a leader counts", pkg: "./queue", test: "TestStories|TestTableAgainstModel",
		edits: one("queue/table.go", "t.epoch += gap - gap%stampStep", ""),
	},
	{
		name: "a touch counts from when the news came", pkg: "./queue", test: "TestStories|TestTableAgainstModel",
		edits: one("queue/table.go", "t.stamp(t.now-age)", "t.stamp(t.now)+uint32(age*0)"),
	},
	{
		name: "an absent visitor gets a new ticket", pkg: "./queue", test: "TestStories|TestTableAgainstModel",
		edits: one("queue/table.go", "		t.move(id, Queued, stamp)\n		t.promote() // a slot", "		t.remove(id)\n		id = t.add(token, Queued, t.nextTicket, stamp, false)\n		t.nextTicket++\n		t.promote() // a slot"),
	},
	{
		name: "a claim that ran out loses its ticket", pkg: "./queue", test: "TestStories|TestTableAgainstModel",
		edits: one("queue/deadline.go", "{in(Released), func(l Limits) time.Duration { return l.ClaimTTL }, (*Table).absent}", "{in(Released), func(l Limits) time.Duration { return l.ClaimTTL }, (*Table).remove}"),
	},
	{
		name: "tickets are used again after a restore", pkg: "./queue", test: "TestTableAgainstModel|TestSnapshotIsCanonical",
		edits: []overlay.Edit{
			{File: "queue/snapshot.go", From: "	if t.sum() != sum {", To: "	want := t.sum()\n	t.nextTicket = 1\n	for _, s := range []State{Absent, Queued, Released} {\n		for _, b := range t.byState[s].buckets {\n			for id := b.first; id != noRow; id = t.row(id).next {\n				t.nextTicket = max(t.nextTicket, t.row(id).ticket+1)\n			}\n		}\n	}\n	if want != sum {"},
		},
	},

	{
		name: "a first hit whose slot is taken back loses its place", pkg: "./queue", test: "TestStories|TestTableAgainstModel",
		edits: one("queue/deadline.go", "			t.absent(id)\n			t.promote()\n", "			t.remove(id)\n			t.promote()\n"),
	},
	{
		name: "a node cut off lets first hits in for active_ttl", pkg: "./queue", test: "TestTableAgainstModel",
		edits: one("queue/lookup.go", "v.Seen + limits.firstHit().Milliseconds()", "v.Seen + limits.ActiveTTL.Milliseconds()"),
	},
	{
		name: "which slots are taken back depends on history", pkg: "./queue", test: "TestWhoseSlotIsTakenBackDoesNotDependOnHistory",
		edits: one("queue/deadline.go", "return cmp.Compare(t.row(a).ticket, t.row(b).ticket)", "return 0 * cmp.Compare(a, b)"),
	},

	{
		name: "a poll's claim gives the place up", pkg: "./queue", test: "TestStories|TestTableAgainstModel",
		edits: one("queue/table.go", "t.change(id, Active, t.stamp(t.now), r.ticket, false)", "t.change(id, Active, t.stamp(t.now), 0, false)"),
	},

	// The cluster.
	{
		name: "touch not replicated", pkg: "./cluster", test: "TestTouchesKeepASlot",
		edits: one("cluster/node.go", "func (n *Node) Touch(token queue.Token) { n.touches.note(token, signTouch) }", "func (n *Node) Touch(queue.Token) {}"),
	},
	{
		name: "the first page after a poll is let in by one replica alone", pkg: "./proxy", test: "TestGate",
		edits: one("proxy/gate.go", "c.view.State != queue.Active || c.view.Reserved && !c.poll", "c.view.State != queue.Active"),
	},
	{
		name: "whoever asked where it stands has been let in", pkg: "./test", test: "TestLostAnswersOfPollsCostNoPlace", slow: true,
		edits: one("cluster/touch.go", "signAsk: queue.KindAsk", "signAsk: queue.KindTouch"),
	},
	{
		name: "touches forgotten when they could not be sent", pkg: "./cluster", test: "TestTouchesAreKeptUntilTheyHaveCommitted",
		edits: one("cluster/touch.go", "			t.giveBack(list)\n", ""),
	},
	{
		name: "no barrier before a term's work", pkg: "./cluster", test: "TestATermBeginsWithWhatEarlierOnesCommitted",
		edits: one("cluster/leader.go", "n.raft.Barrier(0)", "n.raft.VerifyLeader()"),
	},
	{
		name: "NoSync", pkg: "./cluster", test: "TestEveryEntryIsSynced",
		edits: one("cluster/store.go", "		BoltOptions: &bbolt.Options{", "		NoSync:      true,\n		BoltOptions: &bbolt.Options{"),
	},
	{
		name: "NoSync, in a power cut", pkg: "./test/faults", test: "TestFaults/a_power_cut", flags: "-faults", slow: true,
		edits: one("cluster/store.go", "		BoltOptions: &bbolt.Options{", "		NoSync:      true,\n		BoltOptions: &bbolt.Options{"),
	},
	{
		name: "a leave that was sent twice is of nobody", pkg: "./cluster", test: "TestALeaveThatIsSentTwiceWasDone",
		edits: one("cluster/batch.go", "				s.resent = true\n", "				s.resent = false\n"),
	},
	{
		name: "a log entry without a checksum", pkg: "./cluster", test: "TestAnEntryWithAWrongBitIsNamed",
		edits: one("cluster/checksum.go", "entries[i].Extensions = binary.BigEndian.AppendUint32(nil, checksum(l))", ""),
	},
	{
		name: "Restore that merges", pkg: "./cluster", test: "TestSnapshotHoldsEverything",
		edits: one("cluster/fsm.go", "	f.reset(rooms, id)\n	if now", "	for id, old := range f.rooms {\n		if rooms[id] == nil || rooms[id].Stats().Counts.Held() == 0 {\n			rooms[id] = old\n		}\n	}\n	for r := range f.rooms {\n		for row := range f.rooms[r].Freeze().Rows() {\n			rooms[r].Apply(queue.Batch{Commands: []queue.Command{{Kind: queue.KindArrive, Token: row.Token}}}, nil)\n		}\n	}\n	f.reset(rooms, id)\n	if now"),
	},
	{
		name: "heartbeat fast path left on", pkg: "./cluster", test: "TestHeartbeatsTakeTheMainLoop",
		edits: one("cluster/transport.go", "func (transport) SetHeartbeatHandler(func(raft.RPC)) {}", "func (t transport) SetHeartbeatHandler(f func(raft.RPC)) { t.NetworkTransport.SetHeartbeatHandler(f) }"),
	},
	{
		name: "a batch of unknown fate is dropped", pkg: "./cluster", test: "TestABatchOfUnknownFateIsSentAgain",
		edits: one("cluster/batch.go", "	if b.led() <= leaderless {\n		return false\n	}\n	for", "	for"),
	},
	{
		name: "a leader that was away expires at once", pkg: "./cluster", test: "TestSimulation|TestALeaderThatWasAwayWaitsWithExpiry",
		edits: one("cluster/leader.go", "away > maxNap {", "away > 1000*maxNap {"),
	},
	{
		name: "a slow resumption calls for the next one", pkg: "./cluster", test: "TestLooks",
		edits: one("cluster/leader.go", "case c.Kind == queue.KindTick && d > maxNap:", "case d > maxNap:"),
	},
	{
		name: "a wiped voter that joined votes", pkg: "./cluster", test: "TestWipedVoterThatJoinedDoesNotVote",
		edits: one("cluster/memory.go", "if len(n.cfg.Peers) < 2 && n.cfg.Join == \"\" {", "if len(n.cfg.Peers) < 2 {"),
	},
	{
		name: "a recovered cluster keeps its id", pkg: "./cluster", test: "TestTheLostTurnUpAfterARecovery",
		edits: one("cluster/recover.go", "id.cluster = r.to", "r.to = id.cluster"),
	},
	{
		name: "nobody compares tables", pkg: "./cluster", test: "TestANodeWhoseTableDiffersEnds", slow: true,
		edits: one("cluster/compare.go", "if 2*odd > len(voters) {", "if 2*odd > len(voters)+99 {"),
	},
	{
		name: "a leader expires without having heard from live nodes", pkg: "./cluster", test: "TestLateTouchesAreWaitedFor",
		edits: one("cluster/leader.go", "!vigil.clear(now, due)", "!vigil.clear(now, due) && false"),
	},
	{
		name: "what clocks are apart is taken from stays", pkg: "./cluster", test: "TestResumptionDoesNotTrustClocks",
		edits: one("cluster/leader.go", "	idle := max(contact.Sub(clock.heardAt()), 0)\n", "	idle := max(contact.Sub(clock.heardAt()), time.Duration(now-last)*time.Millisecond-clock.wall().Sub(contact))\n"),
	},
	{
		name: "an entry that cannot be read is skipped", pkg: "./cluster", test: "TestUnknownEntryStopsTheNode",
		edits: one("cluster/fsm.go", "		f.broken = true\n", ""),
	},
	{
		name: "a node serves from what it found on its disk", pkg: "./cluster", test: "TestANodeThatComesBackKnowsNobodyUntilItIsFresh",
		edits: one("cluster/node.go", "	if !n.fresh.Load() {\n		return queue.View{}\n	}\n", ""),
	},
	{
		name: "cluster time runs back", pkg: "./cluster", test: "TestClusterTimeNeverRunsBack",
		edits: one("cluster/clock.go", "if old != 0 && old >= offset {", "if old == offset {"),
	},

	// The proxy.
	{
		name: "local admission from a follower's table", pkg: "./proxy", test: "TestGate",
		edits: one("proxy/gate.go", "	return verdict{token: c.token}, queue.KindEnter\n", "	return verdict{outcome: letIn, token: c.token, tell: true}, settled\n"),
	},
	{
		name: "proof index ignored", pkg: "./proxy", test: "TestGate",
		edits: one("proxy/gate.go", "return c.good && c.index > s.room.Applied()", "return false && c.index > s.room.Applied()"),
	},
	{
		name: "a node cut off lets in past the deadline", pkg: "./proxy", test: "TestGate",
		edits: []overlay.Edit{
			{File: "proxy/gate.go", From: "	if now >= c.view.Deadline {\n		return verdict{}, false\n	}\n", To: ""},
		},
	},

	{
		name: "a node without a majority lets in nobody", pkg: "./test/faults", test: "TestFaults/all_are_cut_off_for_less", flags: "-faults", slow: true,
		edits: []overlay.Edit{
			{File: "proxy/gate.go", From: "	if now >= c.view.Deadline {\n", To: "	if now >= c.view.Deadline || !s.room.Quorum() {\n"},
			{File: "proxy/gate.go", From: "c.view.State == queue.Active && s.room.Now() < c.view.Deadline\n", To: "c.view.State == queue.Active && s.room.Now() < c.view.Deadline && s.room.Quorum()\n"},
		},
	},
	{
		name: "a long first visit confirms itself", pkg: "./proxy", test: "TestALongFirstVisitConfirmsNobody",
		edits: one("proxy/presence.go", "	if p.first {\n", "	if false {\n"),
	},

	// The mirror.
	{
		name: "mirror without the fence", pkg: "./mirror", test: "TestSimulation",
		edits: one("mirror/script.go", "  if term > tonumber(ARGV[2]) then return 'FENCED' end\n  if term ==", "  if term =="),
	},
	{
		name: "mirror's groups without the fence", pkg: "./mirror", test: "TestSimulation",
		edits: one("mirror/script.go", "if term > tonumber(ARGV[2]) then return 'FENCED' end\nif term < tonumber(ARGV[2]) then return 'GAP' end\nif index == tonumber(ARGV[4]) and ARGV[3] ~= ARGV[4] then return 'DUP' end\nif index ~= tonumber(ARGV[3]) then return 'GAP' end\n", ""),
	},
	{
		name: "mirror's temporary keys without an end", pkg: "./mirror", test: "TestSimulation",
		edits: one("mirror/resync.go", "return redis.call('EXPIRE', KEYS[1], ARGV[2])", ""),
	},
	{
		name: "mirror keeps who left", pkg: "./mirror", test: "TestSimulation",
		edits: one("mirror/plan.go", "	for _, h := range p.holders {\n		if h.before == queue.Active && h.after != queue.Active {\n			g.ops = append(g.ops, op{verb: verbDeactivate, token: h.token})\n		}\n	}\n", ""),
	},
}
