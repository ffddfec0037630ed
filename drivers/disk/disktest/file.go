package disktest

import (
	"hash/fnv"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"
)

// Sector is the size of the pieces in which unsynced bytes survive or not.
const Sector = 512

// An inode is a file without its name.
type inode struct {
	data    []byte  // as running programs read it
	durable []byte  // as it is on the medium at least
	writes  []write // changes since durable, in order
	rng     *rand.Rand
}

// A write is one unsynced change: bytes at an offset, or a size (data == nil).
type write struct {
	off  int64
	data []byte
	size int64
}

func (w write) apply(b []byte) []byte {
	if w.data == nil {
		return resize(b, w.size)
	}
	return overwrite(b, w.off, w.data)
}

func overwrite(b []byte, off int64, p []byte) []byte {
	if end := off + int64(len(p)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[off:], p)
	return b
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size] // a later growth must not show old bytes again
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// survive applies a random subset of the unsynced writes to the durable bytes:
// each write in pieces of a sector, each piece whole, not at all, or torn at a
// random byte, in any order. Bytes beside a write are never harmed; that is the
// one thing this medium can be trusted with.
func (n *inode) survive(rng *rand.Rand) {
	keep := rng.Float64() // some cuts lose nearly all, some nearly nothing
	var pieces []write
	for _, w := range n.writes {
		if w.data == nil {
			if rng.Float64() < keep {
				n.durable = w.apply(n.durable)
			}
			continue
		}
		for at := int64(0); at < int64(len(w.data)); {
			end := min(at+Sector-(w.off+at)%Sector, int64(len(w.data)))
			if rng.Float64() < keep {
				if rng.IntN(16) == 0 {
					end = at + rng.Int64N(end-at+1)
				}
				if end > at {
					pieces = append(pieces, write{off: w.off + at, data: w.data[at:end]})
				}
			}
			at += max(1, min(Sector-(w.off+at)%Sector, int64(len(w.data))-at))
		}
	}
	rng.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	for _, p := range pieces {
		n.durable = p.apply(n.durable)
	}
	n.writes = nil
}

// file is an open inode.
type file struct {
	fs     *FS
	node   *inode
	name   string
	closed bool
}

func (f *file) begin(op Op) error {
	if f.closed {
		return &fs.PathError{Op: string(op), Path: f.name, Err: fs.ErrClosed}
	}
	return f.fs.begin(op, f.name)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.begin(OpRead); err != nil {
		return 0, err
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n, err := len(p), f.begin(OpWrite)
	if err != nil {
		if f.fs.off {
			return 0, err
		}
		n = f.random().IntN(len(p) + 1)
	}
	if gerr := f.fs.grow(f.name, max(0, off+int64(n)-int64(len(f.node.data)))); gerr != nil {
		return 0, gerr
	}
	f.fs.written += int64(n)
	if n > 0 {
		f.node.data = overwrite(f.node.data, off, p[:n])
		f.node.writes = append(f.node.writes, write{off: off, data: slices.Clone(p[:n])})
	}
	return n, err
}

// random is seeded by the file's name, so that a run can be repeated.
func (f *file) random() *rand.Rand {
	if f.node.rng == nil {
		h := fnv.New64a()
		io.WriteString(h, f.name)
		f.node.rng = rand.New(rand.NewPCG(h.Sum64(), 1))
	}
	return f.node.rng
}

func (f *file) Sync() error {
	f.fs.mu.Lock()
	delay := f.fs.delay
	f.fs.mu.Unlock()
	if delay > 0 {
		time.Sleep(delay)
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.begin(OpSync); err != nil {
		if !f.fs.off {
			f.node.survive(f.random()) // what was lost stays visible until the cut
		}
		return err
	}
	for _, w := range f.node.writes {
		f.node.durable = w.apply(f.node.durable)
	}
	f.node.writes = nil
	return nil
}

func (f *file) Allocate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.begin(OpAllocate); err != nil {
		return err
	}
	if size <= int64(len(f.node.data)) {
		return nil
	}
	return f.resize(size)
}

func (f *file) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.begin(OpTruncate); err != nil {
		return err
	}
	return f.resize(size)
}

func (f *file) resize(size int64) error {
	if err := f.fs.grow(f.name, size-int64(len(f.node.data))); err != nil {
		return err
	}
	f.node.data = resize(f.node.data, size)
	f.node.writes = append(f.node.writes, write{size: size})
	return nil
}

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return 0, fs.ErrClosed
	}
	return int64(len(f.node.data)), nil
}

func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	return nil
}
