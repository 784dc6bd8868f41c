package queue

import "fmt"

// CheckInvariants recomputes from the rows alone everything that the table keeps in passing, and
// reports the first difference or broken invariant. It is written to be obviously right rather
// than fast: tests call it after every step, nobody calls it in service.
func (t *Table) CheckInvariants() error {
	t.mu.Lock()
	defer t.mu.Unlock()

	var counts, firsts [Active + 1]int
	reserved := 0
	var hash uint64
	byTicket := map[uint64]*row{}
	for n := range t.shards {
		s := &t.shards[n]
		rows := 0
		for slot := range s.used {
			r := s.at(slot)
			if r.state == Unknown {
				continue
			}
			rows++
			token := r.token
			if found, ok := s.index.find(&token, s); !ok || found != slot || int(token[0]) != n {
				return fmt.Errorf("the row of %s in shard %d is not found there", token, n)
			}
			counts[r.state]++
			if r.unconfirmed {
				firsts[r.state]++
			}
			if r.state == Active && r.ticket != 0 && !r.unconfirmed {
				reserved++
			}
			hash += rowHash(r)
			if r.state != Active && r.ticket == 0 || r.unconfirmed && (r.ticket == 0 || r.state != Active && r.state != Absent) {
				return fmt.Errorf("%s is %s with ticket %d, unconfirmed %v", token, r.state, r.ticket, r.unconfirmed)
			}
			if r.ticket >= t.nextTicket {
				return fmt.Errorf("%s has ticket %d, the next one is %d", token, r.ticket, t.nextTicket)
			}
			if other := byTicket[r.ticket]; r.ticket != 0 && other != nil {
				return fmt.Errorf("%s and %s share ticket %d", token, other.token, r.ticket)
			}
			byTicket[r.ticket] = r
		}
		if rows != s.index.used || rows+len(s.free) != int(s.used) {
			return fmt.Errorf("shard %d: %d rows, %d in the index, %d of %d slots free", n, rows, s.index.used, len(s.free), s.used)
		}
	}
	if counts != t.counts {
		return fmt.Errorf("counts are %v, the rows say %v", t.counts, counts)
	}
	if firsts != t.firsts {
		return fmt.Errorf("unconfirmed are %v, the rows say %v", t.firsts, firsts)
	}
	if reserved != t.reserved {
		return fmt.Errorf("reserved are %d, the rows say %d", t.reserved, reserved)
	}
	if hash != t.hash {
		return fmt.Errorf("hash is %x, the rows say %x", t.hash, hash)
	}
	if limit := t.Limits().MaxActive; counts[Queued] > 0 && counts[Active]+counts[Released] < limit {
		return fmt.Errorf("a slot is free (%d of %d held) and %d present visitors wait (I2)", counts[Active]+counts[Released], limit, counts[Queued])
	}
	if err := t.checkAges(counts); err != nil {
		return err
	}
	return t.checkLine(byTicket)
}

func (t *Table) checkAges(counts [Active + 1]int) error {
	for state := Absent; state < Active; state++ {
		if err := t.checkList(&t.byState[state], state, counts[state]); err != nil {
			return err
		}
	}
	if err := t.checkList(&t.firstHits, Active, t.firsts[Active]); err != nil {
		return err
	}
	return t.checkList(&t.byState[Active], Active, counts[Active]-t.firsts[Active])
}

func (t *Table) checkList(a *ages, state State, count int) error {
	rows := 0
	for i, b := range a.buckets {
		if i > 0 && a.buckets[i-1].stamp >= b.stamp {
			return fmt.Errorf("%s: bucket %d is not older than bucket %d", state, i-1, i)
		}
		prev := noRow
		for id := b.first; id != noRow; id = t.row(id).next {
			r := t.row(id)
			if r.state != state || t.agesOf(r) != a || r.stamp != b.stamp || r.prev != prev {
				return fmt.Errorf("%s, a %s of stamp %d, is in the list of %s at %d", r.token, r.state, r.stamp, state, b.stamp)
			}
			prev = id
			rows++
		}
	}
	if rows != count || rows != a.rows {
		return fmt.Errorf("%s: %d rows in the lists, %d counted, %d in the table", state, rows, a.rows, count)
	}
	return nil
}

func (t *Table) checkLine(byTicket map[uint64]*row) error {
	l := &t.line
	ahead, first := 0, noRow
	for n, c := range l.chunks {
		held, joined, here := 0, 0, 0
		for k := range chunkTickets {
			ticket := (l.first+uint64(n))<<chunkBits | uint64(k)
			r := byTicket[ticket]
			if c == nil {
				if r != nil && ticket != 0 {
					return fmt.Errorf("ticket %d of %s has no chunk", ticket, r.token)
				}
				continue
			}
			w, bit := k/64, uint64(1)<<(k%64)
			waits, present := c.waiting[w]&bit != 0, c.present[w]&bit != 0
			if ticket == 0 || r == nil {
				if waits || present {
					return fmt.Errorf("ticket %d is in line and nobody's", ticket)
				}
				continue
			}
			held++
			if t.row(c.rows[k]) != r || waits != r.state.Waits() || present != (r.state == Queued) {
				return fmt.Errorf("ticket %d of %s, %s: waits %v, present %v", ticket, r.token, r.state, waits, present)
			}
			if !waits {
				continue
			}
			if got, ok := l.position(ticket); !ok || got != ahead+1 {
				return fmt.Errorf("ticket %d: position %d, %d are ahead", ticket, got, ahead)
			}
			ahead, joined = ahead+1, joined+1
			if present {
				here++
				if first == noRow {
					first = c.rows[k]
				}
			}
		}
		if some := l.some[n/64]&(1<<(n%64)) != 0; some != (here > 0) {
			return fmt.Errorf("chunk %d: %d present, marked %v", n, here, some)
		}
		if c != nil && (int(c.held) != held || int(c.joined) != joined || int(c.here) != here || held == 0) {
			return fmt.Errorf("chunk %d: %d held, %d waiting, %d present; kept are %d, %d, %d", n, held, joined, here, c.held, c.joined, c.here)
		}
	}
	if ahead != t.counts[Queued]+t.counts[Absent] {
		return fmt.Errorf("%d in line, %d counted", ahead, t.counts[Queued]+t.counts[Absent])
	}
	if got, _ := l.firstPresent(); got != first {
		return fmt.Errorf("the first present row is %d, the line says %d", first, got)
	}
	return nil
}
