package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"
)

func TestKeys(t *testing.T) {
	n := &node{}
	cfg := n.config("secret")
	rotated, removed := 0, []uint8{}
	var fail error
	age := 1.5
	cfg.Keys = func() []Key {
		return []Key{{ID: 2, Age: &age, MadeAt: time.Unix(1_700_000_000, 0).UTC()}, {ID: 1, Signs: true}}
	}
	cfg.RotateKey = func(context.Context) error { rotated++; return fail }
	cfg.RemoveKey = func(_ context.Context, id uint8) error { removed = append(removed, id); return fail }
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := s.Handler()
	want := `{"keys":[{"id":2,"made_at":"2023-11-14T22:13:20Z","age":1.5,"signs":false},{"id":1,"age":null,"signs":true}]}` + "\n"
	if got := ask(h, "GET", "/v1/keys", ""); got.Code != 200 || got.Body.String() != want {
		t.Errorf("GET: %d %s", got.Code, got.Body)
	}
	for _, c := range [][2]string{{"POST", "/v1/keys/rotate"}, {"DELETE", "/v1/keys/1"}} {
		if got := ask(h, c[0], c[1], ""); got.Code != 401 {
			t.Errorf("%v without the token: %d", c, got.Code)
		}
	}
	token := header("Authorization", "Bearer secret")
	if got := ask(h, "POST", "/v1/keys/rotate", "", token); got.Code != 200 || got.Body.String() != want || rotated != 1 {
		t.Errorf("rotate: %d %s, %d times", got.Code, got.Body, rotated)
	}
	if got := ask(h, "DELETE", "/v1/keys/7", "", token); got.Code != 200 || len(removed) != 1 || removed[0] != 7 {
		t.Errorf("remove: %d, removed %v", got.Code, removed)
	}
	for _, id := range []string{"256", "-1", "x", "1e1"} {
		if got := ask(h, "DELETE", "/v1/keys/"+id, "", token); got.Code != 400 || len(removed) != 1 {
			t.Errorf("remove %s: %d, removed %v", id, got.Code, removed)
		}
	}
	for want, err := range map[int]error{
		http.StatusConflict: &RefusedError{Reason: "the only one"}, http.StatusNotFound: &RefusedError{Reason: "none", Unknown: true},
		http.StatusServiceUnavailable: errors.New("no leader"),
	} {
		fail = err
		got := ask(h, "DELETE", "/v1/keys/1", "", token)
		var p struct{ Detail string }
		if json.Unmarshal(got.Body.Bytes(), &p) != nil || got.Code != want || p.Detail == "" {
			t.Errorf("%v: %d %s, want %d", err, got.Code, got.Body, want)
		}
	}
}
