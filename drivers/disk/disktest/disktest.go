// Package disktest has a file system in memory that lies the way real ones do:
// it forgets and tears what was not synced, fills up, and errs on demand.
package disktest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"holdfast/drivers/disk"
)

// An Op is a kind of call, for counting and for injected errors.
type Op string

// The kinds of calls.
const (
	OpCreate   Op = "create"
	OpOpen     Op = "open"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
	OpList     Op = "list"
	OpMkdir    Op = "mkdir"
	OpSyncDir  Op = "syncdir"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpSync     Op = "sync"
	OpAllocate Op = "allocate"
	OpTruncate Op = "truncate"
	// OpAny stands for every kind that can change the medium.
	OpAny Op = "any"
)

// ErrPowerOff is what every call returns after the power cut of CutAfter.
var ErrPowerOff = errors.New("power is off")

// An FS is a lying [disk.FS] in memory. Its methods may be called from many
// goroutines. The zero value is not ready; see New.
type FS struct {
	mu       sync.Mutex
	live     map[string]*inode // names as running programs see them
	durable  map[string]*inode // names as a power cut would leave them at least
	renames  []nameOp          // name changes since durable, in order
	dirs     map[string]bool   // directories; assumed durable at once
	capacity int64             // bytes; 0: endless
	used     int64
	delay    time.Duration
	counts   map[Op]int
	written  int64
	faults   []*fault
	cutAfter int // calls that may still change the medium; -1: no cut planned
	off      bool
	cut      *FS // state at the moment of the cut
	locks    map[string]bool
	each     func(clone func(seed uint64) *FS)
}

// A nameOp is one unsynced change of a directory.
type nameOp struct {
	dir      string
	from, to string // to == "" for a removal, from == "" for a creation
	node     *inode
}

type fault struct {
	op  Op
	nth int // calls still to pass
	n   int // how many calls fail from then on; -1: all
	err error
}

// New returns an empty file system without faults.
func New() *FS {
	return &FS{
		live: map[string]*inode{}, durable: map[string]*inode{}, dirs: map[string]bool{".": true},
		counts: map[Op]int{}, cutAfter: -1, locks: map[string]bool{},
	}
}

// SetCapacity bounds the bytes that files may hold, reservations included;
// beyond it Allocate and WriteAt return ENOSPC. 0 removes the bound.
func (f *FS) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = bytes
}

// SetSyncDelay makes each Sync of a file take at least d.
func (f *FS) SetSyncDelay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

// Fail makes the nth call of that kind from now on (1 is the next) fail with
// err, and the n-1 calls after it; n < 0 means for good, until Heal. A failed
// write leaves a random part of the new bytes behind, a failed sync loses the
// unsynced bytes without a later sync noticing, as Linux does.
func (f *FS) Fail(op Op, nth, n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault{op: op, nth: nth, n: n, err: err})
}

// Heal removes all faults.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// Count returns how many calls of a kind were made; for OpAny, how many that
// can change the medium.
func (f *FS) Count(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

// Written returns the bytes given to WriteAt so far.
func (f *FS) Written() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.written
}

// Used returns the bytes that files hold, reservations included.
func (f *FS) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used
}

// changes reports whether calls of this kind can change the medium.
func (o Op) changes() bool { return o != OpRead && o != OpList && o != OpOpen }

// begin counts a call and decides whether it fails. The caller holds mu.
func (f *FS) begin(op Op, name string) error {
	if f.off {
		return &fs.PathError{Op: string(op), Path: name, Err: ErrPowerOff}
	}
	f.counts[op]++
	if op.changes() {
		f.counts[OpAny]++
		if f.each != nil {
			f.each(f.crash)
		}
		if f.cutAfter == 0 {
			f.off, f.cut = true, f.copy()
			return &fs.PathError{Op: string(op), Path: name, Err: ErrPowerOff}
		}
		if f.cutAfter > 0 {
			f.cutAfter--
		}
	}
	var err error
	for _, x := range f.faults {
		if x.op != op && (x.op != OpAny || !op.changes()) {
			continue
		}
		if x.nth > 1 {
			x.nth--
			continue
		}
		if x.n == 0 {
			continue
		}
		if x.n > 0 {
			x.n--
		}
		err = &fs.PathError{Op: string(op), Path: name, Err: x.err}
	}
	return err
}

// grow accounts for n more bytes. The caller holds mu.
func (f *FS) grow(name string, n int64) error {
	if n > 0 && f.capacity > 0 && f.used+n > f.capacity {
		return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
	}
	f.used += n
	return nil
}

// clean checks a name the way a rooted file system does.
func clean(name string) (string, error) {
	c := path.Clean(name)
	if !fs.ValidPath(c) {
		return "", &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return c, nil
}

// Create implements [disk.FS].
func (f *FS) Create(name string) (disk.File, error) {
	name, err := clean(name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(OpCreate, name); err != nil {
		return nil, err
	}
	if f.live[name] != nil || f.dirs[name] {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if !f.dirs[path.Dir(name)] {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrNotExist}
	}
	n := &inode{}
	f.live[name] = n
	f.renames = append(f.renames, nameOp{dir: path.Dir(name), to: name, node: n})
	return &file{fs: f, node: n, name: name}, nil
}

// Open implements [disk.FS].
func (f *FS) Open(name string) (disk.File, error) {
	name, err := clean(name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(OpOpen, name); err != nil {
		return nil, err
	}
	n := f.live[name]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &file{fs: f, node: n, name: name}, nil
}

// Rename implements [disk.FS].
func (f *FS) Rename(from, to string) error {
	from, err := clean(from)
	if err != nil {
		return err
	}
	if to, err = clean(to); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(OpRename, from); err != nil {
		return err
	}
	n := f.live[from]
	if n == nil || !f.dirs[path.Dir(to)] {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if old := f.live[to]; old != nil && old != n {
		f.used -= int64(len(old.data))
	}
	delete(f.live, from)
	f.live[to] = n
	f.renames = append(f.renames, nameOp{dir: path.Dir(to), from: from, to: to, node: n})
	return nil
}

// Remove implements [disk.FS].
func (f *FS) Remove(name string) error {
	name, err := clean(name)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(OpRemove, name); err != nil {
		return err
	}
	n := f.live[name]
	switch {
	case n != nil:
		f.used -= int64(len(n.data))
		delete(f.live, name)
		f.renames = append(f.renames, nameOp{dir: path.Dir(name), from: name, node: n})
	case f.dirs[name]:
		if len(f.list(name)) > 0 {
			return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
		}
		delete(f.dirs, name)
	default:
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	return nil
}

// List implements [disk.FS].
func (f *FS) List(dir string) ([]string, error) {
	dir, err := clean(dir)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(OpList, dir); err != nil {
		return nil, err
	}
	if !f.dirs[dir] {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	return f.list(dir), nil
}

func (f *FS) list(dir string) []string {
	var names []string
	for name := range f.live {
		if path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	for name := range f.dirs {
		if name != "." && path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	slices.Sort(names)
	return names
}

// MkdirAll implements [disk.FS]. Directories are durable at once.
func (f *FS) MkdirAll(dir string) error {
	dir, err := clean(dir)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(OpMkdir, dir); err != nil {
		return err
	}
	for d := dir; ; d = path.Dir(d) {
		if f.live[d] != nil {
			return &fs.PathError{Op: "mkdir", Path: d, Err: syscall.ENOTDIR}
		}
		f.dirs[d] = true
		if !strings.Contains(d, "/") {
			return nil
		}
	}
}

// SyncDir implements [disk.FS].
func (f *FS) SyncDir(dir string) error {
	dir, err := clean(dir)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(OpSyncDir, dir); err != nil {
		return err
	}
	var rest []nameOp
	for _, op := range f.renames {
		if op.dir == dir {
			op.apply(f.durable)
		} else {
			rest = append(rest, op)
		}
	}
	f.renames = rest
	return nil
}

// apply makes the change in names, as far as it still can be made.
func (o nameOp) apply(names map[string]*inode) {
	if o.from != "" && names[o.from] == o.node {
		delete(names, o.from)
	}
	if o.to != "" {
		names[o.to] = o.node
	}
}

// Free implements [disk.FS].
func (f *FS) Free() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.capacity == 0 {
		return 1 << 50, nil
	}
	return max(0, f.capacity-f.used), nil
}

// Lock implements [disk.Locker].
func (f *FS) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locks[name] {
		return nil, fmt.Errorf("lock %q: %w", name, disk.ErrLocked)
	}
	f.locks[name] = true
	return &lock{f, name}, nil
}

type lock struct {
	fs   *FS
	name string
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.locks, l.name)
	return nil
}
