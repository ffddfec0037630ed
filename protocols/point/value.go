package point

import (
	"bytes"
	"math"
)

// Kind is the type of a [Value].
type Kind uint8

// The kinds of value. The union is closed: no further kind is added without a
// new version of the encoding.
const (
	Null    Kind = iota // no value
	Bool                // true or false
	Int                 // -2^63 to 2^63-1
	Uint                // 2^63 to 2^64-1; smaller ones are Int
	Float32             // IEEE 754 single; printed with the fewest digits that give the same single
	Float               // IEEE 754 double
	String              // UTF-8 text
	Bytes               // raw bytes
)

// A Value holds one value of one kind. The zero value is Null. Values are
// immutable and may be copied freely; Bytes must not be modified.
type Value struct {
	kind Kind
	num  uint64
	raw  []byte
}

// BoolValue returns a Bool.
func BoolValue(b bool) Value {
	if b {
		return Value{kind: Bool, num: 1}
	}
	return Value{kind: Bool}
}

// IntValue returns an Int.
func IntValue(i int64) Value { return Value{kind: Int, num: uint64(i)} }

// UintValue returns an Int when u fits into one, else a Uint.
func UintValue(u uint64) Value {
	if u <= math.MaxInt64 {
		return IntValue(int64(u))
	}
	return Value{kind: Uint, num: u}
}

// Float32Value returns a Float32.
func Float32Value(f float32) Value { return Value{kind: Float32, num: uint64(math.Float32bits(f))} }

// FloatValue returns a Float.
func FloatValue(f float64) Value { return Value{kind: Float, num: math.Float64bits(f)} }

// StringValue returns a String.
func StringValue(s string) Value { return Value{kind: String, raw: []byte(s)} }

// BytesValue returns a Bytes value that keeps b; the caller must not change b.
func BytesValue(b []byte) Value { return Value{kind: Bytes, raw: b} }

// Kind returns the value's kind.
func (v Value) Kind() Kind { return v.kind }

// Bool returns the value of a Bool, else false.
func (v Value) Bool() bool { return v.kind == Bool && v.num == 1 }

// Int returns the value of an Int, else 0.
func (v Value) Int() int64 {
	if v.kind != Int {
		return 0
	}
	return int64(v.num)
}

// Uint returns the value of a Uint or of an Int that is not negative, else 0.
func (v Value) Uint() uint64 {
	if v.kind == Uint || v.kind == Int && int64(v.num) >= 0 {
		return v.num
	}
	return 0
}

// Float returns any numeric value as a double and whether it is numeric; a Bool
// counts as 0 or 1. Integers beyond 2^53 lose precision.
func (v Value) Float() (float64, bool) {
	switch v.kind {
	case Bool:
		return float64(v.num), true
	case Int:
		return float64(int64(v.num)), true
	case Uint:
		return float64(v.num), true
	case Float32:
		return float64(math.Float32frombits(uint32(v.num))), true
	case Float:
		return math.Float64frombits(v.num), true
	}
	return 0, false
}

// Text returns the text of a String, else "".
func (v Value) Text() string {
	if v.kind != String {
		return ""
	}
	return string(v.raw)
}

// Raw returns the bytes of a String or Bytes value. They must not be changed.
func (v Value) Raw() []byte { return v.raw }

// Equal reports whether two values are of the same kind and hold the same bits.
// A NaN equals the same NaN.
func (v Value) Equal(w Value) bool {
	return v.kind == w.kind && v.num == w.num && bytes.Equal(v.raw, w.raw)
}
