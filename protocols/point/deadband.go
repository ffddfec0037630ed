package point

import (
	"errors"
	"math"
)

// Check reports a dead-band that cannot work: no positive finite value where
// one is needed, or percent of a scale that has no engineering range.
func (d Deadband) Check(s Scale) error {
	switch d.Kind {
	case NoDeadband, OnChange, EveryReading:
		return nil
	case Absolute, Percent:
		if !(d.Value > 0) || math.IsInf(d.Value, 0) {
			return errors.New("dead-band: the value must be above 0")
		}
		if d.Kind == Percent && s.Kind != Linear {
			return errors.New("dead-band: percent needs a linear scale, whose engineering range it is a part of")
		}
		return nil
	}
	return errors.New("dead-band: unknown kind")
}

// A Filter is the state of one tag's dead-band. The zero value lets everything
// pass.
type Filter struct {
	kind  DeadbandKind
	held  bool // last and qual are those of a reading that passed
	qual  Quality
	width float64 // engineering units
	last  Value
}

// NewFilter returns a filter that has let nothing pass yet: the first reading
// always passes.
func NewFilter(d Deadband, s Scale) Filter {
	f := Filter{kind: d.Kind, width: d.Value}
	switch d.Kind {
	case EveryReading:
		f.kind = NoDeadband
	case Percent:
		f.width = math.Abs(s.EngHigh-s.EngLow) * d.Value / 100
	}
	return f
}

// Pass reports whether a reading is to be published, and if so remembers it as
// the one to measure the next against. The value of a Bad reading is not
// looked at: only its quality can make it pass.
func (f *Filter) Pass(v Value, q Quality) bool {
	if f.kind == NoDeadband {
		return true
	}
	if f.held && q == f.qual && (q.Bad() || !f.moved(v)) {
		return false
	}
	f.Force(v, q)
	return true
}

// Force remembers a reading that is published whatever the dead-band says.
func (f *Filter) Force(v Value, q Quality) {
	if f.kind != NoDeadband {
		f.held, f.qual, f.last = true, q, v
	}
}

// moved reports whether v is far enough from the last value that passed.
func (f *Filter) moved(v Value) bool {
	if f.last.Equal(v) {
		return false
	}
	if f.kind == OnChange || v.kind == Bool {
		return true
	}
	if f.last.kind == Int && v.kind == Int {
		a, b := max(f.last.Int(), v.Int()), min(f.last.Int(), v.Int())
		return float64(uint64(a)-uint64(b)) > f.width // the difference of two int64 fits a uint64
	}
	a, ok1 := f.last.Float()
	b, ok2 := v.Float()
	if !ok1 || !ok2 || math.IsNaN(a) || math.IsNaN(b) {
		return true
	}
	return !(math.Abs(b-a) <= f.width) // so that Inf against the other Inf moves
}
