// Command sbom writes what a Go binary is made of as a bill of materials: CycloneDX 1.6 in JSON
// (https://cyclonedx.org/docs/1.6/json/).
//
// It reads what the linker has left in the binary (debug/buildinfo), so it lists what is inside and not what
// go.mod would allow. It needs no network and no module beside the standard library: what is to
// vouch for a supply chain should not lengthen it.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: sbom BINARY VERSION >sbom.json")
		os.Exit(2)
	}
	if err := write(os.Stdout, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// A bill is the document. Equal binaries give equal documents: there is no time and no serial number in it.
type bill struct {
	Schema      string     `json:"$schema"`
	Format      string     `json:"bomFormat"`
	SpecVersion string     `json:"specVersion"`
	Version     int        `json:"version"`
	Metadata    metadata   `json:"metadata"`
	Components  []part     `json:"components"`
	Depends     []relation `json:"dependencies"`
}

type metadata struct {
	Component part `json:"component"`
}

type part struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	PURL       string     `json:"purl,omitempty"`
	Scope      string     `json:"scope,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type relation struct {
	Ref     string   `json:"ref"`
	Depends []string `json:"dependsOn"`
}

// write writes the bill of the binary at path, which is of that version: the linker's word for it may be "(devel)".
func write(w io.Writer, path, version string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if info.Main.Path == "" {
		return errors.New(path + " was not built from a module")
	}
	sum, err := sumOf(path)
	if err != nil {
		return err
	}
	root := part{Type: "application", Ref: purl(info.Main.Path, version), Name: info.Main.Path, Version: version, Hashes: []hash{{"SHA-256", sum}}}
	root.PURL = root.Ref
	for _, s := range info.Settings { // how it was built: GOOS, GOARCH, CGO_ENABLED, -trimpath, …
		if s.Key != "-ldflags" { // which is a text of the builder's own
			root.Properties = append(root.Properties, property{"go:build:" + s.Key, s.Value})
		}
	}
	std := strings.TrimPrefix(info.GoVersion, "go")
	parts := []part{{Type: "library", Ref: purl("std", std), Name: "std", Version: std, PURL: purl("std", std), Scope: "required"}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		p := part{Type: "library", Ref: purl(m.Path, m.Version), Name: m.Path, Version: m.Version, Scope: "required"}
		p.PURL = p.Ref
		if m.Sum != "" {
			p.Properties = []property{{"go:sum", m.Sum}} // a hash of the module's tree, as go.sum has it
		}
		parts = append(parts, p)
	}
	all := relation{Ref: root.Ref}
	for i := range parts {
		all.Depends = append(all.Depends, parts[i].Ref)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(bill{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{root}, Components: parts, Depends: []relation{all},
	})
}

// purl names a module as scanners look it up (https://github.com/package-url/purl-spec, type golang).
func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
