package cluster

import (
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

func TestJudge(t *testing.T) {
	blank, founder := about{term: 1, last: 1}, about{term: 1, last: 1, memory: true}
	knows := func(term uint64) about { return about{term: term, last: 50, memory: true} }
	wiped := about{term: 7, last: 3}
	for name, c := range map[string]struct {
		voters int
		own    about
		others []about
		founds bool
		from   uint64
	}{
		"nobody answers":                              {voters: 3, own: blank},
		"two of a new three":                          {voters: 3, own: blank, others: []about{blank}, founds: true},
		"the other one has decided already":           {voters: 3, own: blank, others: []about{founder}, founds: true},
		"a new three":                                 {voters: 3, own: blank, others: []about{blank, founder}, founds: true},
		"wiped, and one of two answers":               {voters: 3, own: blank, others: []about{knows(7)}},
		"wiped, and both answer":                      {voters: 3, own: blank, others: []about{knows(7), knows(9)}, from: 9},
		"wiped and started again":                     {voters: 3, own: wiped, others: []about{knows(7), knows(9)}, from: 9},
		"wiped and started again, the other is new":   {voters: 3, own: wiped, others: []about{blank}},
		"two wiped, and the third answers":            {voters: 3, own: blank, others: []about{blank, knows(7)}},
		"two wiped, the other one follows already":    {voters: 3, own: blank, others: []about{wiped, knows(7)}},
		"wiped, beside one that has lost it too":      {voters: 3, own: blank, others: []about{wiped}},
		"two of two, new":                             {voters: 2, own: blank, others: []about{blank}, founds: true},
		"one of two wiped":                            {voters: 2, own: blank, others: []about{knows(4)}, from: 4},
		"two of a new five":                           {voters: 5, own: blank, others: []about{blank}},
		"three of a new five":                         {voters: 5, own: blank, others: []about{blank, blank}, founds: true},
		"one of five wiped, two of the others answer": {voters: 5, own: blank, others: []about{knows(3), knows(4)}},
		"one of five wiped, three answer":             {voters: 5, own: blank, others: []about{knows(3), knows(6), knows(4)}, from: 6},
	} {
		others := map[string]about{}
		for i, a := range c.others {
			others[string(rune('a'+i))] = a
		}
		if founds, from := judge(c.voters, c.own, others); founds != c.founds || from != c.from {
			t.Errorf("%s: founds %v, follows from term %d; want %v, %d", name, founds, from, c.founds, c.from)
		}
	}
}

// Without memory a node hears leaders of the terms that nobody has forgotten, and no candidate at all.
func TestMemoryTakes(t *testing.T) {
	messages := func(term uint64) []any {
		return []any{
			&raft.AppendEntriesRequest{Term: term}, &raft.InstallSnapshotRequest{Term: term},
			&raft.RequestVoteRequest{Term: term}, &raft.RequestPreVoteRequest{Term: term}, &raft.TimeoutNowRequest{},
		}
	}
	taken := func(m *memory, term uint64) (out []bool) {
		for _, message := range messages(term) {
			out = append(out, m.takes(message))
		}
		return out
	}
	m := new(memory)
	nothing, entries := []bool{false, false, false, false, false}, []bool{true, true, false, false, false}
	if got := taken(m, 9); !slices.Equal(got, nothing) {
		t.Errorf("before the others have answered it takes %v", got)
	}
	m.from.Store(7)
	if got := taken(m, 6); !slices.Equal(got, nothing) {
		t.Errorf("from a leader of an older term it takes %v", got)
	}
	if got := taken(m, 7); !slices.Equal(got, entries) {
		t.Errorf("from the leader it takes %v", got)
	}
	m.whole.Store(true)
	if got := taken(m, 1); slices.Contains(got, false) {
		t.Errorf("whole, it takes %v", got)
	}
}

// When memory is whole again the node has voted for nobody in the term it is in.
func TestRememberBarsTheTerm(t *testing.T) {
	dir := t.TempDir()
	s, _ := disked(t, dir)
	if err := s.SetUint64(keyCurrentTerm, 7); err != nil {
		t.Fatal(err)
	}
	if err := s.remember(7); err != nil {
		t.Fatal(err)
	}
	s.close()
	s, _ = disked(t, dir)
	defer s.close()
	term, err := s.GetUint64(keyVoteTerm)
	if term != 7 || err != nil {
		t.Errorf("voted in term %d, want 7, %v", term, err)
	}
	candidate, err := s.Get(keyVoteCandidate)
	if string(candidate) != string(nobody) || err != nil {
		t.Errorf("voted for %q, %v", candidate, err)
	}
	mark, err := s.Get(keyMemory)
	if string(mark) != string(remembered) || err != nil {
		t.Errorf("memory is marked %q, %v", mark, err)
	}
}

func TestAboutRoundTrip(t *testing.T) {
	for flags := range byte(8) {
		want := about{memory: flags&1 != 0, leads: flags&2 != 0, short: flags&4 != 0, term: 1 << 40, last: 77}
		if got, err := decodeAbout(append(appendAbout(nil, want), 1, 2, 3)); got != want || err != nil {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
	}
	if _, err := decodeAbout(make([]byte, aboutSize-1)); err == nil {
		t.Error("a short one was taken")
	}
}
