package point

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Check reports the first mistake of a scale: a number that is not finite, a
// factor of zero, a raw range without width.
func (s Scale) Check() error {
	for _, f := range [...]float64{s.Factor, s.Offset, s.RawLow, s.RawHigh, s.EngLow, s.EngHigh} {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return errors.New("scale: numbers must be finite")
		}
	}
	switch s.Kind {
	case Unscaled:
		return nil
	case Factor:
		if s.Factor == 0 {
			return errors.New("scale: the factor must not be zero")
		}
	case Linear:
		if s.RawLow == s.RawHigh {
			return errors.New("scale: the raw range has no width")
		}
		if s.EngLow == s.EngHigh {
			return errors.New("scale: the engineering range has no width")
		}
	default:
		return fmt.Errorf("scale: unknown kind %d", s.Kind)
	}
	return nil
}

// Identity reports whether the scale changes nothing.
func (s Scale) Identity() bool {
	return s.Kind == Unscaled || s.Kind == Factor && s.Factor == 1 && s.Offset == 0
}

// A Scaler is a [Scale] made ready for use on many values.
type Scaler struct {
	mode          scaleMode
	num, den, add float64 // eng = (raw*num+add)/den
	whole         int64   // shift mode: eng = raw+whole
	rawLow        float64 // linear mode: num, den are the spans
	engLow        float64
	engHigh       float64
	clamp         bool
}

type scaleMode uint8

const (
	scaleNone scaleMode = iota
	scaleShift
	scaleRatio
	scaleFactor // eng = raw*num+add
	scaleLinear
)

// Compile returns the scale ready for use. A factor and offset that are short
// decimals, such as 0.1, are computed as a ratio of whole numbers, so that raw 3
// becomes 0.3 and not 0.30000000000000004. The scale must have passed Check.
func (s Scale) Compile() Scaler {
	switch {
	case s.Identity():
		return Scaler{}
	case s.Kind == Linear:
		return Scaler{
			mode: scaleLinear, num: s.EngHigh - s.EngLow, den: s.RawHigh - s.RawLow,
			rawLow: s.RawLow, engLow: s.EngLow, engHigh: s.EngHigh, clamp: s.Clamp,
		}
	case s.Factor == 1 && s.Offset == math.Trunc(s.Offset) && math.Abs(s.Offset) < 1<<53:
		return Scaler{mode: scaleShift, whole: int64(s.Offset), num: 1, add: s.Offset, den: 1}
	}
	if num, add, den, ok := ratio(s.Factor, s.Offset); ok {
		return Scaler{mode: scaleRatio, num: num, add: add, den: den}
	}
	return Scaler{mode: scaleFactor, num: s.Factor, add: s.Offset, den: 1}
}

// ratio writes factor and offset over one power of ten, if all three are whole
// numbers that a double holds exactly.
func ratio(factor, offset float64) (num, add, den float64, ok bool) {
	const exact = 1 << 53
	places := max(decimals(factor), decimals(offset))
	if places < 0 || places > 15 {
		return 0, 0, 0, false
	}
	den = math.Pow10(places)
	num, add = math.Round(factor*den), math.Round(offset*den)
	ok = math.Abs(num) < exact && math.Abs(add) < exact && num/den == factor && add/den == offset
	return num, add, den, ok
}

// decimals returns the number of digits after the point in the shortest decimal
// form of f.
func decimals(f float64) int {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if i := strings.IndexByte(s, '.'); i >= 0 {
		return len(s) - i - 1
	}
	return 0
}

// Apply returns the engineering value of a raw one, and GoodClamped or Good.
// Without scaling, or when only a whole number is added, an integer stays an
// exact integer; otherwise the result is a Float. Null stays Null. Text and
// bytes under a scale give Null and BadTypeMismatch; an integer sum beyond 64
// bits gives Null and BadOutOfRange.
func (s *Scaler) Apply(v Value) (Value, Quality) {
	if s.mode == scaleNone || v.kind == Null {
		return v, Good
	}
	if s.mode == scaleShift && (v.kind == Int || v.kind == Uint) {
		return addWhole(v, s.whole)
	}
	raw, ok := v.Float()
	if !ok {
		return Value{}, BadTypeMismatch
	}
	switch s.mode {
	case scaleLinear:
		return s.line(raw)
	case scaleFactor:
		return FloatValue(raw*s.num + s.add), Good
	}
	return FloatValue((raw*s.num + s.add) / s.den), Good
}

// line maps raw onto the engineering range.
func (s *Scaler) line(raw float64) (Value, Quality) {
	eng := s.engLow + (raw-s.rawLow)*s.num/s.den
	if raw == s.rawLow+s.den {
		eng = s.engHigh // exact at the end, whatever the sum rounds to
	}
	if s.clamp {
		low, high := min(s.engLow, s.engHigh), max(s.engLow, s.engHigh)
		if eng < low {
			return FloatValue(low), GoodClamped
		}
		if eng > high {
			return FloatValue(high), GoodClamped
		}
	}
	return FloatValue(eng), Good
}

// addWhole adds n to an integer without going through a double.
func addWhole(v Value, n int64) (Value, Quality) {
	outOfRange := func() (Value, Quality) { return Value{}, BadOutOfRange }
	if v.kind == Int {
		a := v.Int()
		sum := a + n
		if n >= 0 && sum < a { // above 2^63-1, which an unsigned integer still holds
			return UintValue(uint64(a) + uint64(n)), Good
		}
		if n < 0 && sum > a {
			return outOfRange()
		}
		return IntValue(sum), Good
	}
	u := v.Uint()
	if n < 0 {
		return UintValue(u - uint64(-n)), Good // |n| < 2^53 < u
	}
	if u > math.MaxUint64-uint64(n) {
		return outOfRange()
	}
	return UintValue(u + uint64(n)), Good
}

// Invert returns the raw value of an engineering one: the value that Apply
// would map to it. A whole result is an Int (or Uint), which adapters accept
// for every numeric type; any other is a Float, which an adapter whose raw type
// is an integer rounds to the nearest. A clamping scale refuses what lies outside its
// engineering range.
func (s *Scaler) Invert(v Value) (Value, error) {
	if s.mode == scaleNone {
		return v, nil
	}
	if s.mode == scaleShift && (v.kind == Int || v.kind == Uint) {
		raw, q := addWhole(v, -s.whole)
		if !q.Good() {
			return Value{}, fmt.Errorf("value %s is out of range", v)
		}
		return raw, nil
	}
	eng, ok := v.Float()
	if !ok || v.kind == Bool {
		return Value{}, fmt.Errorf("a scaled tag takes a number, not %s", v.kind)
	}
	if math.IsNaN(eng) || math.IsInf(eng, 0) {
		return Value{}, fmt.Errorf("a scaled tag takes a finite number, not %s", v)
	}
	raw := s.rawOf(eng)
	if s.clamp && (eng < min(s.engLow, s.engHigh) || eng > max(s.engLow, s.engHigh)) {
		return Value{}, fmt.Errorf("value %s is outside the scale's range %g to %g", v, s.engLow, s.engHigh)
	}
	if math.IsInf(raw, 0) {
		return Value{}, fmt.Errorf("value %s is out of range", v)
	}
	return wholeOrFloat(raw), nil
}

func (s *Scaler) rawOf(eng float64) float64 {
	if s.mode != scaleLinear {
		return (eng*s.den - s.add) / s.num
	}
	if eng == s.engHigh {
		return s.rawLow + s.den
	}
	return s.rawLow + (eng-s.engLow)*s.den/s.num
}

// wholeOrFloat returns f as an integer when it is one but for the rounding of a
// few double operations.
func wholeOrFloat(f float64) Value {
	n := math.Round(f)
	if math.Abs(f-n) > 1e-9*max(1, math.Abs(n)*1e-3) || math.Abs(n) >= 1<<53 {
		return FloatValue(f)
	}
	return IntValue(int64(n))
}

// Apply is Compile followed by [Scaler.Apply], for single values.
func (s Scale) Apply(v Value) (Value, Quality) {
	c := s.Compile()
	return c.Apply(v)
}

// Invert is Compile followed by [Scaler.Invert], for single values.
func (s Scale) Invert(v Value) (Value, error) {
	c := s.Compile()
	return c.Invert(v)
}
