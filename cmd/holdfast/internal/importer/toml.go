package importer

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// tomlKey writes a key, in quotes where it needs them.
func tomlKey(key string) string {
	for _, c := range key {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return tomlText(key)
		}
	}
	if key == "" {
		return `""`
	}
	return key
}

// tomlText writes a basic string.
func tomlText(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// tomlValue writes a value on one line; tables are inline, with sorted keys.
func tomlValue(v any) string {
	switch x := v.(type) {
	case string:
		return tomlText(x)
	case float64:
		s := strconv.FormatFloat(x, 'g', -1, 64)
		if !strings.ContainsAny(s, ".eIN") {
			s += ".0"
		}
		return strings.ToLower(strings.Replace(s, "+Inf", "inf", 1))
	case []string:
		list := make([]any, len(x))
		for i, s := range x {
			list[i] = s
		}
		return tomlValue(list)
	case []any:
		parts := make([]string, len(x))
		for i := range x {
			parts[i] = tomlValue(x[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		parts := make([]string, 0, len(x))
		for _, key := range slices.Sorted(maps.Keys(x)) {
			parts = append(parts, tomlKey(key)+" = "+tomlValue(x[key]))
		}
		if len(parts) == 0 {
			return "{}"
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	}
	return fmt.Sprint(v) // int64, bool, dates
}
