package sim

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"holdfast/protocols/point"
)

// settings are a device's.
type settings struct {
	delay time.Duration
	seed  uint64
}

func parseSettings(given map[string]any) (s settings, err error) {
	s.seed = 1
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(given)) {
		switch v := given[key]; key {
		case "delay":
			text, _ := v.(string)
			d, err := time.ParseDuration(text)
			if err != nil || d < 0 {
				errs = append(errs, fmt.Errorf("key %q: %v is not a time with its unit, such as \"5ms\"", key, v))
			}
			s.delay = d
		case "seed":
			n, ok := v.(int64)
			if !ok || n < 0 {
				errs = append(errs, fmt.Errorf("key %q: %v is not a whole number from 0", key, v))
			}
			s.seed = uint64(n)
		default:
			errs = append(errs, fmt.Errorf("unknown key %q: there are delay, seed", key))
		}
	}
	return s, errors.Join(errs...)
}

// A shape says how a signal goes.
type shape struct {
	kind        string
	typ         string // float, int, bool, string
	low, high   float64
	period      time.Duration
	phase, duty float64
	step, start float64
	wraps       bool
	value       point.Value // constant and text
	bad         float64
	quality     point.Quality
	file        string
	column      string
	speed       float64
	loop        bool
}

// shapeKeys are the params of each kind, besides bad and quality.
var shapeKeys = map[string][]string{
	"sine":     {"low", "high", "period", "phase"},
	"triangle": {"low", "high", "period", "phase"},
	"ramp":     {"low", "high", "period", "phase"},
	"square":   {"low", "high", "period", "phase", "duty"},
	"walk":     {"low", "high", "step", "start"},
	"counter":  {"high", "step", "period", "start"},
	"constant": {"value"},
	"text":     {"value"},
	"trace":    {"file", "column", "speed", "loop"},
}

func (s *shape) writable() bool { return s.kind == "constant" || s.kind == "text" }

// parseShape reads a tag's address, type and params and reports every mistake.
func parseShape(t *point.Tag) (shape, error) {
	p := shapeParser{tag: t}
	known, ok := shapeKeys[t.Address]
	if !ok {
		return shape{}, fmt.Errorf("tag %q: unknown address %q: there are %q", t.Name, t.Address, slices.Sorted(maps.Keys(shapeKeys)))
	}
	s := shape{kind: t.Address, typ: t.Type}
	if s.typ == "" {
		s.typ = map[string]string{"counter": "int", "text": "string"}[s.kind]
	}
	if s.typ == "" {
		s.typ = "float"
	}
	if !slices.Contains([]string{"float", "int", "bool", "string"}, s.typ) {
		p.fail("unknown type %q: there are float, int, bool, string", s.typ)
	}
	if s.typ == "string" && s.kind != "text" && s.kind != "trace" {
		p.fail("a %s cannot be a string", s.kind)
	}
	s.low, s.high = p.number("low", 0), p.number("high", 1)
	_, s.wraps = t.Params["high"]
	s.period = p.duration("period", map[string]time.Duration{"counter": time.Second}[s.kind], 10*time.Second)
	s.phase, s.duty = p.part("phase", 0), p.part("duty", 0.5)
	s.step = p.number("step", map[bool]float64{true: 1, false: math.Abs(s.high-s.low) / 10}[s.kind == "counter"])
	s.start = p.number("start", map[bool]float64{true: 0, false: (s.low + s.high) / 2}[s.kind == "counter"])
	s.bad, s.quality = p.part("bad", 0), p.quality()
	s.file, s.column = t.Params["file"], t.Params["column"]
	s.speed, s.loop = p.number("speed", 1), p.truth("loop", true)
	s.value = p.value(&s)
	p.check(&s, known)
	return s, errors.Join(p.errs...)
}

func (p *shapeParser) check(s *shape, known []string) {
	for _, key := range slices.Sorted(maps.Keys(p.tag.Params)) {
		if key != "bad" && key != "quality" && !slices.Contains(known, key) {
			p.fail("a %s has no key %q: there are %q, bad and quality", s.kind, key, known)
		}
	}
	if s.kind == "trace" && (s.file == "" || s.column == "") {
		p.fail("a trace needs file and column")
	}
	if s.speed <= 0 {
		p.fail("key \"speed\": must be above 0")
	}
	if p.tag.Access.Writable() && !s.writable() {
		p.fail("a %s cannot be written; constant and text can", s.kind)
	}
	if s.kind == "walk" && s.low >= s.high {
		p.fail("low must be below high")
	}
}

// shapeParser reads params and gathers mistakes.
type shapeParser struct {
	tag  *point.Tag
	errs []error
}

func (p *shapeParser) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("tag %q: "+format, append([]any{p.tag.Name}, args...)...))
}

func (p *shapeParser) number(key string, otherwise float64) float64 {
	text, ok := p.tag.Params[key]
	if !ok {
		return otherwise
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		p.fail("key %q: %q is not a number", key, text)
		return otherwise
	}
	return f
}

func (p *shapeParser) part(key string, otherwise float64) float64 {
	f := p.number(key, otherwise)
	if f < 0 || f > 1 {
		p.fail("key %q: %g is not between 0 and 1", key, f)
	}
	return f
}

func (p *shapeParser) duration(key string, first, otherwise time.Duration) time.Duration {
	if first > 0 {
		otherwise = first
	}
	text, ok := p.tag.Params[key]
	if !ok {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		p.fail("key %q: %q is not a time with its unit, such as \"10s\"", key, text)
		return otherwise
	}
	return d
}

func (p *shapeParser) truth(key string, otherwise bool) bool {
	switch text, ok := p.tag.Params[key]; {
	case !ok:
		return otherwise
	case text == "true":
		return true
	case text != "false":
		p.fail("key %q: %q is neither true nor false", key, text)
	}
	return false
}

func (p *shapeParser) quality() point.Quality {
	text, ok := p.tag.Params["quality"]
	if !ok {
		return point.BadSensorFailure
	}
	q, err := point.ParseQuality(text)
	if err != nil {
		p.fail("key \"quality\": %w", err)
	}
	return q
}

// value reads what a constant or text holds at first.
func (p *shapeParser) value(s *shape) point.Value {
	text := p.tag.Params["value"]
	if s.typ == "string" {
		return point.StringValue(text)
	}
	if text == "" {
		text = "0"
	}
	v, err := point.ParseValue([]byte(text))
	if err == nil {
		if typed, ok := s.typed(v); ok {
			return typed
		}
	}
	p.fail("key \"value\": %q is not of type %s", text, s.typ)
	return point.Value{}
}

// typed turns a value into the shape's type, if that loses nothing but decimals.
func (s *shape) typed(v point.Value) (point.Value, bool) {
	f, numeric := v.Float()
	switch {
	case s.typ == "string":
		return v, v.Kind() == point.String
	case !numeric:
		return v, false
	case s.typ == "bool":
		return point.BoolValue(f != 0), f == 0 || f == 1
	case v.Kind() == point.Bool:
		return v, false
	case s.typ == "float":
		return point.FloatValue(f), true
	case v.Kind() == point.Int || v.Kind() == point.Uint:
		return v, true
	}
	return point.IntValue(int64(math.Round(f))), math.Abs(f) < 1<<63
}

// A signal is a shape as it goes on. Guarded by the session's mu.
type signal struct {
	tag   point.Tag
	shape shape
	rng   *rand.Rand

	held  point.Value // what was written
	holds bool

	walked bool
	at     time.Duration // of the last step of a walk
	level  float64

	trace     *trace
	traceErr  error
	traceRead bool
}

// sample returns the signal's value at a time since the start.
func (s *signal) sample(at time.Duration, readFile func(string) ([]byte, error)) point.Sample {
	if s.shape.bad > 0 && s.rng.Float64() < s.shape.bad {
		return point.Sample{Quality: s.shape.quality, Detail: "simulated fault"}
	}
	switch {
	case s.holds:
		return point.Sample{Value: s.held}
	case s.shape.writable():
		return point.Sample{Value: s.shape.value}
	case s.shape.kind == "trace":
		return s.replay(at, readFile)
	}
	f := s.next(at)
	if s.shape.typ == "bool" { // the upper half of the range is true
		return point.Sample{Value: point.BoolValue(f >= (s.shape.low+s.shape.high)/2)}
	}
	v, _ := s.shape.typed(point.FloatValue(f))
	return point.Sample{Value: v}
}

// next returns the number at a time since the start.
func (s *signal) next(at time.Duration) float64 {
	sh := &s.shape
	_, turn := math.Modf(at.Seconds()/sh.period.Seconds() + sh.phase)
	span := sh.high - sh.low
	switch sh.kind {
	case "sine":
		return sh.low + span*(1+math.Sin(2*math.Pi*turn))/2
	case "triangle":
		return sh.low + span*(1-math.Abs(2*turn-1))
	case "ramp":
		return sh.low + span*turn
	case "square":
		if turn < sh.duty {
			return sh.high
		}
		return sh.low
	case "counter":
		n := sh.start + sh.step*math.Floor(at.Seconds()/sh.period.Seconds())
		if width := sh.high - sh.start; sh.wraps && width > 0 {
			n = sh.start + math.Mod(n-sh.start, width)
		}
		return n
	}
	return s.walk(at)
}

// walk moves the level by at most step for each second that has passed, and
// reflects it at the ends of the range.
func (s *signal) walk(at time.Duration) float64 {
	sh := &s.shape
	if !s.walked {
		s.walked, s.at, s.level = true, at, min(max(sh.start, sh.low), sh.high)
		return s.level
	}
	for s.at += time.Second / 10; s.at <= at; s.at += time.Second / 10 {
		s.level += (2*s.rng.Float64() - 1) * sh.step / 10
		if s.level > sh.high {
			s.level = max(sh.low, 2*sh.high-s.level)
		}
		if s.level < sh.low {
			s.level = min(sh.high, 2*sh.low-s.level)
		}
	}
	s.at -= time.Second / 10
	return s.level
}
