// Package wire reads OPC UA's binary encoding (OPC 10000-6, 5.2) from bytes that
// are not trusted.
//
// It exists beside the codec of gopcua, which encodes our requests, because a
// field device is foreign: here every length is checked against the bytes that
// are left before anything is allocated, nesting is bounded, and arrays and
// structures stay encoded until somebody asks for them, so that the memory a
// message costs is a small multiple of its size whatever it says. It also costs
// no allocation for each value of a notification.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

// ErrShort says that the bytes ended before the value did.
var ErrShort = errors.New("message ends too early")

// maxDepth bounds how deep variants, structures and diagnostics may be nested.
// OPC 10000-6, 5.1.5 asks decoders for at least 100 levels; nobody sends ten.
const maxDepth = 100

// A Reader reads values one after another. After an error it stays where it is
// and returns zero values.
type Reader struct {
	b     []byte
	pos   int
	depth int
	err   error
}

// NewReader returns a reader of b, which must not change while results are in
// use: byte strings and undecoded values point into it.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// Left returns how many bytes have not been read.
func (r *Reader) Left() int { return len(r.b) - r.pos }

// Fail makes err the reader's error if it has none.
func (r *Reader) Fail(err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("byte %d: %w", r.pos, err)
	}
}

// take returns the next n bytes, nil after an error.
func (r *Reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.b)-r.pos {
		r.Fail(ErrShort)
		return nil
	}
	b := r.b[r.pos : r.pos+n : r.pos+n]
	r.pos += n
	return b
}

// U8 reads a Byte.
func (r *Reader) U8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 reads a UInt16.
func (r *Reader) U16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

// U32 reads a UInt32.
func (r *Reader) U32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// U64 reads a UInt64.
func (r *Reader) U64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// I32 reads an Int32.
func (r *Reader) I32() int32 { return int32(r.U32()) }

// F64 reads a Double.
func (r *Reader) F64() float64 { return math.Float64frombits(r.U64()) }

// Bytes reads a ByteString; null and empty are both nil. The result points into
// the message.
func (r *Reader) Bytes() []byte {
	n := r.I32()
	if n == 0 || n == -1 {
		return nil
	}
	return r.take(int(n)) // a length below -1 fails there
}

// Text reads a String. Bytes that are not UTF-8 become U+FFFD.
func (r *Reader) Text() string {
	b := r.Bytes()
	if !utf8.Valid(b) {
		return string([]rune(string(b)))
	}
	return string(b)
}

// Count reads the length of an array whose elements take at least size bytes
// each. Null counts as none.
func (r *Reader) Count(size int) int {
	n := r.I32()
	if n == -1 || r.err != nil {
		return 0
	}
	if n < 0 || int64(n)*int64(max(size, 1)) > int64(r.Left()) {
		r.Fail(fmt.Errorf("an array of %d: %w", n, ErrShort))
		return 0
	}
	return int(n)
}

// epochTicks is 1970-01-01 in ticks of 100 ns since 1601-01-01.
const epochTicks = 116444736000000000

// Time reads a DateTime. What is 0, and years that no calendar of ours can hold,
// are the zero time (OPC 10000-6, 5.2.2.5).
func (r *Reader) Time() time.Time { return TimeOf(int64(r.U64())) }

// TimeOf converts ticks of 100 ns since 1601.
func TimeOf(ticks int64) time.Time {
	const last = 2650467743990000000 // 9999-12-31T23:59:59, the largest that the specification knows
	if ticks <= 0 || ticks >= last {
		return time.Time{}
	}
	ticks -= epochTicks
	sec, rest := ticks/1e7, ticks%1e7
	return time.Unix(sec, rest*100).UTC()
}

// Ticks converts a time to ticks of 100 ns since 1601, 0 for the zero time.
func Ticks(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()*1e7 + int64(t.Nanosecond()/100) + epochTicks
}

// enter bounds nesting; each call that returns true needs a leave.
func (r *Reader) enter() bool {
	if r.depth >= maxDepth {
		r.Fail(fmt.Errorf("nested deeper than %d", maxDepth))
		return false
	}
	r.depth++
	return true
}

func (r *Reader) leave() { r.depth-- }
