package queue

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseToken(t *testing.T) {
	const good = "0b0e8c5e-2f4a-4c59-9d3e-7f5a1c2b3d4e"
	token, ok := ParseToken([]byte(good))
	if !ok || string(token.AppendText(nil)) != good {
		t.Fatalf("%s: %v, %s", good, ok, token.AppendText(nil))
	}
	if s := token.String(); strings.Contains(good, s) || !strings.HasPrefix(s, good[:8]) || len(s) > 12 {
		t.Errorf("fingerprint %q", s)
	}
	for name, bad := range map[string]string{
		"empty": "", "short": good[:35], "long": good + "0", "upper case": strings.ToUpper(good), "version 1": strings.Replace(good, "-4", "-1", 1),
		"variant": strings.Replace(good, "-9", "-c", 1), "no dashes": strings.ReplaceAll(good, "-", "0"), "not hexadecimal": strings.Replace(good, "0b", "0g", 1),
		"not ASCII": "\xff" + good[1:],
	} {
		if got, ok := ParseToken([]byte(bad)); ok {
			t.Errorf("%s: %q is taken as %x", name, bad, got)
		}
	}
}

func TestTokensRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := MakeToken([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "random")))
		if got, ok := ParseToken(want.AppendText(nil)); !ok || got != want {
			t.Fatalf("%x became %x, %v", want, got, ok)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	f.Add([]byte("0b0e8c5e-2f4a-4c59-9d3e-7f5a1c2b3d4e"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if token, ok := ParseToken(text); ok && !bytes.Equal(token.AppendText(nil), text) {
			t.Fatalf("%q became %q", text, token.AppendText(nil))
		}
	})
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(AppendBatch(nil, Batch{Room: 3, Now: 1, Commands: []Command{{Kind: KindArrive, Token: person(1)}, {Kind: KindTouch, Token: person(2), Arg: 7}, {Kind: KindTick}}}))
	f.Add(AppendBatch(nil, Batch{}))
	f.Add(AppendBatch(nil, Batch{Commands: []Command{{Kind: KindEnter, Token: person(1)}, {Kind: KindStay, Token: person(1), Arg: 9}}}))
	f.Add(AppendBatch(nil, Batch{Commands: []Command{{Kind: KindArrive, Token: person(1)}, {Kind: KindReserve, Token: person(1)}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := DecodeBatch(data, nil)
		if err != nil {
			if !errors.Is(err, ErrBadBatch) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if got := AppendBatch(nil, b); !bytes.Equal(got, data) {
			t.Fatalf("%x became %x", data, got)
		}
		table := NewTable(Limits{MaxActive: 1, ActiveTTL: time.Second, ClaimTTL: time.Second, QueueAbsent: time.Second, QueueTTL: time.Second})
		if got := table.Apply(b, nil); len(got) != len(b.Commands) {
			t.Fatalf("%d commands, %d decisions", len(b.Commands), len(got))
		}
		if err := table.CheckInvariants(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeLimits(f *testing.F) {
	f.Add(AppendLimits(nil, LimitsChange{Room: 1, Now: 2, Base: true, Set: AllFields, Values: DefaultLimits()}))
	f.Add(AppendLimits(nil, LimitsChange{Set: FieldFirstHitTTL, Clear: FieldMaxActive}))
	f.Add(AppendLimits(nil, LimitsChange{Set: FieldQueueMax, Clear: FieldMaxActive, Values: Limits{QueueMax: 9}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeLimits(data)
		if err != nil {
			if !errors.Is(err, ErrBadLimits) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if got := AppendLimits(nil, c); !bytes.Equal(got, data) {
			t.Fatalf("%x became %x", data, got)
		}
		if err := NewTable(DefaultLimits()).ApplyLimits(c).Validate(AllFields); err != nil {
			t.Fatalf("limits out of range came into force: %v", err)
		}
	})
}

func TestDecodeBatchRefuses(t *testing.T) {
	whole := AppendBatch(nil, Batch{Now: 5, Commands: []Command{{Kind: KindArrive, Token: person(1)}}})
	change := func(at int, to byte) []byte {
		b := slices.Clone(whole)
		b[at] = to
		return b
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "another layout": change(0, 99), "a cut command": whole[:len(whole)-1], "half a command more": append(slices.Clone(whole), 1),
		"kind 0": change(batchHeader, 0), "a kind of the future": change(batchHeader, byte(lastKind)+1), "a tick with a token": change(batchHeader, byte(KindTick)),
		"an argument nobody uses": change(len(whole)-1, 1), "a time beyond all clocks": change(3, 0xff),
	} {
		if _, err := DecodeBatch(data, nil); !errors.Is(err, ErrBadBatch) {
			t.Errorf("%s: error %v, want %v", name, err, ErrBadBatch)
		}
	}
}

func TestLimitsAreNamedInErrors(t *testing.T) {
	for _, f := range Fields {
		l := DefaultLimits()
		l.Set(f.Field, -1)
		if err := l.Validate(AllFields); err == nil || !strings.Contains(err.Error(), f.Name) {
			t.Errorf("%s is -1: error %v", f.Name, err)
		}
		if err := l.Validate(AllFields &^ f.Field); err != nil {
			t.Errorf("%s is not in the set: %v", f.Name, err)
		}
	}
}
