package queue

// FreezeAhead is Freeze for a table that goes on elsewhere: as of another index, and with the next tickets left out, so
// that none of those that this table hands out after the copy is handed out there too.
func (t *Table) FreezeAhead(index, tickets uint64) *Frozen {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nextTicket += tickets // for the copy and its sum
	defer func() { t.nextTicket -= tickets }()
	f := t.freeze()
	f.Index = index
	return f
}
