package forward

import (
	"encoding/binary"
	"errors"
	"slices"

	"holdfast/hub/journal"
)

// A hole is a record before a position that is not done.
type hole struct {
	off     journal.Offset
	attempt int  // how often it has been sent
	gap     bool // it is a gap message that was counted already
}

// A position says what is done: everything before next except the holes, which
// ascend.
type position struct {
	next  journal.Offset
	holes []hole
}

// low returns the first offset that is not done.
func (p *position) low() journal.Offset {
	if len(p.holes) > 0 {
		return min(p.holes[0].off, p.next)
	}
	return p.next
}

// add inserts a hole in its place.
func (p *position) add(h hole) {
	i, found := slices.BinarySearchFunc(p.holes, h.off, func(a hole, off journal.Offset) int {
		return int(int64(a.off) - int64(off))
	})
	if !found {
		p.holes = slices.Insert(p.holes, i, h)
	}
}

// laneState is what is saved of a lane.
type laneState struct {
	mask    uint16
	main    position
	detours []detourState
}

type detourState struct {
	sender string
	position
}

func (l *laneState) low() journal.Offset {
	low := l.main.low()
	for i := range l.detours {
		low = min(low, l.detours[i].low())
	}
	return low
}

// Limits of a saved state; a state beyond them is damaged.
const (
	stateVersion = 1
	maxDetours   = 1024
	maxHoles     = 1 << 20
)

// appendState appends the encoding of the lanes; see FORMAT.md.
func appendState(dst []byte, epoch uint64, lanes []laneState) []byte {
	dst = append(dst, stateVersion)
	dst = binary.AppendUvarint(dst, epoch)
	dst = binary.AppendUvarint(dst, uint64(len(lanes)))
	for i := range lanes {
		l := &lanes[i]
		dst = binary.AppendUvarint(dst, uint64(l.mask))
		dst = appendPosition(dst, &l.main)
		dst = binary.AppendUvarint(dst, uint64(len(l.detours)))
		for j := range l.detours {
			d := &l.detours[j]
			dst = binary.AppendUvarint(dst, uint64(len(d.sender)))
			dst = append(dst, d.sender...)
			dst = appendPosition(dst, &d.position)
		}
	}
	return dst
}

func appendPosition(dst []byte, p *position) []byte {
	dst = binary.AppendUvarint(dst, uint64(p.next))
	dst = binary.AppendUvarint(dst, uint64(len(p.holes)))
	before := journal.Offset(0)
	for _, h := range p.holes {
		v := uint64(h.off-before) << 1
		if h.gap {
			v |= 1
		}
		dst = binary.AppendUvarint(dst, v)
		before = h.off
	}
	return dst
}

var errState = errors.New("saved position is damaged")

// parseState is the inverse of appendState.
func parseState(b []byte) (epoch uint64, lanes []laneState, err error) {
	if len(b) == 0 || b[0] != stateVersion {
		return 0, nil, errState
	}
	r := stateReader{b: b[1:]}
	epoch = r.uvarint(1<<64 - 1)
	for range r.uvarint(16) {
		l := laneState{mask: uint16(r.uvarint(1<<16 - 1)), main: r.position()}
		for range r.uvarint(maxDetours) {
			sender := r.bytes(int(r.uvarint(1<<16 - 1)))
			l.detours = append(l.detours, detourState{string(sender), r.position()})
		}
		lanes = append(lanes, l)
	}
	if r.bad || len(r.b) > 0 {
		return 0, nil, errState
	}
	return epoch, lanes, nil
}

type stateReader struct {
	b   []byte
	bad bool
}

func (r *stateReader) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most {
		r.bad = true
		r.b = nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *stateReader) bytes(n int) []byte {
	if n > len(r.b) {
		r.bad = true
		r.b = nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *stateReader) position() position {
	p := position{next: journal.Offset(r.uvarint(1<<63 - 1))}
	before := journal.Offset(0)
	for range r.uvarint(maxHoles) {
		v := r.uvarint(1<<63 - 1)
		off := before + journal.Offset(v>>1)
		if off <= before || off >= p.next {
			r.bad = true
		}
		if r.bad {
			break
		}
		p.holes = append(p.holes, hole{off: off, gap: v&1 != 0})
		before = off
	}
	return p
}
