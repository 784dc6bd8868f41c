package queue

// Lookup is what this replica knows of the visitor. It takes the read lock of one shard for one
// probe of its index, and for a visitor in line that of the line for its position; it allocates nothing.
// Any number of callers, while entries are applied.
func (t *Table) Lookup(token Token) View {
	s := &t.shards[token[0]]
	for {
		s.mu.RLock()
		slot, ok := s.index.find(&token, s)
		if !ok {
			s.mu.RUnlock()
			return View{}
		}
		r := s.at(slot)
		v := View{State: r.state, Ticket: r.ticket}
		stamp, unconfirmed := r.stamp, r.unconfirmed
		s.mu.RUnlock()

		v.Seen = t.epochs.Load() + int64(stamp)*stampStep
		switch v.State {
		case Active:
			limits := t.limits.Load()
			if unconfirmed {
				// The request that asks brought the cookie, so it is worth a touch whenever it comes.
				v.Deadline = v.Seen + limits.firstHit().Milliseconds()
				break
			}
			v.Deadline = v.Seen + limits.ActiveTTL.Milliseconds()
			if v.Reserved = v.Ticket != 0; !v.Reserved {
				v.TouchAfter = v.Seen + touchSkip.Milliseconds()
			}
		case Queued, Absent:
			if v.Position, ok = t.line.position(v.Ticket); !ok {
				continue // it left the line between the two locks: look again
			}
		}
		return v
	}
}
