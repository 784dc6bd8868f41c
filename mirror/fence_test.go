package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/openwaitingroom/owr/queue"
)

// leader is one term's hold on Redis without the loop around it, so that a test can let it
// write at the worst moment.
func leader(t *testing.T, r *room, addr string, cluster string, term uint64) *session {
	t.Helper()
	w, err := New(Config{Source: r, Node: "n" + strconv.FormatUint(term, 10), Cluster: func() string { return cluster }, Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	s := &session{w: w, term: term, cluster: cluster, client: w.cfg.connect()}
	t.Cleanup(func() {
		s.client.Close()
		w.Close()
	})
	return s
}

// drawNow makes a full pass of the room as it is.
func (s *session) drawNow(t *testing.T, r *room) error {
	t.Helper()
	picture, feed, stop := r.Follow(1000)
	t.Cleanup(stop)
	s.feed = feed
	return s.pass(t.Context(), picture)
}

// groups plans what the feed has, without writing it.
func (s *session) plan(t *testing.T) ([]group, uint64) {
	t.Helper()
	changes, index, lost := s.feed.Take(nil)
	if lost {
		t.Fatal("the feed lost changes")
	}
	groups, _ := s.planner.plan(changes, nil)
	if len(groups) != 1 {
		t.Fatalf("%d groups, want 1", len(groups))
	}
	return groups, index
}

// everything is all that is in the database, as text: no script may change it by a single byte
// when it is refused.
func everything(t *testing.T, client *redis.Client) string {
	t.Helper()
	p, mark, err := look(t.Context(), client, "wr:")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return fmt.Sprint(p, mark, keys)
}

func someVisitors(r *room) (actives, line []queue.Token) {
	r.entry(func() {
		for range 3 {
			actives = append(actives, r.newToken())
			r.admit(actives[len(actives)-1])
		}
		for range 5 {
			line = append(line, r.newToken())
			r.queue(line[len(line)-1])
		}
		r.promote(0)
	})
	return actives, line[1:]
}

func TestDeposedLeaderChangesNothing(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		actives, _ := someVisitors(r)
		old := leader(t, r, addr, "c1", 4)
		if err := old.drawNow(t, r); err != nil {
			t.Fatal(err)
		}
		r.entry(func() { r.leave(actives[0]); r.promote(0) })
		late, index := old.plan(t) // and now it is paused
		successor := leader(t, r, addr, "c1", 5)
		if err := successor.drawNow(t, r); err != nil {
			t.Fatal(err)
		}
		before := everything(t, client)
		if err := old.send(t.Context(), late[0], index); !errors.Is(err, errFenced) {
			t.Errorf("the late group got %v, want fenced", err)
		}
		if err := old.drawNow(t, r); !errors.Is(err, errFenced) {
			t.Errorf("the late full pass got %v, want fenced", err)
		}
		if err := old.probe(t.Context()); !errors.Is(err, errFenced) {
			t.Errorf("the late look got %v, want fenced", err)
		}
		// The temporary keys of its pass are its own, and go with the next one or by themselves.
		if err := old.w.sweep(t.Context(), old.client); err != nil {
			t.Fatal(err)
		}
		if after := everything(t, client); after != before {
			t.Errorf("Redis has changed:\n%s\n%s", before, after)
		}
	})
}

// What a client has given up may still run: Redis reads its socket later. Each of these lands
// after the picture has gone on.
func TestLateWritesOfTheSameTerm(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		actives, _ := someVisitors(r)
		first := leader(t, r, addr, "c1", 4)
		if err := first.drawNow(t, r); err != nil {
			t.Fatal(err)
		}
		frozen, _, stop := r.Follow(10)
		defer stop()
		r.entry(func() { r.leave(actives[0]); r.promote(0) })
		groups, index := first.plan(t)
		from := first.index
		if err := first.send(t.Context(), groups[0], index); err != nil {
			t.Fatal(err)
		}
		before := everything(t, client)

		first.index = from
		if err := first.send(t.Context(), groups[0], index); err != nil {
			t.Errorf("a group that is there already got %v, want it taken for done", err)
		}
		if after := everything(t, client); after != before {
			t.Errorf("a group applied twice changes Redis:\n%s\n%s", before, after)
		}

		first.index = from
		if err := first.send(t.Context(), groups[0], index+1); !errors.Is(err, errChanged) {
			t.Errorf("a group that does not follow on got %v, want a gap", err)
		}
		late := leader(t, r, addr, "c1", 4)
		if err := late.pass(t.Context(), frozen); !errors.Is(err, errFenced) {
			t.Errorf("a full pass of an older table got %v, want fenced", err)
		}
		if err := late.w.sweep(t.Context(), late.client); err != nil {
			t.Fatal(err)
		}
		if after := everything(t, client); after != before {
			t.Errorf("Redis has changed:\n%s\n%s", before, after)
		}
	})
}

func TestPassIsWholeOrNothing(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		someVisitors(r)
		first := leader(t, r, addr, "c1", 4)
		if err := first.drawNow(t, r); err != nil {
			t.Fatal(err)
		}
		before := everything(t, client)
		second := leader(t, r, addr, "c1", 5)
		picture, _, stop := r.Follow(10)
		defer stop()
		tmp := second.w.keys.temporary(5, "p")
		held, err := second.build(t.Context(), tmp, picture)
		if err != nil {
			t.Fatal(err)
		}
		if want := (tally{active: 3, queue: 4, released: 1}); held != want {
			t.Errorf("built %+v, want %+v", held, want)
		}
		for _, k := range tmp.members() {
			if ttl := client.TTL(t.Context(), k).Val(); ttl <= 0 || ttl > temporaryTTL {
				t.Errorf("%s has %v to live, want up to %v", k, ttl, temporaryTTL)
			}
		}
		finish := func() string {
			answer, err := passScript.Run(t.Context(), second.client, append(second.w.keys.shown(), tmp.members()...),
				"c1", 5, picture.Index, "n5", 1, held.active, held.queue, held.released, "", "").Text()
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		client.LPop(t.Context(), tmp.queue)
		if answer := finish(); answer != answerTorn {
			t.Errorf("a pass with a visitor too few is %s, want %s", answer, answerTorn)
		}
		client.Del(t.Context(), tmp.members()...)
		if answer := finish(); answer != answerTorn {
			t.Errorf("a pass whose keys have expired is %s, want %s", answer, answerTorn)
		}
		if after := everything(t, client); after != before {
			t.Errorf("Redis has changed:\n%s\n%s", before, after)
		}
	})
}

func TestPassLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		someVisitors(r)
		s := leader(t, r, addr, "c1", 4)
		// A pass that ended half way, twice over.
		s.w.litter = s.w.keys.temporary(4, "p").members()
		for _, k := range s.w.litter {
			client.RPush(t.Context(), k, "x")
		}
		if err := s.drawNow(t, r); err != nil {
			t.Fatal(err)
		}
		keys := client.Keys(t.Context(), "*").Val()
		slices.Sort(keys)
		if want := []string{"wr:active", "wr:mirror", "wr:queue", "wr:released"}; !slices.Equal(keys, want) {
			t.Errorf("keys %v, want %v", keys, want)
		}
		for _, k := range keys {
			if ttl := client.TTL(t.Context(), k).Val(); ttl != -1 {
				t.Errorf("%s expires in %v, want never", k, ttl)
			}
		}
	})
}

func TestMarkerIsTheContract(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		someVisitors(r)
		client.HSet(t.Context(), "wr:mirror", "leftover", "1")
		s := leader(t, r, addr, "c1", 4)
		if err := s.drawNow(t, r); err != nil {
			t.Fatal(err)
		}
		mark := client.HGetAll(t.Context(), "wr:mirror").Val()
		at, err := strconv.ParseInt(mark["updated_at"], 10, 64)
		if age := time.Since(time.UnixMilli(at)); err != nil || age < 0 || age > time.Minute {
			t.Errorf("updated_at %q, want now in Unix ms", mark["updated_at"])
		}
		delete(mark, "updated_at")
		want := map[string]string{"cluster": "c1", "term": "4", "index": strconv.FormatUint(r.index, 10), "node": "n4"}
		if !maps.Equal(mark, want) {
			t.Errorf("marker %v, want %v", mark, want)
		}
	})
}

func TestMarkerOfAnotherKindIsNone(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		someVisitors(r)
		for name, spoil := range map[string]func(){
			"a text":             func() { client.Set(context.Background(), "wr:mirror", "x", 0) },
			"no number for term": func() { client.HSet(context.Background(), "wr:mirror", "cluster", "c1", "term", "many", "index", "x") },
			"only a cluster":     func() { client.HSet(context.Background(), "wr:mirror", "cluster", "c1") },
		} {
			client.Del(t.Context(), "wr:mirror")
			spoil()
			s := leader(t, r, addr, "c1", 4)
			if err := s.probe(t.Context()); err != nil {
				t.Errorf("%s: look: %v", name, err)
			}
			if err := s.drawNow(t, r); err != nil {
				t.Errorf("%s: pass: %v", name, err)
			}
			if got := client.HGet(t.Context(), "wr:mirror", "term").Val(); got != "4" {
				t.Errorf("%s: term %q, want 4", name, got)
			}
		}
	})
}

func TestSighting(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_000_000_000)
	at := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).UnixMilli(), 10) }
	type look struct {
		after   time.Duration // since the first look
		updated string
		want    error
	}
	cases := []struct {
		name  string
		looks []look
	}{
		{"one that is kept up is left alone", []look{
			{0, at(-time.Second), errForeign},
			{20 * time.Second, at(19 * time.Second), errForeign},
			{100 * time.Second, at(99 * time.Second), errForeign},
		}},
		{"one that was just left is replaced when it is 30 s old", []look{
			{0, at(-5 * time.Second), errForeign},
			{24 * time.Second, at(-5 * time.Second), errForeign},
			{26 * time.Second, at(-5 * time.Second), nil},
		}},
		{"an old one is watched first", []look{
			{0, at(-time.Hour), errWatching}, {time.Second, at(-time.Hour), errWatching}, {watchFor, at(-time.Hour), nil},
		}},
		{"one of a cluster whose clock is behind is seen to be alive", []look{
			{0, at(-time.Hour), errWatching},
			{time.Second, at(time.Second - time.Hour), errForeign},
			{watchFor, at(2*time.Second - time.Hour), errForeign},
			{30 * time.Second, at(29*time.Second - time.Hour), errForeign},
			{58 * time.Second, at(29*time.Second - time.Hour), errForeign},
			{61 * time.Second, at(29*time.Second - time.Hour), nil},
		}},
		{"one from the future is replaced when it has stood still for 30 s", []look{
			{0, at(time.Hour), errForeign}, {29 * time.Second, at(time.Hour), errForeign}, {30 * time.Second, at(time.Hour), nil},
		}},
		{"one without a time is watched", []look{{0, "", errWatching}, {watchFor, "", nil}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var s sighting
			for _, l := range c.looks {
				got := s.look(marker{cluster: "other", term: 1, updatedAt: l.updated}, now.Add(l.after))
				if !errors.Is(got, l.want) {
					t.Errorf("after %v: %v, want %v", l.after, got, l.want)
				}
			}
		})
	}
	t.Run("a third cluster is looked at anew", func(t *testing.T) {
		var s sighting
		s.look(marker{cluster: "other", updatedAt: at(-time.Hour)}, now)
		if got := s.look(marker{cluster: "third", updatedAt: at(-time.Hour)}, now.Add(time.Minute)); !errors.Is(got, errWatching) {
			t.Errorf("%v, want %v", got, errWatching)
		}
	})
}

func TestForeignPictureIsReplacedOnlyAsItWasSeen(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, addr string) {
		r, client := newRoom(), dial(t, addr)
		someVisitors(r)
		theirs := newRoom()
		someVisitors(theirs)
		if err := leader(t, theirs, addr, "c2", 9).drawNow(t, theirs); err != nil {
			t.Fatal(err)
		}
		client.HSet(t.Context(), "wr:mirror", "updated_at", 1000)
		s := leader(t, r, addr, "c1", 4)
		s.replaces = marker{cluster: "c2", updatedAt: "999"} // it has moved since
		before := everything(t, client)
		if err := s.drawNow(t, r); !errors.Is(err, errForeign) {
			t.Errorf("pass: %v, want it refused", err)
		}
		if err := s.send(t.Context(), group{}, 1); !errors.Is(err, errForeign) {
			t.Errorf("group: %v, want it refused", err)
		}
		if err := s.w.sweep(t.Context(), s.client); err != nil {
			t.Fatal(err)
		}
		if after := everything(t, client); after != before {
			t.Errorf("Redis has changed:\n%s\n%s", before, after)
		}
		s.replaces = marker{cluster: "c2", updatedAt: "1000"}
		if err := s.drawNow(t, r); err != nil {
			t.Errorf("pass: %v, want it taken", err)
		}
	})
}
