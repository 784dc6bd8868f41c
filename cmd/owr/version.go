package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version string

// libraries are the modules whose version decides how a node behaves.
var libraries = []string{"github.com/hashicorp/raft", "github.com/valyala/fasthttp", "github.com/redis/go-redis/v9"}

func printVersion(w io.Writer) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	if _, err := fmt.Fprintf(w, "owr %s\n%s %s/%s\n", versionOf(info), runtime.Version(), runtime.GOOS, runtime.GOARCH); err != nil {
		return err
	}
	for _, module := range info.Deps {
		for _, path := range libraries {
			if module.Path == path {
				if _, err := fmt.Fprintf(w, "%s %s\n", module.Path, module.Version); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// versionHere is the version of this binary.
func versionHere() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return versionOf(info)
}

// versionOf prefers what the linker was told, then the module's version, then the commit.
func versionOf(info *debug.BuildInfo) string {
	if version != "" {
		return version
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value
		}
	}
	return "devel"
}
