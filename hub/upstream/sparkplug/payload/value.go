package payload

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// A Datatype is the number of a type in Sparkplug (specification 3.0.0, 6.4.16).
type Datatype uint32

// The datatypes of metrics and properties. Arrays (22 to 34) are little-endian
// bytes; this package carries them as such.
const (
	Unknown         Datatype = 0
	Int8            Datatype = 1
	Int16           Datatype = 2
	Int32           Datatype = 3
	Int64           Datatype = 4
	UInt8           Datatype = 5
	UInt16          Datatype = 6
	UInt32          Datatype = 7
	UInt64          Datatype = 8
	Float           Datatype = 9
	Double          Datatype = 10
	Boolean         Datatype = 11
	String          Datatype = 12
	DateTime        Datatype = 13
	Text            Datatype = 14
	UUID            Datatype = 15
	DataSet         Datatype = 16
	Bytes           Datatype = 17
	File            Datatype = 18
	Template        Datatype = 19
	PropertySet     Datatype = 20
	PropertySetList Datatype = 21
	firstArray      Datatype = 22
	lastArray       Datatype = 34
)

// Valid reports whether d is one of the numbers that the specification knows,
// Unknown apart.
func (d Datatype) Valid() bool { return d >= Int8 && d <= lastArray }

// Scalar reports whether Encode can make values of d.
func (d Datatype) Scalar() bool { return d >= Int8 && d <= UUID || d == Bytes || d == File }

// Integer reports whether values of d are whole numbers.
func (d Datatype) Integer() bool { return d >= Int8 && d <= UInt64 || d == DateTime }

// Kind is what a [Value] holds.
type Kind uint8

// The kinds of value.
const (
	NullKind Kind = iota // no value: is_null on the wire
	BoolKind
	IntKind    // -2^63 to 2^63-1
	UintKind   // 2^63 to 2^64-1; smaller ones are IntKind
	FloatKind  // single precision
	DoubleKind // double precision
	StringKind // UTF-8 text
	BytesKind
)

// A Value is one value, independent of the datatype that it travels as. The zero
// value is null. Values are immutable: the bytes of a BytesValue must not change.
type Value struct {
	kind Kind
	num  uint64
	raw  []byte
}

// BoolValue returns a truth value.
func BoolValue(b bool) Value {
	if b {
		return Value{kind: BoolKind, num: 1}
	}
	return Value{kind: BoolKind}
}

// IntValue returns a whole number.
func IntValue(i int64) Value { return Value{kind: IntKind, num: uint64(i)} }

// UintValue returns a whole number.
func UintValue(u uint64) Value {
	if u <= math.MaxInt64 {
		return IntValue(int64(u))
	}
	return Value{kind: UintKind, num: u}
}

// FloatValue returns a number of single precision.
func FloatValue(f float32) Value { return Value{kind: FloatKind, num: uint64(math.Float32bits(f))} }

// DoubleValue returns a number of double precision.
func DoubleValue(f float64) Value { return Value{kind: DoubleKind, num: math.Float64bits(f)} }

// StringValue returns a text.
func StringValue(s string) Value { return Value{kind: StringKind, raw: []byte(s)} }

// BytesValue returns bytes, which it keeps.
func BytesValue(b []byte) Value { return Value{kind: BytesKind, raw: b} }

// Kind returns what v holds.
func (v Value) Kind() Kind { return v.kind }

// Bool returns the truth value of a BoolKind, else false.
func (v Value) Bool() bool { return v.kind == BoolKind && v.num == 1 }

// Int returns the number of an IntKind, else 0.
func (v Value) Int() int64 {
	if v.kind != IntKind {
		return 0
	}
	return int64(v.num)
}

// Uint returns the number of a UintKind or of an IntKind that is not negative,
// else 0.
func (v Value) Uint() uint64 {
	if v.kind == UintKind || v.kind == IntKind && int64(v.num) >= 0 {
		return v.num
	}
	return 0
}

// Double returns any number, and a truth value as 0 or 1, in double precision,
// and whether v is one. Whole numbers beyond 2^53 lose precision.
func (v Value) Double() (float64, bool) {
	switch v.kind {
	case BoolKind, UintKind:
		return float64(v.num), true
	case IntKind:
		return float64(int64(v.num)), true
	case FloatKind:
		return float64(math.Float32frombits(uint32(v.num))), true
	case DoubleKind:
		return math.Float64frombits(v.num), true
	}
	return 0, false
}

// Raw returns the bytes of a text or of bytes. They must not be changed.
func (v Value) Raw() []byte { return v.raw }

// Equal reports whether both hold the same bits of the same kind.
func (v Value) Equal(w Value) bool {
	return v.kind == w.kind && v.num == w.num && bytes.Equal(v.raw, w.raw)
}

// String returns v for people and for metrics that are texts: bytes in base64,
// null as "null".
func (v Value) String() string {
	switch v.kind {
	case BoolKind:
		return strconv.FormatBool(v.num == 1)
	case IntKind:
		return strconv.FormatInt(int64(v.num), 10)
	case UintKind:
		return strconv.FormatUint(v.num, 10)
	case FloatKind:
		return strconv.FormatFloat(float64(math.Float32frombits(uint32(v.num))), 'g', -1, 32)
	case DoubleKind:
		return strconv.FormatFloat(math.Float64frombits(v.num), 'g', -1, 64)
	case StringKind:
		return string(v.raw)
	case BytesKind:
		return base64.StdEncoding.EncodeToString(v.raw)
	}
	return "null"
}

// Natural returns the datatype that holds every value of v's kind, Unknown for
// null.
func (v Value) Natural() Datatype {
	return [...]Datatype{Unknown, Boolean, Int64, UInt64, Float, Double, String, Bytes}[v.kind]
}

// Join returns a datatype that can hold what d holds and v too. A series of
// joins ends: from truth values over whole numbers and doubles to texts, and
// from anything to bytes. Whole numbers beyond 2^53 become the nearest double
// when they are joined with other numbers. Null joins with everything.
func (d Datatype) Join(v Value) Datatype {
	n := v.Natural()
	if n == Unknown {
		return d
	}
	if d == Unknown {
		return n
	}
	if _, err := Encode(d, v); err == nil {
		return d
	}
	switch {
	case n == Bytes || d == Bytes || d == File || d >= firstArray || d >= DataSet:
		return Bytes
	case n == String || d == String || d == Text || d == UUID:
		return String
	case d.Integer() && n == Int64 && d != UInt64, d == Boolean && n == Int64:
		return Int64
	case d.Integer() && n == UInt64 && d >= UInt8, d == Boolean && n == UInt64:
		return UInt64
	case n == Boolean:
		return d // 0 and 1 fit every number, so this is not reached
	}
	return Double
}

// A Field is a member of the value union of a metric or a property.
type Field uint8

// The members, in the order of their field numbers in both unions.
const (
	NoField Field = iota
	IntField
	LongField
	FloatField
	DoubleField
	BoolField
	StringField
	BytesField // metrics only
	OtherField // a data set, a template, a property set or an extension: known to be there, not looked into
)

// A Scalar is a value as it stands on the wire.
type Scalar struct {
	Field Field
	Bits  uint64 // of all but texts and bytes
	Raw   []byte // of texts and bytes
}

// ErrType is wrapped by errors about a value that a datatype cannot hold.
var ErrType = errors.New("value does not fit the datatype")

func misfit(d Datatype, v Value) error {
	return fmt.Errorf("%w: %.40q as datatype %d", ErrType, v.String(), d)
}

// Encode returns v as datatype d travels (specification 3.0.0, 6.4.16): whole
// numbers of up to 32 bits as int_value, sign extended, larger ones and times as
// long_value. A number goes into Float and Double even when it loses precision,
// and a truth value into every number; everything goes into texts. Null has no
// encoding: its Scalar has NoField, which is is_null.
func Encode(d Datatype, v Value) (Scalar, error) {
	if v.kind == NullKind {
		return Scalar{}, nil
	}
	if d.Integer() {
		return encodeInteger(d, v)
	}
	switch d {
	case Boolean:
		if v.kind == BoolKind {
			return Scalar{Field: BoolField, Bits: v.num}, nil
		}
	case Float, Double:
		f, ok := v.Double()
		if !ok {
			break
		}
		if d == Double {
			return Scalar{Field: DoubleField, Bits: math.Float64bits(f)}, nil
		}
		if v.kind == FloatKind {
			return Scalar{Field: FloatField, Bits: v.num}, nil
		}
		return Scalar{Field: FloatField, Bits: uint64(math.Float32bits(float32(f)))}, nil
	case String, Text, UUID:
		if v.kind == StringKind {
			return Scalar{Field: StringField, Raw: v.raw}, nil
		}
		if v.kind != BytesKind {
			return Scalar{Field: StringField, Raw: []byte(v.String())}, nil
		}
	case Bytes, File:
		if v.kind == BytesKind || v.kind == StringKind {
			return Scalar{Field: BytesField, Raw: v.raw}, nil
		}
		return Scalar{Field: BytesField, Raw: []byte(v.String())}, nil
	}
	return Scalar{}, misfit(d, v)
}

// bounds returns the least and the most of a datatype of whole numbers.
func (d Datatype) bounds() (least int64, most uint64) {
	switch d {
	case Int8:
		return math.MinInt8, math.MaxInt8
	case Int16:
		return math.MinInt16, math.MaxInt16
	case Int32:
		return math.MinInt32, math.MaxInt32
	case Int64:
		return math.MinInt64, math.MaxInt64
	case UInt8:
		return 0, math.MaxUint8
	case UInt16:
		return 0, math.MaxUint16
	case UInt32:
		return 0, math.MaxUint32
	}
	return 0, math.MaxUint64
}

func encodeInteger(d Datatype, v Value) (Scalar, error) {
	least, most := d.bounds()
	switch {
	case v.kind == BoolKind:
	case v.kind == IntKind && int64(v.num) < 0 && int64(v.num) >= least:
	case (v.kind == IntKind && int64(v.num) >= 0 || v.kind == UintKind) && v.num <= most:
	default:
		return Scalar{}, misfit(d, v)
	}
	if d == Int64 || d == UInt64 || d == DateTime {
		return Scalar{Field: LongField, Bits: v.num}, nil
	}
	return Scalar{Field: IntField, Bits: uint64(uint32(v.num))}, nil
}

// Decode returns the value of s as datatype d says. It takes what other
// implementations write: small whole numbers as long_value, and negative ones
// that are not sign extended. NoField is null.
func (s Scalar) Decode(d Datatype) (Value, error) {
	var v Value
	switch {
	case s.Field == NoField:
		return Value{}, nil
	case d.Integer() && (s.Field == IntField || s.Field == LongField):
		return s.integer(d)
	case d == Boolean && s.Field == BoolField:
		return BoolValue(s.Bits != 0), nil
	case (d == Float || d == Double) && s.number(&v):
		return v, nil
	case (d == String || d == Text || d == UUID) && s.Field == StringField && utf8.Valid(s.Raw):
		return Value{kind: StringKind, raw: s.Raw}, nil
	case (d == Bytes || d == File || d >= firstArray && d <= lastArray) && s.Field == BytesField:
		return BytesValue(s.Raw), nil
	}
	return Value{}, fmt.Errorf("%w: member %d as datatype %d", ErrType, s.Field, d)
}

// number takes any number where a Float or a Double is wanted.
func (s Scalar) number(v *Value) bool {
	switch s.Field {
	case FloatField:
		*v = FloatValue(math.Float32frombits(uint32(s.Bits)))
	case DoubleField:
		*v = DoubleValue(math.Float64frombits(s.Bits))
	case IntField:
		*v = DoubleValue(float64(int32(s.Bits)))
	case LongField:
		*v = DoubleValue(float64(int64(s.Bits)))
	default:
		return false
	}
	return true
}

func (s Scalar) integer(d Datatype) (Value, error) {
	v := UintValue(s.Bits)
	switch {
	case d == Int64 || d <= Int32 && s.Field == LongField:
		v = IntValue(int64(s.Bits))
	case d <= Int32:
		v = IntValue(int64(int32(s.Bits)))
		if _, most := d.bounds(); v.Int() > int64(most) { // 0xFF for -1 in eight bits
			switch {
			case d == Int8 && s.Bits <= math.MaxUint8:
				v = IntValue(int64(int8(s.Bits)))
			case d == Int16 && s.Bits <= math.MaxUint16:
				v = IntValue(int64(int16(s.Bits)))
			}
		}
	}
	if _, err := encodeInteger(d, v); err != nil {
		return Value{}, err
	}
	return v, nil
}
