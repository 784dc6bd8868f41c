package queue

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestImports keeps the decision pure: queue decides the same on every node at every replay only if it can
// not read a clock, the disk, the network, or anything of ours that could.
func TestImports(t *testing.T) {
	allowed := map[string]bool{
		"bytes": true, "cmp": true, "encoding/binary": true, "encoding/hex": true, "errors": true, "fmt": true, "io": true, "iter": true,
		"math": true, "math/bits": true, "slices": true, "sort": true, "sync": true, "sync/atomic": true, "time": true, // time: for Duration alone
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			if path, _ := strconv.Unquote(spec.Path.Value); !allowed[path] {
				t.Errorf("%s imports %s: the table must not depend on anything but its entries (I7)", file, path)
			}
		}
	}
}
