// Package queue is the admission table: who is inside, who waits, and who is next. It decides;
// it does not act. There is no clock, no goroutine, no I/O and no log line in here, and nothing
// but the standard library: equal tables given equal entries end equal, wherever and whenever
// they are applied.
//
// # A visitor's way
//
//	           arrive or enter, a slot is free and no present visitor waits
//	Unknown ─────────────────────────────────────────────────────────▶ Active
//	   │                                                              ▲   │   (an enter: unconfirmed,
//	   │                                                              │   │    until the cookie comes back)
//	   │ arrive                                                 claim │   │ leave, or
//	   ▼             promote: a slot is free                          │   │ unseen for active_ttl
//	Queued ────────────────────────────────────────────────▶ Released ┘   ▼
//	 │  ▲                                                    │         Unknown, or Absent: reserved
//	 │  │ touch, arrive                                      │
//	 │  │            not claimed in claim_ttl: ticket kept   │
//	 ▼  │ ◀──────────────────────────────────────────────────┘
//	Absent     unseen for queue_absent: passed over, not forgotten
//	   │
//	   ▼ unseen for queue_ttl (from Queued too), or leave
//	Unknown
//
// A visitor that was let in with its first request is unconfirmed until it brings the cookie that it got. It has drawn a ticket, so
// its slot can be taken back for one who waits: it is Absent then, with that ticket, before all who came after it.
//
// A released visitor whose poll takes its slot is told where to go, and that answer may be lost on its way. Until it comes for a page
// the slot is reserved: it is Active and keeps its ticket. Unseen for active_ttl it goes back to its place, Absent; nobody who was told of
// a place loses it by an answer that never came.
//
// # Invariants
//
// They are cited by number everywhere in owr. CheckInvariants checks what one table can show of them.
//
//   - I1 Cap. Slots held (active + released) never exceed max_active in any table by an admission.
//     Lowering the limit expels nobody: it stops admission until enough have left.
//   - I2 No overtaking. A slot goes to the present visitor with the lowest ticket. A new visitor is
//     admitted at once only when no present visitor waits and a slot is free. The table never rests
//     with a free slot and a present visitor in line. Who came first is first: a first hit whose slot
//     was taken back was admitted before anybody who waits had come, and so it is before them again.
//   - I3 A place is kept. A ticket that a visitor was told of survives the crash of any minority of
//     nodes, elections, restarts, upgrades and any state of Redis. An absent visitor, back within
//     queue_ttl, has its old ticket; a released one that does not claim gets its ticket back, and so does
//     one that claimed by a poll and did not come for a page.
//   - I4 A slot is kept. No active visitor loses its slot sooner than active_ttl after its last request
//     that brought its cookie and that any live node took, or that was a first visit while
//     first_hit_ttl is off. A first visit alone gives a slot for the shorter of active_ttl and
//     first_hit_ttl, from the last byte of its answer on, when present visitors wait at the end of
//     that, and for active_ttl otherwise; the visitor that loses it keeps its place (I2, I3). An
//     election expires nobody.
//   - I5 The cap holds across a partition. A node cut off from the majority lets a visitor in only up
//     to View.Deadline, by cluster time; not before that may the majority give the slot away. It can
//     not know whether anybody waits on the other side, so for an unconfirmed visitor the deadline is
//     always that of first_hit_ttl, and a return that it can not commit does not move it.
//   - I6 One visitor, one story. A visitor that moves between nodes never sees its state go back.
//   - I7 Determinism. Equal logs give equal tables (Sum), on every node, at every replay, after any
//     snapshot.
//   - I8 Redis is a picture. Nothing read from Redis decides anything, and only the current leader
//     can paint it.
//
// # Time
//
// The only clock is the leader's, carried in each entry as Now, and it never runs back. Signs of
// life are kept in steps of 100 ms, rounded up, so that rounding never shortens a stay. A
// deadline is the last sign of life plus the limit as it is now. Expiry happens only in a tick and
// waits for a grace beyond the deadline, long enough for a touch that a live node has noted to have
// committed (I4).
package queue
