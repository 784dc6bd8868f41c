package queue

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is the table as the README tells it: a list, scanned for every question. It shares no
// code with Table but the words.
type model struct {
	limits     Limits
	now, epoch int64
	hold       int64
	next       uint64
	visitors   []visitor // in no order
}

type visitor struct {
	token  Token
	state  State
	ticket uint64
	seen   int64 // relative to epoch, a multiple of 100
	first  bool  // unconfirmed; one that is not, and Active with a ticket, is reserved
}

func newModel(l Limits) *model { return &model{limits: l, next: 1} }

func (m *model) find(t Token) *visitor {
	for i := range m.visitors {
		if m.visitors[i].token == t {
			return &m.visitors[i]
		}
	}
	return nil
}

func (m *model) count(states ...State) (n int) {
	for _, v := range m.visitors {
		if slices.Contains(states, v.state) {
			n++
		}
	}
	return n
}

func (m *model) drop(t Token) {
	m.visitors = slices.DeleteFunc(m.visitors, func(v visitor) bool { return v.token == t })
}

func (m *model) since(at int64) int64 {
	d := at - m.epoch
	if d < 0 {
		return 0
	}
	return (d + 99) / 100 * 100
}

func (m *model) apply(b Batch) (out []Decision) {
	m.now = max(m.now, b.Now)
	if m.epoch == 0 {
		m.epoch = m.now
	}
	for _, c := range b.Commands {
		d := m.step(c)
		d.Index = b.Index
		out = append(out, d)
	}
	return out
}

func (m *model) open() bool {
	return m.count(Active, Released) < m.limits.MaxActive && m.count(Queued) == 0
}

func (m *model) step(c Command) Decision {
	v := m.find(c.Token)
	switch c.Kind {
	case KindTick:
		m.tick()
		return Decision{}
	case KindResume:
		m.epoch += int64(c.Arg) / 100 * 100
		m.hold = m.now + 2000
		return Decision{}
	case KindEnter, KindArrive:
		if v == nil {
			line := 0
			for _, o := range m.visitors {
				if o.state.Waits() && !o.first {
					line++
				}
			}
			switch full := m.limits.QueueMax > 0 && line >= m.limits.QueueMax; {
			case m.open() && c.Kind == KindEnter && m.limits.FirstHitTTL > 0:
				m.visitors = append(m.visitors, visitor{c.Token, Active, m.next, m.since(m.now), true})
				m.next++
			case m.open():
				m.visitors = append(m.visitors, visitor{c.Token, Active, 0, m.since(m.now), false})
			case c.Kind == KindEnter:
				return Decision{Refusal: NoSlot}
			case full:
				return Decision{Refusal: QueueFull}
			default:
				m.visitors = append(m.visitors, visitor{c.Token, Queued, m.next, m.since(m.now), false})
				m.next++
			}
			break
		}
		if v.first && v.state == Active && c.Kind == KindEnter {
			v.seen = max(v.seen, m.since(m.now))
			break
		}
		m.confirm(v)
		switch v.state {
		case Absent:
			v.state = Queued
			v.seen = m.since(m.now)
			m.promote()
			if v.state == Released {
				v.state, v.ticket, v.seen = Active, 0, m.since(m.now)
			}
		case Released:
			v.state, v.ticket, v.seen = Active, 0, m.since(m.now)
		default:
			v.seen = m.since(m.now)
		}
	case KindTouch, KindAsk:
		if v != nil && v.state != Released {
			if v.first || c.Kind == KindTouch {
				m.confirm(v)
			}
			v.seen = max(v.seen, m.since(m.now-int64(c.Arg)))
			if v.state == Absent {
				v.state = Queued
				m.promote()
			}
		}
	case KindStay:
		if v != nil && v.state == Active {
			v.seen = max(v.seen, m.since(m.now-int64(c.Arg)))
		}
	case KindClaim:
		if v != nil && (v.state == Released || v.state == Active && v.ticket != 0) {
			v.state, v.ticket, v.seen, v.first = Active, 0, m.since(m.now), false
		}
	case KindReserve:
		switch {
		case v == nil:
		case v.state == Released:
			v.state, v.seen = Active, m.since(m.now)
		case v.state == Active && v.first:
			v.ticket, v.seen, v.first = 0, m.since(m.now), false
		}
	case KindLeave:
		if v != nil {
			m.drop(c.Token)
			m.promote()
			return Decision{}
		}
	}
	return m.decide(c.Token)
}

// confirm is that the visitor has brought its cookie.
func (m *model) confirm(v *visitor) {
	if v.state == Active {
		v.ticket = 0
	}
	v.first = false
}

func (m *model) decide(t Token) Decision {
	v := m.find(t)
	if v == nil {
		return Decision{Refusal: NoVisitor}
	}
	d := Decision{State: v.state, Ticket: v.ticket}
	if v.state.Waits() {
		d.Position = 1
		for _, o := range m.visitors {
			if o.state.Waits() && o.ticket < v.ticket {
				d.Position++
			}
		}
	}
	return d
}

func (m *model) promote() {
	for m.count(Active, Released) < m.limits.MaxActive && m.count(Queued) > 0 {
		var first *visitor
		for i := range m.visitors {
			if v := &m.visitors[i]; v.state == Queued && (first == nil || v.ticket < first.ticket) {
				first = v
			}
		}
		first.state, first.seen = Released, m.since(m.now)
	}
}

func (m *model) tick() {
	if m.now >= m.hold {
		for _, v := range slices.Clone(m.visitors) {
			past := func(limit, grace time.Duration) bool {
				return m.epoch+v.seen+(limit+grace).Milliseconds() <= m.now
			}
			switch {
			case v.state == Active && v.ticket != 0 && !v.first && past(m.limits.ActiveTTL, slotGrace) && !past(m.limits.QueueTTL, presenceGrace):
				m.find(v.token).state = Absent
			case v.state == Active && past(m.limits.ActiveTTL, slotGrace),
				v.state.Waits() && past(m.limits.QueueTTL, presenceGrace):
				m.drop(v.token)
			case v.state == Queued && past(m.limits.QueueAbsent, presenceGrace),
				v.state == Released && past(m.limits.ClaimTTL, 0):
				m.find(v.token).state = Absent
			}
		}
		m.promote()
		m.takeBack()
	}
	m.promote()
}

// takeBack gives slots of first hits to those who wait.
func (m *model) takeBack() {
	for m.limits.FirstHitTTL > 0 && m.count(Queued) > 0 {
		var oldest *visitor
		for i := range m.visitors {
			v := &m.visitors[i]
			if v.state == Active && v.first && (oldest == nil || v.seen < oldest.seen || v.seen == oldest.seen && v.ticket < oldest.ticket) {
				oldest = v
			}
		}
		if oldest == nil || m.epoch+oldest.seen+(m.limits.FirstHitTTL+slotGrace).Milliseconds() > m.now {
			return
		}
		oldest.state = Absent
		m.promote()
	}
}

// deadline is up to when a node that hears of nobody may let the visitor in.
func (m *model) deadline(t Token) int64 {
	v := m.find(t)
	switch {
	case v == nil || v.state != Active:
		return 0
	case v.first && m.limits.FirstHitTTL > 0:
		return m.epoch + v.seen + min(m.limits.FirstHitTTL, m.limits.ActiveTTL).Milliseconds()
	}
	return m.epoch + v.seen + m.limits.ActiveTTL.Milliseconds()
}

// rows is what a frozen table should hold.
func (m *model) rows() []Row {
	var rows []Row
	for _, v := range m.visitors {
		rows = append(rows, Row{v.token, v.state, v.ticket, m.epoch + v.seen, v.first})
	}
	slices.SortFunc(rows, compareRows)
	return rows
}

// --- histories ---------------------------------------------------------------------------

var drawDuration = rapid.Custom(func(t *rapid.T) time.Duration {
	return time.Duration(rapid.Int64Range(100, 20_000).Draw(t, "ms")) * time.Millisecond
})

func drawLimits(t *rapid.T) Limits {
	return Limits{
		MaxActive: rapid.IntRange(0, 6).Draw(t, "max_active"),
		ActiveTTL: drawDuration.Draw(t, "active_ttl"), ClaimTTL: drawDuration.Draw(t, "claim_ttl"),
		QueueAbsent: drawDuration.Draw(t, "queue_absent"), QueueTTL: drawDuration.Draw(t, "queue_ttl"),
		QueueMax:    rapid.SampledFrom([]int{0, 0, 3, 12}).Draw(t, "queue_max"),
		FirstHitTTL: rapid.SampledFrom([]time.Duration{0, 300 * time.Millisecond, 2 * time.Second, 12 * time.Second}).Draw(t, "first_hit_ttl"),
	}
}

// person is one of few visitors, so that they meet themselves again; two of them share a shard.
func person(n int) Token { return MakeToken([16]byte{0: byte(n / 2), 15: byte(n)}) }

func drawCommands(t *rapid.T) []Command {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Command {
		c := Command{Kind: rapid.SampledFrom([]Kind{
			KindArrive, KindArrive, KindArrive, KindEnter, KindEnter, KindEnter, KindTouch, KindTouch, KindAsk, KindAsk, KindStay,
			KindClaim, KindClaim, KindReserve, KindReserve, KindLeave, KindTick, KindTick,
		}).Draw(t, "kind")}
		if c.Kind == KindTick {
			return c
		}
		c.Token = person(rapid.IntRange(0, 19).Draw(t, "who"))
		if c.Kind == KindTouch || c.Kind == KindAsk || c.Kind == KindStay {
			c.Arg = rapid.SampledFrom([]uint32{0, 1, 99, 100, 700, 5_000, 3_600_000}).Draw(t, "age")
		}
		return c
	}), 1, 8).Draw(t, "commands")
}

// reencode sends a batch through its wire form, as the log does.
func reencode(t interface{ Fatalf(string, ...any) }, b Batch) Batch {
	got, err := DecodeBatch(AppendBatch(nil, b), nil)
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	got.Index = b.Index
	return got
}

func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := drawLimits(t)
		table, twin, m := NewTable(limits), NewTable(limits), newModel(limits)
		_, feed := table.Follow(1 << 20)
		sketch := newSketch()
		now, index := int64(1_000_000), uint64(0)
		var override Limits
		var set Field
		apply := func(b Batch) {
			b = reencode(t, b)
			twin.Apply(b, nil)
			got, want := table.Apply(b, nil), m.apply(b)
			if !slices.Equal(got, want) {
				t.Fatalf("decisions %+v, want %+v", got, want)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"batch": func(t *rapid.T) {
				now += rapid.Int64Range(-50, 5_000).Draw(t, "step") // leaders' clocks disagree
				index++
				apply(Batch{Index: index, Now: now, Commands: drawCommands(t)})
			},
			"come back after any time": func(t *rapid.T) {
				now += rapid.Int64Range(0, 100_000).Draw(t, "away")
				index++
				who := person(rapid.IntRange(0, 19).Draw(t, "who"))
				kind := rapid.SampledFrom([]Kind{KindArrive, KindTouch, KindAsk, KindClaim, KindReserve}).Draw(t, "kind")
				apply(Batch{Index: index, Now: now, Commands: []Command{{Kind: KindTick}, {Kind: kind, Token: who}}})
			},
			"new leader": func(t *rapid.T) {
				gap := rapid.Int64Range(0, 30_000).Draw(t, "gap")
				now += gap
				index++
				apply(Batch{Index: index, Now: now, Commands: []Command{{Kind: KindResume, Arg: uint32(gap)}}})
			},
			"limits": func(t *rapid.T) {
				index++
				f := rapid.SampledFrom(Fields).Draw(t, "field").Field
				c := LimitsChange{Index: index, Now: now, Base: rapid.Bool().Draw(t, "base")}
				switch {
				case !c.Base && rapid.Bool().Draw(t, "clear"):
					c.Clear = f
					set &^= f
				default:
					c.Set, c.Values = f, drawLimits(t)
					layer := &override
					if c.Base {
						layer = &limits
					} else {
						set |= f
					}
					layer.Set(f, c.Values.Get(f))
				}
				decoded, err := DecodeLimits(AppendLimits(nil, c))
				if err != nil {
					t.Fatalf("decode: %v", err)
				}
				decoded.Index = index
				m.now = max(m.now, now)
				if m.epoch == 0 {
					m.epoch = m.now
				}
				m.limits = limits
				for _, f := range Fields {
					if set&f.Field != 0 {
						m.limits.Set(f.Field, override.Get(f.Field))
					}
				}
				m.promote()
				if got := table.ApplyLimits(decoded); got != m.limits || twin.ApplyLimits(decoded) != m.limits {
					t.Fatalf("limits %+v, want %+v", got, m.limits)
				}
			},
			"restore": func(t *rapid.T) { twin = restore(t, snapshot(t, twin)) },
			"": func(t *rapid.T) {
				if err := table.CheckInvariants(); err != nil {
					t.Fatal(err)
				}
				if err := twin.CheckInvariants(); err != nil {
					t.Fatalf("twin: %v", err)
				}
				if table.Stats() != twin.Stats() {
					t.Fatalf("stats %+v, the twin's %+v", table.Stats(), twin.Stats())
				}
				if got, want := slices.Collect(table.Freeze().Rows()), m.rows(); !slices.Equal(got, want) {
					t.Fatalf("rows %+v, want %+v", got, want)
				}
				for n := range 20 {
					got, want := table.Lookup(person(n)), m.decide(person(n))
					if got.State != want.State || got.Position != want.Position || got.Ticket != want.Ticket || got.Deadline != m.deadline(person(n)) {
						t.Fatalf("view %+v, want %+v", got, want)
					}
				}
				if got, want := table.HasRoom(), m.open(); got != want {
					t.Fatalf("has room %v, want %v", got, want)
				}
				changes, _, lost := feed.Take(nil)
				if lost {
					t.Fatal("the feed lost changes")
				}
				sketch.draw(t, changes)
				sketch.compare(t, m)
			},
		})
	})
}

// sketch is the mirror in small: it knows nothing but the feed, and must show the table.
type sketch struct {
	line             []Token
	active, released map[Token]bool
}

func newSketch() *sketch { return &sketch{active: map[Token]bool{}, released: map[Token]bool{}} }

func (s *sketch) draw(t *rapid.T, changes []Change) {
	for _, c := range changes {
		if c.Before.Waits() && !c.After.Waits() {
			if c.Ahead >= len(s.line) || s.line[c.Ahead] != c.Token {
				t.Fatalf("%+v: is not there in %v", c, s.line)
			}
			s.line = slices.Delete(s.line, c.Ahead, c.Ahead+1)
		}
		if !c.Before.Waits() && c.After.Waits() {
			if c.Next != (Token{}) && s.line[c.Ahead] != c.Next || c.Next == (Token{}) && c.Ahead != len(s.line) {
				t.Fatalf("%+v: does not belong there in %v", c, s.line)
			}
			s.line = slices.Insert(s.line, c.Ahead, c.Token)
		}
		delete(s.active, c.Token)
		delete(s.released, c.Token)
		switch c.After {
		case Active:
			s.active[c.Token] = true
		case Released:
			s.released[c.Token] = true
		}
	}
}

func (s *sketch) compare(t *rapid.T, m *model) {
	var line []Token
	for _, r := range m.rows() {
		if r.State.Waits() {
			line = append(line, r.Token)
		}
	}
	if !slices.Equal(s.line, line) || len(s.active) != m.count(Active) || len(s.released) != m.count(Released) {
		t.Fatalf("the feed shows %v, %d, %d; want %v, %d, %d", s.line, len(s.active), len(s.released), line, m.count(Active), m.count(Released))
	}
}
