package admin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/openwaitingroom/owr/queue"
)

func TestDecodeLimits(t *testing.T) {
	all := queue.Limits{
		MaxActive: 2, ActiveTTL: time.Minute, ClaimTTL: 1500 * time.Millisecond,
		QueueAbsent: 100 * time.Millisecond, QueueTTL: 31 * 24 * time.Hour, QueueMax: queue.MaxCount, FirstHitTTL: 20 * time.Second,
	}
	cases := []struct {
		name, body string
		want       queue.LimitsChange
	}{
		{"one field", `{"max_active":2}`, queue.LimitsChange{Set: queue.FieldMaxActive, Values: queue.Limits{MaxActive: 2}}},
		{"zero holds everybody", `{"max_active":0}`, queue.LimitsChange{Set: queue.FieldMaxActive}},
		{"null clears", `{"queue_ttl": null}`, queue.LimitsChange{Clear: queue.FieldQueueTTL}},
		{"set and clear together", ` {"queue_max":null , "active_ttl":60}` + "\n", queue.LimitsChange{
			Set: queue.FieldActiveTTL, Clear: queue.FieldQueueMax, Values: queue.Limits{ActiveTTL: time.Minute},
		}},
		{"fractions of a second", `{"claim_ttl":1.5}`, queue.LimitsChange{Set: queue.FieldClaimTTL, Values: queue.Limits{ClaimTTL: 1500 * time.Millisecond}}},
		{"an exponent", `{"max_active":1e3}`, queue.LimitsChange{Set: queue.FieldMaxActive, Values: queue.Limits{MaxActive: 1000}}},
		{"an escaped name is the same name", `{"max\u005factive":2}`, queue.LimitsChange{Set: queue.FieldMaxActive, Values: queue.Limits{MaxActive: 2}}},
		{
			"all seven, and both ends of the ranges",
			`{"max_active":2,"active_ttl":60,"claim_ttl":1.5,"queue_absent":0.1,"queue_ttl":2678400,"queue_max":1073741824,"first_hit_ttl":20}`,
			queue.LimitsChange{Set: queue.AllFields, Values: all},
		},
		{"a time that is off", `{"first_hit_ttl":0}`, queue.LimitsChange{Set: queue.FieldFirstHitTTL}},
		{"nothing", `{}`, queue.LimitsChange{}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := decodeLimits([]byte(c.body))
			if err != nil || got != c.want {
				t.Errorf("decodeLimits(%s) = %+v, %v, want %+v", c.body, got, err, c.want)
			}
		})
	}
}

func TestDecodeLimitsRefuses(t *testing.T) {
	cases := []struct{ name, body, says string }{
		{"below the range", `{"max_active":-1}`, "max_active"},
		{"text", `{"max_active":"many"}`, `max_active: "many"`},
		{"text for a time", `{"active_ttl":"soon"}`, "active_ttl"},
		{"an unknown field", `{"nonsense":1}`, "nonsense"},
		{"an unknown field that clears", `{"nonsense":null}`, "nonsense"},
		{"the second of two", `{"max_active":3,"queue_max":-5}`, "queue_max"},
		{"twice the same", `{"max_active":5,"max_active":900}`, "max_active: given twice"},
		{"twice, escaped", `{"max_active":5,"max\u005factive":900}`, "max_active: given twice"},
		{"set and cleared", `{"max_active":5,"max_active":null}`, "max_active: given twice"},
		{"a time that can not be off", `{"active_ttl":0}`, "active_ttl"},
		{"a time that is neither", `{"first_hit_ttl":0.01}`, "first_hit_ttl: 0.01 s is not between 0.1 and 2.6784e+06 s, nor 0"},
		{"another case", `{"Max_Active":5}`, "Max_Active"},
		{"a fraction of a visitor", `{"max_active":2.5}`, "max_active"},
		{"too many visitors", `{"queue_max":1073741825}`, "queue_max"},
		{"beyond any number", `{"queue_max":1e400}`, "queue_max"},
		{"a time beyond any number", `{"queue_ttl":1e400}`, "queue_ttl"},
		{"no time at all", `{"queue_ttl":0}`, "queue_ttl"},
		{"shorter than a flush", `{"active_ttl":0.05}`, "active_ttl"},
		{"longer than a month", `{"active_ttl":2678401}`, "active_ttl"},
		{"true", `{"max_active":true}`, "max_active"},
		{"an object", `{"max_active":{"max_active":1}}`, "max_active: an object"},
		{"a list", `{"max_active":[1]}`, "max_active: a list"},
		{"a long text", `{"max_active":"` + strings.Repeat("x", 500) + `"}`, "…"},
		{"no object", `[1]`, "not an object"},
		{"null", `null`, "not an object"},
		{"a number", `7`, "not an object"},
		{"a form", `max_active=3`, "not JSON"},
		{"empty", ``, "not JSON"},
		{"cut off", `{"max_active":3`, "not JSON"},
		{"garbage behind", `{"max_active":3}garbage`, "not JSON"},
		{"two values", `{"max_active":3}{"max_active":4}`, "not JSON"},
		{"a comment", `{"max_active":3} // three`, "not JSON"},
		{"a byte order mark", "\ufeff" + `{"max_active":3}`, "not JSON"},
		{"a trailing comma", `{"max_active":3,}`, "not JSON"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := decodeLimits([]byte(c.body))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("decodeLimits(%s) = %+v, %v, want an error that says %q", c.body, got, err, c.says)
			}
			if err != nil && len(err.Error()) > 200 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

// FuzzDecodeLimits: no panic, whatever is taken is in range, and reads the same once it is
// written out again.
func FuzzDecodeLimits(f *testing.F) {
	for _, s := range []string{`{"max_active":2,"active_ttl":0.1,"queue_max":null}`, `{"max_active":1e2}`, `{}`, `{"a":`, `{"max_active":5,"max_active":6}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		change, err := decodeLimits(data)
		if err != nil {
			return
		}
		if change.Set&change.Clear != 0 {
			t.Fatalf("%q: set and cleared at once: %+v", data, change)
		}
		if err := change.Values.Validate(change.Set); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		again := map[string]any{}
		for name, v := range describeSet(change) {
			again[name] = v
		}
		for _, name := range describeClear(change) {
			again[name] = nil
		}
		text, err := json.Marshal(again)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := decodeLimits(text); err != nil || second != change {
			t.Fatalf("%q is %+v, written again as %s it is %+v, %v", data, change, text, second, err)
		}
	})
}
