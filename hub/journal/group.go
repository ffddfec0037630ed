package journal

import (
	"slices"
)

// A group is what one write and one sync make durable.
type group struct {
	batches []*Batch
	cursors []*Cursor // saved since the last commit; their values are frozen
	lost    []Gap     // ranges to be remembered
	witness bool      // write a state frame even if it is empty
	bound   int64     // most bytes that encode can need

	chunk  *chunk // holds the bytes, and later serves readers
	frames []frame
	next   Offset // after the last record of the group
	end    int64  // position after the group
}

// lostBound is the most bytes that one lost range takes.
const lostBound = 32

// gather takes the state that is due into the group and sizes its buffer.
func (j *Journal) gather(batches []*Batch) *group {
	g := &group{batches: batches, frames: j.frames[:0]}
	bodies := 0
	for _, b := range batches {
		bodies += b.size
	}
	g.next = j.Committed() + 1
	var states int
	g.cursors, states = j.cursors.take(int(j.o.SegmentBytes / 8))
	g.bound = int64(bodies + states + (bodies+states)/frameBody*(frameLen+8) + 3*(frameLen+8) + lostBound + pageSize)
	g.chunk = j.tail.take(int(g.bound))
	g.chunk.first = g.next
	return g
}

// volatileOnly reports whether the group has nothing to write.
func (g *group) volatileOnly() bool {
	if len(g.cursors) > 0 || len(g.lost) > 0 {
		return false
	}
	for _, b := range g.batches {
		if slices.ContainsFunc(b.Entries, func(e Entry) bool { return !e.Volatile }) {
			return false
		}
	}
	for _, b := range g.batches {
		b.First = 0
		for i := range b.Entries {
			g.chunk.addVolatile(&b.Entries[i], g.next) // all of them are
		}
	}
	g.chunk.next = g.next
	return true
}

// encode lays the group out for position pos of segment a and gives the
// records their offsets.
func (g *group) encode(j *Journal, a *segment, pos int64) {
	w := frameWriter{buf: g.chunk.buf[:0], frames: g.frames, salt: a.salt, pos: pos, durable: pos}
	g.encodeState(&w)
	for _, b := range g.batches {
		b.First = 0
		for i := range b.Entries {
			e := &b.Entries[i]
			if e.Volatile {
				g.chunk.addVolatile(e, g.next)
				continue
			}
			if b.First == 0 {
				b.First = g.next
			}
			w.entry(g.next, e.Class, e.Time, e.Body)
			g.next++
		}
	}
	w.close()
	g.chunk.buf, g.frames, j.frames = w.buf, w.frames, w.frames
	g.chunk.next = g.next
	g.end = pos + int64(len(w.buf))
}

func (g *group) encodeState(w *frameWriter) {
	for _, l := range g.lost {
		w.state(g.next, 0, func(b []byte) []byte { return appendLost(b, l) })
	}
	for _, c := range g.cursors {
		w.state(g.next, 0, c.append)
	}
	if g.witness && !w.open && len(g.batches) == 0 {
		w.state(g.next, 0, func(b []byte) []byte { return b })
	}
	w.close()
}

// pad makes the next group start on a new page.
func (g *group) pad(salt uint64) {
	last := &g.frames[len(g.frames)-1]
	last.flags |= flagPadded
	at := last.pos - g.frames[0].pos
	head := g.chunk.buf[at : at+frameLen]
	last.put(head, salt, g.chunk.buf[at+frameLen:][:last.bodyLen])
	g.end = last.next()
}

// zeroed returns the group's bytes, extended to n with zeroes.
func (g *group) zeroed(n int) []byte {
	have := len(g.chunk.buf)
	buf := slices.Grow(g.chunk.buf, max(0, n-have))[:n]
	if n > have {
		clear(buf[have:])
	}
	g.chunk.buf = buf[:have]
	return buf
}

// A frameWriter packs items into frames.
type frameWriter struct {
	buf     []byte
	frames  []frame
	salt    uint64
	pos     int64 // of buf[0] in the file
	durable int64

	open bool
	cur  frame
	at   int // of cur in buf
}

// begin makes sure that a frame of that kind is open and has room.
func (w *frameWriter) begin(kind, flags uint8, first Offset, time int64) {
	if w.open && (w.cur.kind != kind || len(w.buf)-w.at-frameLen >= frameBody) {
		w.close()
	}
	if !w.open {
		w.at = len(w.buf)
		w.cur = frame{kind: kind, flags: flags, first: first, time: time, durable: w.durable, pos: w.pos + int64(w.at)}
		w.buf = append(w.buf, zeroFrame[:]...)
		w.open = true
	}
}

var zeroFrame [frameLen]byte

func (w *frameWriter) entry(off Offset, class uint8, time int64, body []byte) {
	w.begin(frameData, 0, off, time)
	w.cur.count++
	w.cur.classes |= 1 << class
	w.buf = appendEntry(w.buf, class, time-w.cur.time, body)
}

// gap puts in offsets that are missing, in pieces that a frame can count.
func (w *frameWriter) gap(off Offset, n uint64, r Reason, classes Classes) {
	const most = 1 << 30
	for n > 0 {
		k := min(n, most)
		if w.open && uint64(w.cur.count)+k > most {
			w.close()
		}
		w.begin(frameData, 0, off, 0)
		w.cur.count += int(k)
		w.cur.classes |= classes
		if classes == 0 {
			w.cur.classes = allClasses
		}
		w.buf = appendGap(w.buf, k, r, classes)
		off, n = off+Offset(k), n-k
	}
}

const allClasses Classes = 1<<(MaxClass+1) - 1

func (w *frameWriter) state(next Offset, flags uint8, put func([]byte) []byte) {
	w.begin(frameState, flags, next, 0)
	w.buf = put(w.buf)
}

// close finishes the open frame.
func (w *frameWriter) close() {
	if !w.open {
		return
	}
	w.open = false
	body := w.buf[w.at+frameLen:]
	w.cur.bodyLen = len(body)
	w.cur.put(w.buf[w.at:], w.salt, body)
	w.frames = append(w.frames, w.cur)
	for len(w.buf)%8 != 0 {
		w.buf = append(w.buf, 0)
	}
}
