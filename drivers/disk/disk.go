// Package disk is the file system as hardware: a thing that fills up, errs,
// tears writes, and forgets what was not synced.
//
// Code that keeps something durable takes an [FS]. The real one is [Host]; the
// lying one is in package disktest.
package disk

import (
	"errors"
	"io"
	"syscall"
)

// An FS is one directory tree. Names are slash-separated and relative to its
// root; a name that leaves the root is an error.
//
// It has more than three methods because each is one promise about a crash, and
// a store that is given half of them cannot be correct.
type FS interface {
	// Create makes a new, empty file for reading and writing. It is an error
	// (fs.ErrExist) if the name is taken. The name survives a crash only after
	// SyncDir of its directory.
	Create(name string) (File, error)

	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)

	// Rename moves a file, replacing a file of the new name. Atomic against a
	// crash: afterwards the new name holds the old or the new content, whole.
	// Durable only after SyncDir.
	Rename(from, to string) error

	// Remove deletes a file or an empty directory. Durable after SyncDir.
	Remove(name string) error

	// List returns the names in a directory, sorted, without their path.
	List(dir string) ([]string, error)

	// MkdirAll makes a directory and the missing ones above it.
	MkdirAll(dir string) error

	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error

	// Free returns the bytes that an ordinary user may still write.
	Free() (int64, error)
}

// A Locker is an FS that can keep other processes out. [Host] is one.
type Locker interface {
	// Lock takes the lock of that name, a file in the root, and holds it until
	// the result is closed or the process ends. It does not wait: it is an
	// error (ErrLocked) if another process, or another Lock of this one, holds
	// it.
	Lock(name string) (io.Closer, error)
}

// ErrLocked is returned by Lock when somebody else holds the lock.
var ErrLocked = errors.New("locked by another process")

// A File is an open file with explicit positions. ReadAt and WriteAt may be
// called concurrently on ranges that do not overlap. What was written survives
// a crash only when a later Sync has returned nil; until then any part of it,
// in any order and torn at any byte, may be on the medium.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer

	// Sync makes all data written so far durable (fdatasync). After an error
	// nothing is known about what was written since the last good Sync, and a
	// second Sync that succeeds proves nothing: the caller must stop trusting
	// the file (the kernel may drop dirty pages after it has reported the error once).
	Sync() error

	// Allocate reserves space for the first size bytes and makes the file at
	// least that long; what was not written reads as zeroes. Extents are
	// reserved, not filled: the first write into one costs file system metadata
	// at the next Sync, an overwrite does not. ENOSPC (or EDQUOT) is reported
	// here and not at a later WriteAt inside the range.
	Allocate(size int64) error

	// Truncate changes the size of the file.
	Truncate(size int64) error

	// Size returns the size in bytes.
	Size() (int64, error)
}

// IsFull reports whether an error says that the medium, or this user's share of
// it, has no room left.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
