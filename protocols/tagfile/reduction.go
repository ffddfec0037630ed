package tagfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"holdfast/protocols/point"
)

// reduction sets one key of a dead-band or a reduction.
func (b *builder) reduction(key string, v any, line int, dead *point.Deadband, r *point.Reduction) {
	switch key {
	case "deadband":
		*dead = b.deadband(key, v, line)
	case "swing":
		d := b.measure(key, v, line, "deviation", `not a percentage such as "2%"`)
		r.Swing, r.SwingPercent = d.Value, d.Kind == point.Percent
	case "min_interval":
		r.MinInterval = b.duration(key, v, line)
	case "heartbeat":
		r.Heartbeat = b.duration(key, v, line)
	case "skip_first":
		r.SkipFirst = b.truth(key, v, line)
	}
}

// deadband reads "none", "change", a number in engineering units, or a
// percentage.
func (b *builder) deadband(key string, v any, line int) point.Deadband {
	switch text, _ := plain(v); text {
	case "none":
		return point.Deadband{Kind: point.EveryReading}
	case "change":
		return point.Deadband{Kind: point.OnChange}
	}
	return b.measure(key, v, line, "dead-band", `neither "none" nor "change" nor a percentage such as "2%"`)
}

// plain returns the text of a value, if it is one.
func plain(v any) (string, bool) {
	switch x := v.(type) {
	case string:
		return x, true
	case cell:
		return strings.TrimSpace(string(x)), true
	}
	return "", false
}

// measure reads a number above 0 in engineering units (Absolute), or as a
// percentage (Percent). The zero Deadband stands for a mistake. what is the
// quantity, and wrong what another text is.
func (b *builder) measure(key string, v any, line int, what, wrong string) point.Deadband {
	d := point.Deadband{Kind: point.Absolute}
	text, isText := plain(v)
	if part, ok := strings.CutSuffix(text, "%"); isText && ok {
		d.Kind, v = point.Percent, cell(part)
	} else if _, quoted := v.(string); quoted {
		b.fail(key, line, "%q is %s; a number has no quotes", text, wrong)
		return point.Deadband{}
	}
	before := len(b.mistakes)
	if d.Value = b.number(key, v, line); len(b.mistakes) > before {
		return point.Deadband{}
	}
	if d.Value <= 0 {
		b.fail(key, line, "the %s must be above 0", what)
		return point.Deadband{}
	}
	return d
}

// reductionFields returns what must be written of a dead-band and a reduction.
func reductionFields(dead point.Deadband, r point.Reduction) []field {
	var out []field
	amount := func(key string, value float64, percent bool) {
		if percent {
			out = append(out, field{key, formatFloat(value) + "%"})
			return
		}
		out = append(out, field{key, value})
	}
	switch dead.Kind {
	case point.EveryReading:
		out = append(out, field{"deadband", "none"})
	case point.OnChange:
		out = append(out, field{"deadband", "change"})
	case point.Absolute, point.Percent:
		amount("deadband", dead.Value, dead.Kind == point.Percent)
	}
	if r.Swing != 0 {
		amount("swing", r.Swing, r.SwingPercent)
	}
	if r.MinInterval != 0 {
		out = append(out, field{"min_interval", r.MinInterval.String()})
	}
	if r.Heartbeat != 0 {
		out = append(out, field{"heartbeat", r.Heartbeat.String()})
	}
	if r.SkipFirst {
		out = append(out, field{"skip_first", true})
	}
	return out
}

// RuleFromTable makes a reduction rule of a table with the key match and any of
// deadband, swing, min_interval, heartbeat and skip_first, as in a tag table.
// Mistakes carry their key and no file or line.
func RuleFromTable(table map[string]any) (point.ReduceRule, error) {
	known := []string{"match", "deadband", "swing", "min_interval", "heartbeat", "skip_first"}
	var rule point.ReduceRule
	b := builder{}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		switch {
		case key == "match":
			rule.Match = b.text(key, table[key], 0)
		case slices.Contains(known, key):
			b.reduction(key, table[key], 0, &rule.Dead, &rule.Reduce)
		default:
			m := &Mistake{Key: key, Text: "unknown key", Hint: "there are " + strings.Join(known, ", ")}
			if near := nearest(key, known); near != "" {
				m.Hint = fmt.Sprintf("did you mean %q?", near)
			}
			b.mistakes = append(b.mistakes, m)
		}
	}
	if table["match"] == nil {
		b.fail("match", 0, "the pattern is missing, such as \"press*/temp*\"")
	}
	if len(b.mistakes) == 0 {
		return rule, rule.Check()
	}
	return rule, join("", b.mistakes)
}
