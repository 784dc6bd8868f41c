// Package forgetful is a file system that forgets what was not synced: a power cut for one directory, on command.
//
// It lies over a directory and hands everything through, but for fsync and fdatasync, which mark what is there as kept. Forget puts
// every file back to what it was at its last sync: its bytes, and its length. Names are not forgotten: that a
// file was made, renamed or removed is taken to be on the disk at once, so what is tested with it is syncing of
// files and not of directories.
//
// The processes that use the directory have to be dead when Forget is called, as they are after a power cut.
package forgetful

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// blockSize is what is forgotten or kept as one piece: a page of memory, of which a disk never sees a part.
const blockSize = 4096

// A Disk is one mounted file system. All methods may be called concurrently.
type Disk struct {
	server *fuse.Server
	sync   time.Duration

	mu    sync.Mutex
	dirty map[inode]*undo // mu; files with anything that was not synced
	off   bool            // mu; nothing is synced any more
}

type inode struct{ device, number uint64 }

// An undo is what brings a file back to its last sync. It has a descriptor of its own, so it goes with the file when that
// is renamed or removed. Disk.mu
type undo struct {
	file   *os.File
	size   int64            // at the last sync
	blocks map[int64][]byte // at the last sync, those that were written since and began below size
}

// Mount shows the directory backing at dir, both of which exist. A sync takes as long as it is told to: on a disk that is faster than any
// there is, hardly ever would a process die in the middle of one. It fails where nobody may mount such a file system: then /dev/fuse is
// missing, or not to be opened.
func Mount(dir, backing string, sync time.Duration) (*Disk, error) {
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	device.Close()
	var st syscall.Stat_t
	if err := syscall.Stat(backing, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", backing, err)
	}
	d := &Disk{sync: sync, dirty: map[inode]*undo{}}
	data := &fs.LoopbackRoot{Path: backing, Dev: st.Dev}
	root := &node{&fs.LoopbackNode{RootData: data}, d}
	data.RootNode = root
	none := time.Duration(0) // what the kernel remembered of a file would outlive Forget
	d.server, err = fs.Mount(dir, root, &fs.Options{
		AttrTimeout: &none, EntryTimeout: &none,
		MountOptions: fuse.MountOptions{FsName: "forgetful", Name: "forgetful", DirectMount: true, DisableXAttrs: true},
	})
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return d, nil
}

// Unmount ends the file system. It fails while a process uses it.
func (d *Disk) Unmount() error { return d.server.Unmount() }

// Off is the moment of the power cut: a sync that has not ended fails, as does every one after it. It comes before the processes are killed, since a sync
// that a process waits for when it dies would still be carried out.
func (d *Disk) Off() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
}

// Forget undoes what was not synced, and answers how many blocks that were. keep says of one block after the other that it had reached the disk all
// the same, as some do; nil keeps none. What was added to a file's end is always forgotten. Then there is power again.
func (d *Disk) Forget(keep func() bool) (forgotten int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, u := range d.dirty {
		n, err := u.undo(keep)
		if err != nil {
			return forgotten, err
		}
		forgotten += n
		u.file.Close()
		delete(d.dirty, id)
	}
	d.off = false
	return forgotten, nil
}

func (u *undo) undo(keep func() bool) (forgotten int, err error) {
	st, err := u.file.Stat()
	if err != nil {
		return 0, err
	}
	forgotten = int(max(st.Size()-u.size, 0)+blockSize-1) / blockSize
	if err := u.file.Truncate(u.size); err != nil {
		return 0, err
	}
	for block, data := range u.blocks {
		if keep != nil && keep() {
			continue
		}
		if _, err := u.file.WriteAt(data, block*blockSize); err != nil {
			return forgotten, err
		}
		forgotten++
	}
	return forgotten, nil
}

// changing is called before length bytes at offset of an open file change, and before the file becomes as long as to when that is not
// negative.
func (d *Disk) changing(fd int, offset, length, to int64) error {
	id, st, err := identify(fd)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	u := d.dirty[id]
	if u == nil {
		file, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		u = &undo{file: file, size: st.Size, blocks: map[int64][]byte{}}
		d.dirty[id] = u
	}
	if to >= 0 {
		offset, length = to, max(u.size-to, 0)
	}
	for block := offset / blockSize; block*blockSize < min(offset+length, u.size); block++ {
		if u.blocks[block] != nil {
			continue
		}
		data := make([]byte, min(blockSize, u.size-block*blockSize))
		if n, err := u.file.ReadAt(data, block*blockSize); n < len(data) {
			return fmt.Errorf("read what is there: %w", err)
		}
		u.blocks[block] = data
	}
	return nil
}

// synced forgets how to undo what was done to a file, unless the power is off.
func (d *Disk) synced(fd int) error {
	id, _, err := identify(fd)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return syscall.EIO
	}
	if u := d.dirty[id]; u != nil {
		u.file.Close()
		delete(d.dirty, id)
	}
	return nil
}

func identify(fd int) (inode, *syscall.Stat_t, error) {
	var st syscall.Stat_t
	err := syscall.Fstat(fd, &st)
	return inode{st.Dev, st.Ino}, &st, err
}

// --- what the kernel asks for ----------------------------------------------------------------

// A node is a file or a directory.
type node struct {
	*fs.LoopbackNode
	disk *Disk
}

// WrapChild implements fs.NodeWrapChilder.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	if plain, ok := ops.(*fs.LoopbackNode); ok {
		return &node{plain, n.disk}
	}
	return ops
}

// Open implements fs.NodeOpener.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, how, errno := n.LoopbackNode.Open(ctx, flags&^syscall.O_TRUNC)
	if errno != 0 {
		return nil, 0, errno
	}
	f := n.file(h)
	if flags&syscall.O_TRUNC != 0 {
		if errno := f.cut(0); errno != 0 {
			return nil, 0, errno
		}
		if err := syscall.Ftruncate(f.fd(), 0); err != nil {
			return nil, 0, fs.ToErrno(err)
		}
	}
	return f, how, 0
}

// Create implements fs.NodeCreater.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	made, h, how, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return made, n.file(h), how, 0
}

// Setattr implements fs.NodeSetattrer.
func (n *node) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		f, open := h.(*file)
		if !open {
			plain, err := os.OpenFile(filepath.Join(n.RootData.Path, n.Path(nil)), os.O_RDWR, 0)
			if err != nil {
				return fs.ToErrno(err)
			}
			f = n.file(fs.NewLoopbackFileFromOS(plain))
			defer func() { _ = f.Release(ctx) }()
		}
		if errno := f.cut(int64(size)); errno != 0 {
			return errno
		}
	}
	return n.LoopbackNode.Setattr(ctx, h, in, out)
}

func (n *node) file(h fs.FileHandle) *file { return &file{h.(*fs.LoopbackFile), n.disk} } // LoopbackNode makes no others

// A file is one that a process has open.
type file struct {
	*fs.LoopbackFile
	disk *Disk
}

func (f *file) fd() int {
	fd, _ := f.LoopbackFile.PassthroughFd()
	return fd
}

// PassthroughFd implements fs.FilePassthroughFder: the kernel must not go past us.
func (f *file) PassthroughFd() (int, bool) { return 0, false }

func (f *file) cut(size int64) syscall.Errno { return fs.ToErrno(f.disk.changing(f.fd(), 0, 0, size)) }

// Write implements fs.FileWriter.
func (f *file) Write(ctx context.Context, data []byte, offset int64) (uint32, syscall.Errno) {
	if err := f.disk.changing(f.fd(), offset, int64(len(data)), -1); err != nil {
		return 0, fs.ToErrno(err)
	}
	return f.LoopbackFile.Write(ctx, data, offset)
}

// Fsync implements fs.FileFsyncer. The machine that this runs on has no power cut, so nothing has to reach its disk.
func (f *file) Fsync(context.Context, uint32) syscall.Errno {
	time.Sleep(f.disk.sync)
	return fs.ToErrno(f.disk.synced(f.fd()))
}

// Allocate implements fs.FileAllocater.
func (f *file) Allocate(context.Context, uint64, uint64, uint32) syscall.Errno {
	return syscall.ENOTSUP
}
