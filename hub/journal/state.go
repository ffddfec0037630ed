package journal

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// State is what the journal keeps beside records: the cursors and the ranges
// that are gone. It travels in the log itself, in state frames, so that saving
// a cursor costs a few bytes of the next group and no sync of its own. Each
// segment begins with a whole snapshot; only the last one is read at Open.

// Kinds of items in a state frame.
const (
	stateCursor = 1 // name, low, state
	stateDelete = 2 // name
	stateLost   = 3 // from, to, reason, classes
)

// maxName is the longest name of a cursor in bytes.
const maxName = 255

func appendCursor(b []byte, name string, low Offset, state []byte) []byte {
	b = append(b, stateCursor, byte(len(name)))
	b = append(b, name...)
	b = binary.AppendUvarint(b, uint64(low))
	b = binary.AppendUvarint(b, uint64(len(state)))
	return append(b, state...)
}

func appendDelete(b []byte, name string) []byte {
	b = append(b, stateDelete, byte(len(name)))
	return append(b, name...)
}

func appendLost(b []byte, g Gap) []byte {
	b = append(b, stateLost, byte(g.Reason))
	b = binary.AppendUvarint(b, uint64(g.From))
	b = binary.AppendUvarint(b, uint64(g.To))
	return binary.LittleEndian.AppendUint16(b, uint16(g.Classes))
}

// savedCursor is a cursor as read from state frames.
type savedCursor struct {
	low   Offset
	state []byte
}

// state is the sum of the state frames read so far.
type state struct {
	cursors map[string]savedCursor
	lost    lostRanges
	whole   bool // a whole snapshot was among them
	partial bool // a snapshot began and has not ended
}

// apply takes one state frame in. Bytes are copied.
func (s *state) apply(flags uint8, b []byte) error {
	if flags&flagReset != 0 {
		s.cursors, s.lost, s.whole, s.partial = map[string]savedCursor{}, nil, false, true
	}
	if s.cursors == nil {
		s.cursors = map[string]savedCursor{}
	}
	for len(b) > 0 {
		var err error
		if b, err = s.item(b); err != nil {
			return err
		}
	}
	if flags&flagWhole != 0 && s.partial {
		s.whole, s.partial = true, false
	}
	return nil
}

func (s *state) item(b []byte) ([]byte, error) {
	if len(b) < 2 {
		return nil, errInvalid
	}
	kind, n := b[0], int(b[1])
	b = b[2:]
	if kind == stateLost {
		from, b, ok1 := cutUvarint(b)
		to, b, ok2 := cutUvarint(b)
		if !ok1 || !ok2 || len(b) < 2 || from == 0 || to < from {
			return nil, fmt.Errorf("lost range: %w", errInvalid)
		}
		s.lost = s.lost.add(Gap{From: Offset(from), To: Offset(to), Reason: Reason(n), Classes: Classes(binary.LittleEndian.Uint16(b))})
		return b[2:], nil
	}
	if len(b) < n {
		return nil, fmt.Errorf("cursor name: %w", errInvalid)
	}
	name := string(b[:n])
	b = b[n:]
	switch kind {
	case stateDelete:
		delete(s.cursors, name)
		return b, nil
	case stateCursor:
		low, b, ok1 := cutUvarint(b)
		size, b, ok2 := cutUvarint(b)
		if !ok1 || !ok2 || size > uint64(len(b)) {
			return nil, fmt.Errorf("cursor %q: %w", name, errInvalid)
		}
		s.cursors[name] = savedCursor{Offset(low), slices.Clone(b[:size])}
		return b[size:], nil
	}
	return nil, fmt.Errorf("state item %d: %w", kind, errInvalid)
}

func cutUvarint(b []byte) (uint64, []byte, bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 {
		return 0, nil, false
	}
	return n, b[w:], true
}

// lostRanges are ranges of offsets of which no segment knows anything, in
// order, not touching unless their reasons differ.
type lostRanges []Gap

// maxLost bounds the list. Overflow rule: the two oldest become one.
const maxLost = 1024

// add puts a range in, cutting what is already known off it.
func (l lostRanges) add(g Gap) lostRanges {
	out := make(lostRanges, 0, len(l)+1)
	put := func(g Gap) {
		if n := len(out); n > 0 && out[n-1].To+1 == g.From && out[n-1].Reason == g.Reason {
			out[n-1].To = g.To
			if out[n-1].Classes == 0 || g.Classes == 0 {
				out[n-1].Classes = 0
			} else {
				out[n-1].Classes |= g.Classes
			}
			return
		}
		out = append(out, g)
	}
	open := true // some of g is still to be placed
	for _, k := range l {
		if open && g.From < k.From {
			part := g
			part.To = min(g.To, k.From-1)
			put(part)
		}
		put(k)
		if open && g.From <= k.To {
			open = g.To > k.To
			g.From = k.To + 1
		}
	}
	if open {
		put(g)
	}
	for len(out) > maxLost {
		out[1].From, out[1].Classes = out[0].From, 0
		out = out[1:]
	}
	return out
}

// forget makes one consumed range of everything up to and including low, where
// no cursor will look again.
func (l lostRanges) forget(low Offset) lostRanges {
	n := 0
	for n < len(l) && l[n].To <= low && (n == 0 || l[n-1].To+1 == l[n].From) {
		n++
	}
	if n < 2 && (n == 0 || l[0].Reason == Consumed) {
		return l
	}
	out := lostRanges{{From: l[0].From, To: l[n-1].To, Reason: Consumed}}
	for _, g := range l[n:] {
		out = out.add(g)
	}
	return out
}

// at returns the part of the list that explains the hole from..to: the first
// range in it, cut to the hole. Without one the whole hole is Missing.
func (l lostRanges) at(from, to Offset) Gap {
	for _, g := range l {
		if g.To < from {
			continue
		}
		if g.From > to {
			break
		}
		if g.From > from { // unexplained before it
			return Gap{From: from, To: g.From - 1, Reason: Missing}
		}
		g.From, g.To = from, min(g.To, to)
		return g
	}
	return Gap{From: from, To: to, Reason: Missing}
}
