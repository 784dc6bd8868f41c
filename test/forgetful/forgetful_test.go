package forgetful_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/openwaitingroom/owr/test/forgetful"
)

// mount skips the test where nobody may mount such a file system.
func mount(t *testing.T) (*forgetful.Disk, string) {
	t.Helper()
	dir := t.TempDir()
	d, err := forgetful.Mount(dir, t.TempDir(), 0)
	if err != nil {
		t.Skipf("a file system of FUSE cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return d, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a file for writing, made when it is missing.
func open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|flags, 0o600)
	must(t, err)
	return f
}

func TestWhatWasSyncedIsThereAndTheRestIsNot(t *testing.T) {
	var off func()
	page := func(c byte) []byte { return bytes.Repeat([]byte{c}, 4096) }
	for _, c := range []struct {
		name string
		do   func(t *testing.T, f *os.File, path string)
		want []byte
	}{
		{"nothing was done", func(*testing.T, *os.File, string) {}, append(page('a'), page('b')...)},
		{"a block was changed", func(t *testing.T, f *os.File, _ string) { _, err := f.WriteAt(page('x'), 4096); must(t, err) }, append(page('a'), page('b')...)},
		{"a few bytes across two blocks were changed", func(t *testing.T, f *os.File, _ string) { _, err := f.WriteAt([]byte("xxxx"), 4094); must(t, err) }, append(page('a'), page('b')...)},
		{"a block was added", func(t *testing.T, f *os.File, _ string) { _, err := f.WriteAt(page('x'), 8192); must(t, err) }, append(page('a'), page('b')...)},
		{"it was cut", func(t *testing.T, f *os.File, _ string) { must(t, f.Truncate(100)) }, append(page('a'), page('b')...)},
		{"it was cut by its name", func(t *testing.T, _ *os.File, path string) { must(t, os.Truncate(path, 100)) }, append(page('a'), page('b')...)},
		{"it was written anew", func(t *testing.T, _ *os.File, path string) {
			f := open(t, path, os.O_TRUNC)
			defer f.Close()
			_, err := f.WriteString("new")
			must(t, err)
		}, append(page('a'), page('b')...)},
		{"a change was synced and another one not", func(t *testing.T, f *os.File, _ string) {
			_, err := f.WriteAt(page('x'), 0)
			must(t, err)
			must(t, f.Sync())
			_, err = f.WriteAt(page('y'), 0)
			must(t, err)
		}, append(page('x'), page('b')...)},
		{"it was synced when the power was off", func(t *testing.T, f *os.File, _ string) {
			_, err := f.WriteAt(page('x'), 0)
			must(t, err)
			off()
			if err := f.Sync(); err == nil {
				t.Error("a sync without power succeeds")
			}
		}, append(page('a'), page('b')...)},
		{"it was renamed", func(t *testing.T, f *os.File, path string) {
			_, err := f.WriteAt(page('x'), 0)
			must(t, err)
			must(t, os.Rename(path, path+".old"))
			must(t, os.Rename(path+".old", path))
		}, append(page('a'), page('b')...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, dir := mount(t)
			off = d.Off
			path := filepath.Join(dir, "file")
			f := open(t, path, 0)
			_, err := f.Write(append(page('a'), page('b')...))
			must(t, err)
			must(t, f.Sync())
			c.do(t, f, path)
			must(t, f.Close())
			_, err = d.Forget(nil)
			must(t, err)
			got, err := os.ReadFile(path)
			must(t, err)
			if !bytes.Equal(got, c.want) {
				t.Errorf("%d bytes, begin with %.4q and end with %.4q; want %d, %.4q and %.4q",
					len(got), got[:min(4, len(got))], got[max(0, len(got)-4):], len(c.want), c.want[:4], c.want[len(c.want)-4:])
			}
		})
	}
}

// TestAFileThatWasNeverSyncedIsEmpty is what a power cut leaves of one.
func TestAFileThatWasNeverSyncedIsEmpty(t *testing.T) {
	d, dir := mount(t)
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, []byte("never synced"), 0o600))
	if n, err := d.Forget(nil); err != nil || n != 1 {
		t.Errorf("%d blocks forgotten, %v; want one", n, err)
	}
	if got, err := os.ReadFile(path); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSomeBlocksReachTheDiskAllTheSame: a file may come back torn.
func TestSomeBlocksReachTheDiskAllTheSame(t *testing.T) {
	d, dir := mount(t)
	path := filepath.Join(dir, "file")
	f := open(t, path, 0)
	_, err := f.Write(bytes.Repeat([]byte{'a'}, 2*4096))
	must(t, err)
	must(t, f.Sync())
	_, err = f.WriteAt(bytes.Repeat([]byte{'x'}, 2*4096), 0)
	must(t, err)
	must(t, f.Close())
	one := true
	n, err := d.Forget(func() bool { one = !one; return one })
	must(t, err)
	got, err := os.ReadFile(path)
	must(t, err)
	if n != 1 || len(got) != 2*4096 || bytes.Count(got, []byte{'x'}) != 4096 || bytes.Count(got, []byte{'a'}) != 4096 {
		t.Errorf("%d blocks forgotten of %d bytes, %d of them as before and %d as written", n, len(got), bytes.Count(got, []byte{'a'}), bytes.Count(got, []byte{'x'}))
	}
}
