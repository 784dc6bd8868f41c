package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The test's own binary is as good as any.
func TestTheBillListsWhatIsInside(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	if err := write(&first, self, "v1.2.3"); err != nil {
		t.Fatal(err)
	}
	if err := write(&second, self, "v1.2.3"); err != nil || first.String() != second.String() {
		t.Errorf("equal binaries give different bills, %v", err)
	}
	var b bill
	if err := json.Unmarshal(first.Bytes(), &b); err != nil {
		t.Fatal(err)
	}
	if b.Format != "CycloneDX" || b.SpecVersion != "1.6" || b.Metadata.Component.PURL != "pkg:golang/github.com/openwaitingroom/owr@v1.2.3" || len(b.Metadata.Component.Hashes[0].Content) != 64 {
		t.Errorf("the head is %+v", b.Metadata)
	}
	if want := "pkg:golang/std@" + strings.TrimPrefix(runtime.Version(), "go"); b.Components[0].PURL != want {
		t.Errorf("the standard library is %s, want %s", b.Components[0].PURL, want)
	}
	refs := map[string]bool{b.Metadata.Component.Ref: true}
	for _, p := range b.Components {
		if refs[p.Ref] {
			t.Errorf("%s is there twice", p.Ref)
		}
		refs[p.Ref] = true
	}
	if got := b.Depends[0].Depends; len(got) != len(b.Components) {
		t.Errorf("%d dependencies of %d components", len(got), len(b.Components))
	}
}

func TestNoBinaryNoBill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + ".none"} {
		if err := write(new(bytes.Buffer), p, "v1"); err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v, want an error that names it", p, err)
		}
	}
}

func TestPURL(t *testing.T) {
	for _, c := range [][3]string{
		{"github.com/a/b", "v1.2.3", "pkg:golang/github.com/a/b@v1.2.3"},
		{"github.com/a/b/v2", "v2.0.0+incompatible", "pkg:golang/github.com/a/b/v2@v2.0.0%2Bincompatible"},
	} {
		if got := purl(c[0], c[1]); got != c[2] {
			t.Errorf("%s %s is %s, want %s", c[0], c[1], got, c[2])
		}
	}
}
