package journal

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"holdfast/drivers/disk"
)

const (
	minSegmentBytes = 64 << 10
	maxSegmentBytes = 1 << 30
	segSuffix       = ".seg"
)

func segName(id uint64) string { return fmt.Sprintf("%016x%s", id, segSuffix) }

// A segment is one file of the log. The committer owns it; readers use what is
// atomic, and the file under mu.
type segment struct {
	segHeader
	name string
	size int64 // of the file

	// mu is held for reading while a reader uses file, and for writing by
	// retire. After retire the file may belong to another segment or nobody.
	mu      sync.RWMutex
	file    disk.File
	retired bool

	end    atomic.Int64  // durable bytes: readers stay below
	nextOf atomic.Uint64 // offset after the last durable record
	index  atomic.Pointer[[]indexEntry]
	sealed atomic.Bool // stats and seal are final; the index is in the file

	// The rest belongs to the committer until sealed.
	seal
	filled  int64 // bytes up to here were written before, so that overwriting them is cheap
	indexed int64 // position of the newest entry of index
	bad     bool  // never write to this file again
	past    int64 // end of what a failed group left behind end; the index goes there
}

func (s *segment) next() Offset { return Offset(s.nextOf.Load()) }

// retire makes readers let go of the file and returns it.
func (s *segment) retire() disk.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
	return s.file
}

// markSealed publishes that the seal and the index are in the file.
func (s *segment) markSealed() {
	s.sealed.Store(true)
	s.index.Store(nil)
}

// addIndex notes a data frame that is about to become durable.
func (s *segment) addIndex(f frame) {
	if f.pos < s.indexed+indexEvery && s.indexed != 0 {
		return
	}
	s.indexed = f.pos
	var index []indexEntry
	if p := s.index.Load(); p != nil {
		index = *p
	}
	index = append(index, indexEntry{f.first, f.pos}) // readers see the old length
	s.index.Store(&index)
}

// find returns the position of a frame at or before the one that holds off.
// The caller holds mu for reading.
func (s *segment) find(off Offset) int64 {
	if p := s.index.Load(); p != nil {
		return findEntry(*p, off)
	}
	if !s.sealed.Load() || s.indexPos == 0 {
		return dataPos
	}
	w := window{r: s.file, size: s.size}
	head, err := w.at(s.indexPos, frameLen)
	if err != nil {
		return dataPos
	}
	f, err := parseFrame(head, s.salt, s.indexPos, s.size)
	if err != nil || f.kind != frameIndex {
		return dataPos // slower, not wrong
	}
	body, err := w.at(s.indexPos+frameLen, f.bodyLen)
	if err != nil || !f.bodyValid(body, s.salt) {
		return dataPos
	}
	if pos := findIndex(body, off); pos >= dataPos && pos < s.indexPos {
		return pos
	}
	return dataPos
}

func findEntry(index []indexEntry, off Offset) int64 {
	lo, hi := 0, len(index)
	for lo < hi {
		mid := (lo + hi) / 2
		if index[mid].first <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return dataPos
	}
	return index[lo-1].pos
}

// A window reads a file in large pieces and hands out slices of them.
type window struct {
	r     io.ReaderAt
	size  int64 // bytes of the file that may be looked at
	buf   []byte
	start int64
	n     int
	// lenient makes what the medium cannot read zeroes, page by page, and
	// counts it, instead of failing.
	lenient    bool
	unreadable int
}

// windowBytes is how much a window reads at a time.
const windowBytes = 64 << 10

// at returns n bytes at pos, valid until the next call. Beyond size it fails
// with io.EOF.
func (w *window) at(pos int64, n int) ([]byte, error) {
	if pos < 0 || n < 0 || pos+int64(n) > w.size {
		return nil, io.EOF
	}
	if pos >= w.start && pos+int64(n) <= w.start+int64(w.n) {
		return w.buf[pos-w.start:][:n], nil
	}
	if n > cap(w.buf) {
		w.buf = make([]byte, max(n, windowBytes))
	}
	w.buf = w.buf[:cap(w.buf)]
	w.start, w.n = pos, 0
	want := int(min(int64(len(w.buf)), w.size-pos))
	got, err := w.r.ReadAt(w.buf[:want], pos)
	if err != nil && got < n {
		if !w.lenient {
			return nil, err
		}
		got = w.pages(pos, want)
	}
	w.n = got
	return w.buf[:n], nil
}

// pages reads what can be read in single pages.
func (w *window) pages(pos int64, want int) int {
	for at := 0; at < want; {
		n := min(want-at, int(alignUp(pos+int64(at)+1, pageSize)-pos)-at)
		if got, err := w.r.ReadAt(w.buf[at:at+n], pos+int64(at)); err != nil && got < n {
			clear(w.buf[at+max(got, 0) : at+n])
			if err != io.EOF {
				w.unreadable++
			}
		}
		at += n
	}
	return want
}

// A walk visits every valid frame of a segment file in order and tells apart
// what was torn by a power cut from what was damaged afterwards.
//
// The rule: a group is written only after the one before it was synced, and
// every frame says up to which position the file was durable when it was
// written. Bytes that do not validate, with a valid frame behind them that
// calls them durable, are damage. Without such a witness they are the tail
// that the power cut tore, or space never written.
type walk struct {
	w    window
	salt uint64
	size int64 // of the file

	onFrame  func(f frame, body []byte) error
	onDamage func(from, to int64, next Offset) error // bytes; next is the first offset after them

	end     int64   // after the walk: position after the last frame that counts
	torn    []int64 // after the walk: positions of valid frames behind end, never durable
	durable int64   // after the walk: what the frames say was synced for certain
}

// run walks from a position to the end of the file.
func (k *walk) run(pos int64) error {
	k.w.size, k.w.lenient = k.size, true
	for {
		f, body, err := k.frame(pos)
		if err != nil {
			k.end = pos
			found, err := k.witness(pos)
			if err != nil {
				return err
			}
			if found.pos == 0 {
				return nil
			}
			if err := k.onDamage(pos, found.pos, found.first); err != nil {
				return err
			}
			k.torn = nil
			pos = found.pos
			continue
		}
		if err := k.onFrame(f, body); err != nil {
			return err
		}
		k.durable = max(k.durable, f.durable)
		pos = f.next()
	}
}

// frame reads and checks the frame at pos.
func (k *walk) frame(pos int64) (frame, []byte, error) {
	head, err := k.w.at(pos, frameLen)
	if err != nil {
		return frame{}, nil, err
	}
	f, err := parseFrame(head, k.salt, pos, k.size)
	if err != nil {
		return frame{}, nil, err
	}
	whole, err := k.w.at(pos, frameLen+f.bodyLen)
	if err != nil {
		return frame{}, nil, err
	}
	if !f.bodyValid(whole[frameLen:], k.salt) {
		return frame{}, nil, errInvalid
	}
	return f, whole[frameLen:], nil
}

// witness looks behind bad for a frame that calls bad durable, and collects the
// frames that do not. It returns a zero frame if there is none.
func (k *walk) witness(bad int64) (frame, error) {
	for pos := alignUp(bad+1, 8); pos+frameLen <= k.size; pos += 8 {
		b, err := k.w.at(pos, frameLen)
		if err != nil {
			return frame{}, err
		}
		if b[0] != frameMagic&0xff || b[1] != frameMagic>>8 {
			continue
		}
		f, err := parseFrame(b, k.salt, pos, k.size)
		if err != nil {
			continue
		}
		if f.durable > bad {
			return f, nil
		}
		k.torn = append(k.torn, pos)
	}
	return frame{}, nil
}
