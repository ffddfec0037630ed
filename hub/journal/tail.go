package journal

import (
	"sort"
	"sync"
)

// A chunk is one committed group in memory: its frames as they stand in the
// file, and its volatile entries.
type chunk struct {
	seq         uint64 // ascending by one
	first, next Offset // covers first..next-1; may be empty when all is volatile
	buf         []byte // frames
	volatile    []volatileEntry

	refs    int  // readers; guarded by tail.mu
	evicted bool // guarded by tail.mu
}

// A volatileEntry stands before the record with offset before.
type volatileEntry struct {
	before Offset
	Record
}

func (c *chunk) addVolatile(e *Entry, before Offset) {
	body := append([]byte(nil), e.Body...) // the submitter gets its bytes back
	c.volatile = append(c.volatile, volatileEntry{before, Record{Class: e.Class, Time: e.Time, Body: body}})
}

// cost is what a chunk counts against TailBytes.
func (c *chunk) cost() int {
	n := cap(c.buf) + 256
	for _, v := range c.volatile {
		n += len(v.Body) + 96
	}
	return n
}

// tail keeps the newest chunks.
type tail struct {
	mu     sync.Mutex
	max    int
	bytes  int
	chunks []*chunk
	seq    uint64 // of the next chunk
	free   [][]byte
}

const maxFree = 4 // buffers kept for the next groups

// take returns a chunk with a buffer for n bytes.
func (t *tail) take(n int) *chunk {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, b := range t.free {
		if cap(b) >= n && cap(b) <= 4*n {
			t.free[i] = t.free[len(t.free)-1]
			t.free = t.free[:len(t.free)-1]
			return &chunk{buf: b[:0]}
		}
	}
	return &chunk{buf: make([]byte, 0, n)}
}

// give returns a chunk that was never added.
func (t *tail) give(c *chunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recycle(c)
}

func (t *tail) recycle(c *chunk) {
	if cap(c.buf) >= pageSize && len(t.free) < maxFree {
		t.free = append(t.free, c.buf)
	}
	c.buf = nil
}

// add appends a committed chunk and evicts what no longer fits.
func (t *tail) add(c *chunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.first == c.next && len(c.volatile) == 0 {
		t.recycle(c) // only state: nothing for readers
		return
	}
	c.seq = t.seq
	t.seq++
	t.chunks = append(t.chunks, c)
	t.bytes += c.cost()
	n := 0
	for t.bytes > t.max && n < len(t.chunks) {
		old := t.chunks[n]
		t.bytes -= old.cost()
		old.evicted = true
		if old.refs == 0 {
			t.recycle(old)
		}
		t.chunks[n] = nil
		n++
	}
	t.chunks = t.chunks[n:]
}

// hold returns the chunk that holds off, pinned, or nil if it has left or is
// not there yet. With a sequence number (from the chunk before plus one) that
// chunk is meant, which may hold volatile entries only.
func (t *tail) hold(off Offset, seq uint64, bySeq bool) *chunk {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.chunks)
	if n == 0 {
		return nil
	}
	var c *chunk
	if oldest := t.chunks[0].seq; bySeq && seq >= oldest {
		if seq-oldest >= uint64(n) {
			return nil
		}
		c = t.chunks[seq-oldest]
	} else {
		i := sort.Search(n, func(i int) bool { return t.chunks[i].next > off })
		if i == n || t.chunks[i].first > off {
			return nil
		}
		c = t.chunks[i]
	}
	c.refs++
	return c
}

// drop unpins a chunk.
func (t *tail) drop(c *chunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.refs--; c.refs == 0 && c.evicted {
		t.recycle(c)
	}
}

// last returns the sequence number that the next chunk will get.
func (t *tail) last() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seq
}
