package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"holdfast/protocols/point"
)

var (
	errType  = errors.New("wrong kind of value")
	errRange = errors.New("value out of range")
	errBCD   = errors.New("not a BCD number")
)

// load gathers the registers at b, most significant first on return.
func (o order) load(b []byte, words int) uint64 {
	var v uint64
	for i := range words {
		at := i
		if o.words {
			at = words - 1 - i
		}
		v = v<<16 | uint64(o.word(b[2*at:]))
	}
	return v
}

func (o order) word(b []byte) uint16 {
	if o.bytes {
		return binary.LittleEndian.Uint16(b)
	}
	return binary.BigEndian.Uint16(b)
}

// store is the inverse of load.
func (o order) store(b []byte, words int, v uint64) {
	for i := words - 1; i >= 0; i-- {
		at := i
		if o.words {
			at = words - 1 - i
		}
		if o.bytes {
			binary.LittleEndian.PutUint16(b[2*at:], uint16(v))
		} else {
			binary.BigEndian.PutUint16(b[2*at:], uint16(v))
		}
		v >>= 16
	}
}

// decodeNumber turns the registers at b into a value. It is not used for text
// and for bits of coils.
func (f *field) decodeNumber(b []byte) (point.Value, error) {
	switch f.typ.kind {
	case kindUint16:
		return point.IntValue(int64(f.order.word(b))), nil
	case kindInt16:
		return point.IntValue(int64(int16(f.order.word(b)))), nil
	case kindBool:
		return point.BoolValue(f.order.word(b)>>uint(f.addr.Bit)&1 == 1), nil
	case kindInt8High:
		return point.IntValue(int64(int8(f.order.word(b) >> 8))), nil
	case kindUint8High:
		return point.IntValue(int64(f.order.word(b) >> 8)), nil
	case kindInt8Low:
		return point.IntValue(int64(int8(f.order.word(b)))), nil
	case kindUint8Low:
		return point.IntValue(int64(uint8(f.order.word(b)))), nil
	}
	v := f.order.load(b, f.typ.words)
	switch f.typ.kind {
	case kindInt32:
		return point.IntValue(int64(int32(v))), nil
	case kindUint32:
		return point.IntValue(int64(v)), nil
	case kindInt64:
		return point.IntValue(int64(v)), nil
	case kindUint64:
		return point.UintValue(v), nil
	case kindFloat32:
		return point.Float32Value(math.Float32frombits(uint32(v))), nil
	case kindFloat64:
		return point.FloatValue(math.Float64frombits(v)), nil
	case kindFloat16:
		return point.Float32Value(halfToSingle(uint16(v))), nil
	}
	n, ok := fromBCD(v, 4*f.typ.words)
	if !ok {
		return point.Value{}, fmt.Errorf("%#0*x: %w", 4*f.typ.words, v, errBCD)
	}
	return point.IntValue(n), nil
}

// nearest rounds a raw value that was computed with a scale to the nearest whole
// number, as integer registers need it: 20.04 under a factor of 0.1 is raw 200.
// Halves go away from zero. A value that was given as it is to be written is not
// rounded: there a fraction is a mistake.
func (f *field) nearest(v point.Value, s point.Scale) point.Value {
	x, ok := v.Float()
	if s.Identity() || !ok || v.Kind() != point.Float && v.Kind() != point.Float32 {
		return v
	}
	switch f.typ.kind {
	case kindFloat16, kindFloat32, kindFloat64, kindString, kindBytes:
		return v
	}
	return point.FloatValue(math.Round(x))
}

// encode turns a value into the registers that hold it, or for a kind that is
// part of a register into the bits to set and the mask of the bits it owns.
func (f *field) encode(v point.Value, into []byte) error {
	words := f.typ.words
	switch f.typ.kind {
	case kindString, kindBytes:
		return f.encodeText(v, into)
	case kindFloat16, kindFloat32, kindFloat64:
		bits, err := f.encodeFloat(v)
		if err != nil {
			return err
		}
		f.order.store(into, words, bits)
		return nil
	}
	low, high := f.typ.kind.limits()
	if f.typ.kind == kindUint64 {
		u, err := asUint64(v)
		if err != nil {
			return err
		}
		f.order.store(into, words, u)
		return nil
	}
	n, err := asInt(v)
	if err != nil {
		return err
	}
	if n < low || n > high {
		return fmt.Errorf("%d is not in %d to %d: %w", n, low, high, errRange)
	}
	bits := uint64(n)
	if f.typ.kind == kindBCD16 || f.typ.kind == kindBCD32 {
		bits = toBCD(n)
	}
	f.order.store(into, words, bits)
	return nil
}

func (f *field) encodeFloat(v point.Value) (uint64, error) {
	x, ok := v.Float()
	if !ok || v.Kind() == point.Bool {
		return 0, errType
	}
	finite := !math.IsInf(x, 0) && !math.IsNaN(x)
	switch f.typ.kind {
	case kindFloat64:
		return math.Float64bits(x), nil
	case kindFloat32:
		s := float32(x)
		if finite && math.IsInf(float64(s), 0) {
			return 0, fmt.Errorf("%g does not fit into a float32: %w", x, errRange)
		}
		return uint64(math.Float32bits(s)), nil
	}
	h := singleToHalf(float32(x))
	if finite && h&0x7fff >= 0x7c00 {
		return 0, fmt.Errorf("%g does not fit into a float16: %w", x, errRange)
	}
	return uint64(h), nil
}

// encodeText fills what the value leaves free with zeros.
func (f *field) encodeText(v point.Value, into []byte) error {
	if v.Kind() != point.String && v.Kind() != point.Bytes {
		return errType
	}
	raw := v.Raw()
	if len(raw) > f.typ.bytes {
		return fmt.Errorf("%d bytes do not fit into %d: %w", len(raw), f.typ.bytes, errRange)
	}
	clear(into[copy(into, raw):])
	if f.order.bytes {
		swapPairs(into)
	}
	return nil
}

// decodeText returns the value of a string or bytes field. Text ends at the
// first zero byte; bytes that are not UTF-8 become U+FFFD.
func (f *field) decodeText(b []byte) point.Value {
	raw := append([]byte(nil), b[:2*f.typ.words]...)
	if f.order.bytes {
		swapPairs(raw)
	}
	raw = raw[:f.typ.bytes]
	if f.typ.kind == kindBytes {
		return point.BytesValue(raw)
	}
	text := string(raw)
	if i := strings.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	return point.StringValue(strings.ToValidUTF8(text, "\uFFFD"))
}

func swapPairs(b []byte) {
	for i := 0; i+1 < len(b); i += 2 {
		b[i], b[i+1] = b[i+1], b[i]
	}
}

// limits returns the range of an integer kind.
func (k kind) limits() (low, high int64) {
	switch k {
	case kindBool:
		return 0, 1
	case kindInt8High, kindInt8Low:
		return math.MinInt8, math.MaxInt8
	case kindUint8High, kindUint8Low:
		return 0, math.MaxUint8
	case kindInt16:
		return math.MinInt16, math.MaxInt16
	case kindUint16:
		return 0, math.MaxUint16
	case kindInt32:
		return math.MinInt32, math.MaxInt32
	case kindUint32:
		return 0, math.MaxUint32
	case kindBCD16:
		return 0, 9999
	case kindBCD32:
		return 0, 99999999
	}
	return math.MinInt64, math.MaxInt64
}

// asInt accepts any number that is whole, and a bool as 0 or 1.
func asInt(v point.Value) (int64, error) {
	switch v.Kind() {
	case point.Int:
		return v.Int(), nil
	case point.Uint:
		return 0, fmt.Errorf("%d: %w", v.Uint(), errRange)
	case point.Bool, point.Float32, point.Float:
		x, _ := v.Float()
		if x != math.Trunc(x) { // also true of NaN
			return 0, fmt.Errorf("%g is not a whole number: %w", x, errRange)
		}
		if x < -(1<<63) || x >= 1<<63 {
			return 0, fmt.Errorf("%g: %w", x, errRange)
		}
		return int64(x), nil
	}
	return 0, errType
}

func asUint64(v point.Value) (uint64, error) {
	if v.Kind() == point.Uint {
		return v.Uint(), nil
	}
	if x, ok := v.Float(); ok && v.Kind() != point.Int && x >= 1<<63 && x < 1<<64 {
		return uint64(x), nil // every double this large is whole
	}
	n, err := asInt(v)
	if err == nil && n < 0 {
		err = fmt.Errorf("%d is negative: %w", n, errRange)
	}
	return uint64(n), err
}

// fromBCD reads digits decimal digits, four bits each.
func fromBCD(v uint64, digits int) (int64, bool) {
	var n int64
	for i := digits - 1; i >= 0; i-- {
		d := v >> (4 * i) & 15
		if d > 9 {
			return 0, false
		}
		n = n*10 + int64(d)
	}
	return n, true
}

func toBCD(n int64) uint64 {
	var v uint64
	for i := 0; n > 0; i++ {
		v |= uint64(n%10) << (4 * i)
		n /= 10
	}
	return v
}

// halfToSingle converts IEEE 754 binary16 to binary32, exactly.
func halfToSingle(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp, frac := uint32(h>>10)&31, uint32(h)&0x3ff
	switch {
	case exp == 31:
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	case exp == 0:
		f := float32(frac) / (1 << 24) // subnormal: frac * 2^-24
		if sign != 0 {
			f = float32(math.Copysign(float64(f), -1))
		}
		return f
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// singleToHalf converts binary32 to binary16, rounding to nearest, ties to even.
func singleToHalf(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	exp, frac := int(bits>>23&0xff), bits&0x7fffff
	switch {
	case exp == 0xff && frac != 0:
		return sign | 0x7e00
	case exp > 142: // 2^16 and more, infinity included
		return sign | 0x7c00
	case exp < 102: // below half of the smallest subnormal
		return sign
	case exp < 113: // subnormal
		frac |= 1 << 23
		return sign + uint16(roundShift(frac, uint(126-exp)))
	}
	return sign + uint16(roundShift(uint32(exp-112)<<23|frac, 13))
}

func roundShift(v uint32, n uint) uint32 {
	half := uint32(1) << (n - 1)
	r := v >> n
	if rest := v & (1<<n - 1); rest > half || rest == half && r&1 == 1 {
		r++
	}
	return r
}
