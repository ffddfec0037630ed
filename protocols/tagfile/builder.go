package tagfile

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"holdfast/protocols/point"
)

// keys are the columns in the order in which they are written. Those of the
// protocol follow as params.<key>.
var keys = [...]string{
	"name", "address", "type", "class", "access", "unit", "comment",
	"factor", "offset", "raw_low", "raw_high", "eng_low", "eng_high", "clamp",
	"deadband", "swing", "min_interval", "heartbeat", "skip_first", "stale", "min", "max",
}

const paramPrefix = "params."

// A builder makes one tag of its keys, one by one.
type builder struct {
	tag      point.Tag
	given    map[string]float64 // the numbers of the scale, by key
	mistakes []*Mistake

	addressed bool // an address was given, though it may be wrong
}

func (b *builder) fail(key string, line int, format string, args ...any) {
	b.mistakes = append(b.mistakes, &Mistake{Line: line, Key: key, Text: fmt.Sprintf(format, args...)})
}

// table sets all keys of a decoded TOML table; line gives a key's line.
func (b *builder) table(t map[string]any, line func(key string) int) {
	for _, key := range slices.Sorted(maps.Keys(t)) {
		params, isTable := t[key].(map[string]any)
		switch {
		case key == "params" && isTable:
			for _, p := range slices.Sorted(maps.Keys(params)) {
				b.set(paramPrefix+p, params[p], line(paramPrefix+p))
			}
		case key == "params":
			b.fail(key, line(key), "want a table, not %v", t[key])
		case strings.HasPrefix(key, paramPrefix):
			b.unknown(key, line(key))
		default:
			b.set(key, t[key], line(key))
		}
	}
}

// A cell is the text of one CSV field. Any kind of value can be read from it.
type cell string

// set sets one key to a string, int64, float64, bool or cell.
func (b *builder) set(key string, v any, line int) {
	t := &b.tag
	switch key {
	case "name":
		t.Name = b.text(key, v, line)
	case "address":
		before := len(b.mistakes)
		t.Address = b.loose(key, v, line)
		b.addressed = len(b.mistakes) > before
	case "type":
		t.Type = b.text(key, v, line)
	case "class":
		t.Class = b.text(key, v, line)
	case "unit":
		t.Unit = b.text(key, v, line)
	case "comment":
		t.Comment = b.text(key, v, line)
	case "access":
		access, err := point.ParseAccess(b.text(key, v, line))
		if err != nil {
			b.fail(key, line, "%v", err)
		}
		t.Access = access
	case "factor", "offset", "raw_low", "raw_high", "eng_low", "eng_high":
		if b.given == nil {
			b.given = map[string]float64{}
		}
		b.given[key] = b.number(key, v, line)
	case "clamp":
		t.Scale.Clamp = b.truth(key, v, line)
	case "deadband", "swing", "min_interval", "heartbeat", "skip_first":
		b.reduction(key, v, line, &t.Dead, &t.Reduce)
	case "stale":
		t.Stale = b.duration(key, v, line)
	case "min":
		n := b.number(key, v, line)
		t.Min = &n
	case "max":
		n := b.number(key, v, line)
		t.Max = &n
	default:
		b.param(key, v, line)
	}
}

// param sets a key of the protocol.
func (b *builder) param(key string, v any, line int) {
	name, ok := strings.CutPrefix(key, paramPrefix)
	if !ok {
		b.unknown(key, line)
		return
	}
	if !validParam(name) {
		b.fail(key, line, "a key of the protocol has only lower-case letters, digits and '_'")
		return
	}
	value := b.loose(key, v, line)
	if value == "" {
		b.fail(key, line, "the value is empty; leave the key out")
		return
	}
	if b.tag.Params == nil {
		b.tag.Params = point.Params{}
	}
	b.tag.Params[name] = value
}

func validParam(name string) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return name != ""
}

func (b *builder) unknown(key string, line int) {
	m := &Mistake{Line: line, Key: key, Text: "unknown key", Hint: "a key of the protocol is written params." + key}
	if near := nearest(key, keys[:]); near != "" {
		m.Hint = fmt.Sprintf("did you mean %q?", near)
	}
	b.mistakes = append(b.mistakes, m)
}

// text reads a text without control characters.
func (b *builder) text(key string, v any, line int) string {
	var s string
	switch x := v.(type) {
	case string:
		s = x
	case cell:
		s = string(x)
	default:
		b.fail(key, line, "want a text in quotes, not %v", v)
		return ""
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		b.fail(key, line, "%q has a control character", s)
		return ""
	}
	if !strings.Contains(s, "\uFEFF") {
		return s
	}
	b.fail(key, line, "%q has a byte order mark inside", s)
	return ""
}

// loose reads a text that may be written as a number or a truth value.
func (b *builder) loose(key string, v any, line int) string {
	switch x := v.(type) {
	case int64:
		return strconv.FormatInt(x, 10)
	case float64:
		return formatFloat(x)
	case bool:
		return strconv.FormatBool(x)
	}
	return b.text(key, v, line)
}

func (b *builder) number(key string, v any, line int) float64 {
	f := 0.0
	switch x := v.(type) {
	case int64:
		f = float64(x)
	case float64:
		f = x
	case cell:
		var err error
		f, err = strconv.ParseFloat(strings.TrimSpace(string(x)), 64)
		if err != nil || strings.ContainsAny(string(x), "xXpP_") {
			hint := ""
			if fixed := strings.Replace(string(x), ",", ".", 1); fixed != string(x) {
				hint = ": write " + fixed
			}
			b.fail(key, line, "%q is not a number%s", string(x), hint)
			return 0
		}
	default:
		b.fail(key, line, "want a number, not %q", fmt.Sprint(v))
		return 0
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		b.fail(key, line, "want a finite number")
		return 0
	}
	return f
}

func (b *builder) truth(key string, v any, line int) bool {
	if t, ok := v.(bool); ok {
		return t
	}
	if c, ok := v.(cell); ok {
		switch strings.ToLower(strings.TrimSpace(string(c))) {
		case "true": // spreadsheets write it in capitals
			return true
		case "false":
			return false
		}
	}
	b.fail(key, line, "want true or false, not %q", fmt.Sprint(v))
	return false
}

func (b *builder) duration(key string, v any, line int) time.Duration {
	s := strings.TrimSpace(b.text(key, v, line))
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		b.fail(key, line, "%q is not a time with its unit, such as \"5s\"", s)
		return 0
	}
	return d
}

// finish puts the parts together and checks the whole. line is the tag's.
func (b *builder) finish(line int) (point.Tag, []*Mistake) {
	b.scale(line)
	if b.tag.Address == "" && !b.addressed {
		b.fail("address", line, "the address is missing")
	}
	if len(b.mistakes) > 0 && b.tag.Name == "" {
		return b.tag, b.mistakes // the name may be what is misspelt
	}
	if len(b.mistakes) == 0 {
		if err := b.tag.Check(); err != nil {
			for text := range strings.Lines(err.Error()) {
				b.fail("", line, "%s", strings.TrimSuffix(text, "\n"))
			}
		}
	}
	return b.tag, b.mistakes
}

// scale makes the scale of the numbers that were given.
func (b *builder) scale(line int) {
	s := &b.tag.Scale
	linear := []string{"raw_low", "raw_high", "eng_low", "eng_high"}
	var missing []string
	for _, key := range linear {
		if _, ok := b.given[key]; !ok {
			missing = append(missing, key)
		}
	}
	factor, hasFactor := b.given["factor"]
	offset, hasOffset := b.given["offset"]
	switch {
	case len(missing) < len(linear) && (hasFactor || hasOffset):
		b.fail("", line, "a scale is factor and offset, or raw and eng limits, not both")
	case hasFactor || hasOffset:
		s.Kind, s.Factor, s.Offset = point.Factor, 1, offset
		if hasFactor {
			s.Factor = factor
		}
	case len(missing) == 0:
		s.Kind = point.Linear
		s.RawLow, s.RawHigh = b.given["raw_low"], b.given["raw_high"]
		s.EngLow, s.EngHigh = b.given["eng_low"], b.given["eng_high"]
	case len(missing) < len(linear):
		b.fail("", line, "a linear scale needs %s too", strings.Join(missing, ", "))
	}
	if s.Clamp && s.Kind != point.Linear && len(b.mistakes) == 0 {
		b.fail("clamp", line, "only a linear scale can clamp")
	}
}

// A field is one key of a tag that is to be written; its value is a string,
// float64 or bool.
type field struct {
	key   string
	value any
}

// fieldsOf returns what must be written of a tag, in the order of the columns.
func fieldsOf(t *point.Tag) []field {
	var out []field
	add := func(key string, value any, write bool) {
		if write {
			out = append(out, field{key, value})
		}
	}
	s := &t.Scale
	linear := s.Kind == point.Linear
	add("name", t.Name, true)
	add("address", t.Address, true)
	add("type", t.Type, t.Type != "")
	add("class", t.Class, t.Class != "")
	add("access", t.Access.String(), t.Access != point.ReadOnly)
	add("unit", t.Unit, t.Unit != "")
	add("comment", t.Comment, t.Comment != "")
	add("factor", s.Factor, s.Kind == point.Factor)
	add("offset", s.Offset, s.Kind == point.Factor && s.Offset != 0)
	add("raw_low", s.RawLow, linear)
	add("raw_high", s.RawHigh, linear)
	add("eng_low", s.EngLow, linear)
	add("eng_high", s.EngHigh, linear)
	add("clamp", s.Clamp, linear && s.Clamp)
	out = append(out, reductionFields(t.Dead, t.Reduce)...)
	add("stale", t.Stale.String(), t.Stale != 0)
	if t.Min != nil {
		add("min", *t.Min, true)
	}
	if t.Max != nil {
		add("max", *t.Max, true)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Params)) {
		add(paramPrefix+name, t.Params[name], true)
	}
	return out
}

// formatFloat writes the shortest form that TOML takes for a float.
func formatFloat(f float64) string {
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".eIN") {
		s += ".0"
	}
	return s
}

// nearest returns the known word that is at most a third of its letters away
// from word, or "".
func nearest(word string, known []string) string {
	best, least := "", max(1, len(word)/3)+1
	for _, k := range known {
		if n := edits(strings.ToLower(word), k); n < least {
			best, least = k, n
		}
	}
	return best
}

// edits is the number of letters to insert, delete, replace or swap with their
// neighbour to turn a into b.
func edits(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
