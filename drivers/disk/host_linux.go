package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// Host is the machine's own file system below one directory.
type Host struct {
	root *os.Root
}

// OpenHost makes the directory if it is missing and returns the tree below it.
// Names cannot leave it, not even through symbolic links.
func OpenHost(dir string) (*Host, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Host{root: root}, nil
}

// Close releases the directory. Files opened through it stay open.
func (h *Host) Close() error { return h.root.Close() }

// Create implements [FS].
func (h *Host) Create(name string) (File, error) {
	return h.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

// Open implements [FS].
func (h *Host) Open(name string) (File, error) {
	return h.open(name, os.O_RDWR)
}

func (h *Host) open(name string, flag int) (File, error) {
	f, err := h.root.OpenFile(name, flag, 0o640)
	if err != nil {
		return nil, err
	}
	return &hostFile{f}, nil
}

// Rename implements [FS].
func (h *Host) Rename(from, to string) error { return h.root.Rename(from, to) }

// Remove implements [FS].
func (h *Host) Remove(name string) error { return h.root.Remove(name) }

// List implements [FS].
func (h *Host) List(dir string) ([]string, error) {
	d, err := h.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// MkdirAll implements [FS].
func (h *Host) MkdirAll(dir string) error { return h.root.MkdirAll(dir, 0o750) }

// SyncDir implements [FS].
func (h *Host) SyncDir(dir string) error {
	d, err := h.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Free implements [FS].
func (h *Host) Free() (int64, error) {
	d, err := h.root.Open(".")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(d.Fd()), &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: h.root.Name(), Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// Lock implements [Locker] with flock(2): the kernel drops the lock with the
// process, so there is never a stale one to clean up.
func (h *Host) Lock(name string) (io.Closer, error) {
	f, err := h.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrLocked
	}
	return nil, fmt.Errorf("lock %q: %w", name, err)
}

// hostFile adds durability to an os.File.
type hostFile struct {
	*os.File
}

// Sync is fdatasync(2): it writes the data and the metadata needed to read it
// back (size, extents), but not the times.
func (f *hostFile) Sync() error {
	return f.control("fdatasync", func(fd int) error { return syscall.Fdatasync(fd) })
}

func (f *hostFile) Allocate(size int64) error {
	err := f.control("fallocate", func(fd int) error { return syscall.Fallocate(fd, 0, 0, size) })
	if !errors.Is(err, syscall.EOPNOTSUPP) {
		return err
	}
	return f.fill(size) // NFS, vfat and the like: only bytes reserve space
}

// fill extends the file to size with written zeroes.
func (f *hostFile) fill(size int64) error {
	at, err := f.Size()
	if err != nil {
		return err
	}
	zero := make([]byte, 256<<10)
	for at < size {
		n := min(int64(len(zero)), size-at)
		if _, err := f.WriteAt(zero[:n], at); err != nil {
			return err
		}
		at += n
	}
	return nil
}

func (f *hostFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// control runs a system call on the descriptor, again when a signal cut it
// short (the Go runtime preempts with signals).
func (f *hostFile) control(op string, call func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = rc.Control(func(fd uintptr) {
		for {
			if callErr = call(int(fd)); !errors.Is(callErr, syscall.EINTR) {
				return
			}
		}
	})
	if err == nil {
		err = callErr
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}
