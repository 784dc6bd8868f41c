package admin

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// closes counts how often a body is closed.
type closes struct {
	io.Reader
	count *int
}

func (c closes) Close() error { *c.count++; return nil }

// breaks answers an error where more was promised.
type breaks struct{}

func (breaks) Read([]byte) (int, error) { return 0, errors.New("the disk") }

func TestBackupIsStreamed(t *testing.T) {
	closed := 0
	text := strings.Repeat("backup", 50_000)
	var fail error
	body := io.Reader(strings.NewReader(text))
	config := new(node).config("t0ken")
	config.Backup = func() (*Backup, error) {
		return &Backup{Name: "owr-1.backup", Size: int64(len(text)), Body: closes{body, &closed}}, fail
	}
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	get := func(token string) (*http.Response, string, error) {
		req, _ := http.NewRequest(http.MethodGet, server.URL+"/v1/backup", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		return res, string(got), err
	}
	res, got, err := get("t0ken")
	if err != nil || got != text || res.ContentLength != int64(len(text)) || !strings.Contains(res.Header.Get("Content-Disposition"), "owr-1.backup") {
		t.Errorf("%d bytes of %d, %v, %v", len(got), len(text), err, res.Header)
	}
	if res, got, _ := get("wrong"); res.StatusCode != http.StatusUnauthorized || strings.Contains(got, "backup") {
		t.Errorf("without the token: %d %q; the keys are in it", res.StatusCode, got)
	}
	body = io.MultiReader(strings.NewReader(text[:100_000]), breaks{})
	if _, got, err := get("t0ken"); err == nil {
		t.Errorf("a backup that broke off looks whole: %d bytes", len(got))
	}
	fail = errors.New("the table is not up to date yet")
	if res, got, _ := get("t0ken"); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(got, "not up to date") {
		t.Errorf("no backup: %d %q", res.StatusCode, got)
	}
	server.Close() // waits for the handlers
	if closed != 2 {
		t.Errorf("of two bodies %d were closed", closed)
	}
}
