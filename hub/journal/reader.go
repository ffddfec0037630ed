package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// A Reader walks the journal in order. It is used by one goroutine at a time.
type Reader struct {
	// Classes restricts what Next returns; whole frames and segments without
	// such a class are passed over unread. Set it before the first Next.
	Classes Classes
	// Volatile asks for volatile entries too. Set it before the first Next.
	Volatile bool

	j    *Journal
	next Offset // of the next record

	// The frame being read: what is left of it, and the offset of its first
	// remaining item.
	items []byte
	at    Offset
	base  int64

	// In the tail cache: the pinned chunk and where in it.
	chunk    *chunk
	chunkPos int    // of the next frame in chunk.buf
	chunkVol int    // of the next volatile entry
	seq      uint64 // of the chunk after the last one read
	hasSeq   bool

	// In a file.
	seg *segment
	pos int64 // of the next frame
	win window
}

// readBuffers are the windows of readers that read files right now.
var readBuffers = sync.Pool{New: func() any { b := make([]byte, windowBytes); return &b }}

// NewReader returns a reader whose first record is the first one at or after
// from that is there, after a gap for those that are not. From 0 or 1 it reads
// all there is.
func (j *Journal) NewReader(from Offset) *Reader {
	return &Reader{j: j, next: max(from, 1)}
}

// Offset returns the offset that comes next: one after the last record or gap
// that was returned or passed over.
func (r *Reader) Offset() Offset { return r.next }

// Seek moves the reader to another offset, as NewReader does.
func (r *Reader) Seek(to Offset) {
	r.Release()
	r.next, r.hasSeq = max(to, 1), false
}

// Release gives the reader's buffers back, for a reader that has to wait for
// something else. The next Next goes on where it was, but may miss volatile
// entries.
func (r *Reader) Release() {
	r.items = nil
	r.dropChunk()
	r.dropFile()
}

func (r *Reader) dropChunk() {
	if r.chunk != nil {
		r.j.tail.drop(r.chunk)
		r.chunk = nil
	}
}

func (r *Reader) dropFile() {
	r.seg = nil
	if r.win.buf != nil {
		if b := r.win.buf[:cap(r.win.buf)]; len(b) == windowBytes {
			readBuffers.Put(&b)
		}
		r.win = window{}
	}
}

// Next returns the next record, or a record with Gap set for a range that is
// missing. At the committed end it returns ErrEnd and can be called again
// later. Other errors are those of the medium; the reader has not moved then.
func (r *Reader) Next() (Record, error) {
	for {
		if rec, ok := r.item(); ok {
			return rec, nil
		}
		if r.chunk != nil {
			if rec, ok := r.nextInChunk(); ok {
				return rec, nil
			}
			if len(r.items) > 0 || r.chunk != nil {
				continue
			}
		}
		if r.seg == nil {
			if c := r.j.tail.hold(r.next, r.seq, r.hasSeq); c != nil {
				r.enterChunk(c)
				continue
			}
			if r.next > r.j.Committed() {
				return Record{}, ErrEnd
			}
		}
		rec, ok, err := r.nextInFile()
		if err != nil {
			return Record{}, err
		}
		if ok {
			return rec, nil
		}
	}
}

// item returns the next wanted item of the frame being read.
func (r *Reader) item() (Record, bool) {
	for len(r.items) > 0 {
		if r.Volatile && r.chunk != nil && r.chunkVol < len(r.chunk.volatile) && r.chunk.volatile[r.chunkVol].before <= r.at {
			if rec := r.volatile(); r.Classes.Has(rec.Class) {
				return rec, true
			}
			continue
		}
		it, rest, err := cutItem(r.items, r.base)
		if err != nil {
			// The checksum was right, so this journal wrote it wrong. The
			// offsets that are left show up as a hole before the next frame.
			r.items = nil
			return Record{}, false
		}
		off := r.at
		r.items = rest
		r.at += Offset(max(it.gap, 1))
		if r.at <= r.next {
			continue // before the place where the reader began
		}
		r.next = r.at
		if it.gap > 0 {
			if it.classes == 0 || r.Classes == 0 || it.classes&r.Classes != 0 {
				g := &Gap{From: off, To: r.at - 1, Reason: it.reason, Classes: it.classes}
				return Record{Offset: off, Gap: g}, true
			}
			continue
		}
		if r.Classes.Has(it.class) {
			return Record{Offset: off, Class: it.class, Time: it.time, Body: it.body}, true
		}
	}
	return Record{}, false
}

// volatile takes the next volatile entry of the chunk.
func (r *Reader) volatile() Record {
	r.chunkVol++
	return r.chunk.volatile[r.chunkVol-1].Record
}

// enterChunk begins to read a pinned chunk of the tail cache.
func (r *Reader) enterChunk(c *chunk) {
	inOrder := r.hasSeq && c.seq == r.seq
	r.chunk, r.chunkPos, r.chunkVol = c, 0, 0
	if !inOrder {
		// Entered from elsewhere: volatile entries before this place were
		// missed, and later ones are not.
		for r.chunkVol < len(c.volatile) && c.volatile[r.chunkVol].before < r.next {
			r.chunkVol++
		}
	}
}

// nextInChunk goes to the next frame of the chunk, or returns a volatile entry
// that stands behind all records, or leaves the chunk.
func (r *Reader) nextInChunk() (Record, bool) {
	c := r.chunk
	for r.chunkPos+frameLen <= len(c.buf) {
		f := decodeFrame(c.buf[r.chunkPos:], 0)
		body := c.buf[r.chunkPos+frameLen:][:f.bodyLen]
		r.chunkPos += int(alignUp(frameLen+int64(f.bodyLen), 8))
		if f.kind != frameData {
			continue
		}
		if end := f.first + Offset(f.count); end <= r.next {
			continue
		} else if r.Classes != 0 && f.classes&r.Classes == 0 && !(r.Volatile && len(c.volatile) > 0) {
			r.next = end
			continue
		}
		r.items, r.at, r.base = body, f.first, f.time
		return Record{}, false
	}
	for r.Volatile && r.chunkVol < len(c.volatile) {
		if rec := r.volatile(); r.Classes.Has(rec.Class) {
			return rec, true
		}
	}
	r.next = max(r.next, c.next)
	r.seq, r.hasSeq = c.seq+1, true
	r.dropChunk()
	return Record{}, false
}

// nextInFile goes to the next frame in the files, or returns a gap.
func (r *Reader) nextInFile() (Record, bool, error) {
	if r.seg == nil {
		if rec, ok := r.enterFile(); ok || r.seg == nil {
			return rec, ok, nil
		}
	}
	s := r.seg
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.retired {
		r.seg = nil // the list has something else for this offset
		return Record{}, false, nil
	}
	if r.pos < 0 {
		r.pos = s.find(r.next)
	}
	if r.next >= s.next() {
		r.dropFile() // done with it; the tail cache may go on from here
		return Record{}, false, nil
	}
	r.win.r, r.win.size = s.file, s.end.Load()
	f, body, err := r.frame(s)
	if err != nil && !errors.Is(err, errInvalid) && !errors.Is(err, io.EOF) {
		return Record{}, false, fmt.Errorf("read segment %q: %w", s.name, err)
	}
	if err != nil {
		return r.damaged(s)
	}
	r.pos = f.next()
	end := f.first + Offset(f.count)
	if f.kind != frameData || end <= r.next {
		return Record{}, false, nil
	}
	if f.first > r.next { // a sound file has no holes
		r.pos = f.pos
		return r.damagedUpTo(s, f.first), true, nil
	}
	if r.Classes != 0 && f.classes&r.Classes == 0 {
		r.next = end
		return Record{}, false, nil
	}
	r.items, r.at, r.base = body, f.first, f.time
	return Record{}, false, nil
}

// enterFile finds the segment for the next offset. If none has it, it returns
// the gap.
func (r *Reader) enterFile() (Record, bool) {
	list := r.j.segments()
	i, _ := slices.BinarySearchFunc(list, r.next, func(s *segment, off Offset) int {
		if s.base <= off {
			return -1
		}
		return 1
	})
	// list[i-1] is the last one that begins at or before next.
	if i > 0 && r.next < list[i-1].next() {
		s := list[i-1]
		if s.sealed.Load() && r.Classes != 0 && (s.classes()|s.gapClasses)&r.Classes == 0 {
			r.next = s.next()
			return Record{}, false
		}
		r.dropFile()
		r.seg, r.pos = s, -1
		r.win.buf = *(readBuffers.Get().(*[]byte))
		return Record{}, false
	}
	to := r.j.Committed()
	if i < len(list) {
		to = list[i].base - 1
	}
	if to < r.next {
		return Record{}, false // the list changed in between: look again
	}
	g := r.j.hole(r.next, to)
	r.next = g.To + 1
	if r.Classes != 0 && g.Classes != 0 && g.Classes&r.Classes == 0 {
		return Record{}, false
	}
	return Record{Offset: g.From, Gap: &g}, true
}

// frame reads the frame at pos.
func (r *Reader) frame(s *segment) (frame, []byte, error) {
	k := walk{w: r.win, salt: s.salt, size: r.win.size}
	f, body, err := k.frame(r.pos)
	r.win = k.w
	return f, body, err
}

// damaged passes over bytes that do not validate below the durable end.
func (r *Reader) damaged(s *segment) (Record, bool, error) {
	k := walk{w: r.win, salt: s.salt, size: r.win.size}
	k.w.lenient = true
	for pos := alignUp(r.pos+1, 8); pos+frameLen <= k.size; pos += 8 {
		b, err := k.w.at(pos, frameLen)
		if err != nil {
			break
		}
		if b[0] != frameMagic&0xff || b[1] != frameMagic>>8 {
			continue
		}
		if f, _, err := k.frame(pos); err == nil && f.kind == frameData && f.first >= r.next {
			r.win, r.pos = k.w, pos
			r.win.lenient = false
			if f.first == r.next {
				return Record{}, false, nil // only state was damaged
			}
			return r.damagedUpTo(s, f.first), true, nil
		}
	}
	r.win = k.w
	r.win.lenient = false
	r.pos = r.win.size
	return r.damagedUpTo(s, s.next()), true, nil
}

// damagedUpTo makes the gap before offset to.
func (r *Reader) damagedUpTo(s *segment, to Offset) Record {
	g := &Gap{From: r.next, To: to - 1, Reason: Damaged}
	r.next = to
	r.j.damage(s.name, fmt.Sprintf("records %d to %d", g.From, g.To))
	return Record{Offset: g.From, Gap: g}
}

// Wait returns nil once Next has something to return, volatile entries
// included if they are wanted, or the error of ctx.
func (r *Reader) Wait(ctx context.Context) error {
	for {
		more := r.j.wake.next()
		if r.ready() {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *Reader) ready() bool {
	return len(r.items) > 0 || r.chunk != nil || r.next <= r.j.Committed() ||
		r.Volatile && r.hasSeq && r.seq < r.j.tail.last()
}

// ReadAt returns the record with the given offset, with a body of its own, or
// the gap that covers it. It returns ErrNotFound for an offset that is not
// committed.
func (j *Journal) ReadAt(off Offset) (Record, error) {
	if off == 0 || off > j.Committed() {
		return Record{}, fmt.Errorf("offset %d: %w", off, ErrNotFound)
	}
	r := j.NewReader(off)
	defer r.Release()
	rec, err := r.Next()
	rec.Body = slices.Clone(rec.Body)
	return rec, err
}
