package importer

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/protocols/point"
	"time"
)

// deviceName makes a text a device's name, which turns up in topics and file
// names.
func deviceName(s string) string {
	s = cleanName(s, func(c rune) bool { return c <= ' ' || strings.ContainsRune("/+#\\\"'*$", c) }, 100)
	if s == "" {
		return "device"
	}
	return s
}

// tagName makes a text a tag's name.
func tagName(s string) string {
	s = strings.TrimLeft(strings.TrimSpace(s), "$")
	s = cleanName(s, func(c rune) bool { return strings.ContainsRune("/+#", c) }, point.MaxName-8)
	if s = strings.TrimSpace(s); s == "" {
		return "tag"
	}
	return s
}

func cleanName(s string, bad func(rune) bool, most int) string {
	out := strings.Map(func(c rune) rune {
		if c == utf8.RuneError || unicode.IsControl(c) || bad(c) {
			return '-'
		}
		return c
	}, strings.ToValidUTF8(strings.TrimSpace(s), "-"))
	for len(out) > most {
		_, size := utf8.DecodeLastRuneInString(out)
		out = out[:len(out)-size]
	}
	return out
}

// names hands out names that are there once.
type names map[string]bool

// unique returns name, or name with a number.
func (u names) unique(name string) string {
	free := name
	for n := 2; u[free]; n++ {
		free = fmt.Sprintf("%s_%d", name, n)
	}
	u[free] = true
	return free
}

// named gives a thing its name, and notes when that is not the one in the file.
func (r *reader) named(u names, line int, what, given string, clean func(string) string, better string) string {
	name := clean(given)
	if name == given && u[name] && better != "" {
		name = clean(better)
	}
	name = u.unique(name)
	if name != given {
		r.changed(line, what+" "+given, "is named %q here", name)
	}
	return name
}

// className names a scan class after its period.
func className(period time.Duration) string { return strict.Duration(period).String() }

// class makes sure that there is a scan class of a period and returns its name, ""
// for no period.
func (r *Result) class(period time.Duration) string {
	if period <= 0 {
		return ""
	}
	period = max(period.Round(time.Millisecond), time.Millisecond)
	name := className(period)
	if r.Classes == nil {
		r.Classes = map[string]config.Class{}
	}
	r.Classes[name] = config.Class{Period: strict.Duration(period)}
	return name
}

// factor sets a scale by a factor and an offset, if they change anything.
func factor(t *point.Tag, by, offset float64) {
	if by == 0 {
		by = 1
	}
	if by != 1 || offset != 0 {
		t.Scale = point.Scale{Kind: point.Factor, Factor: by, Offset: offset}
	}
}

// param sets a key of the protocol.
func param(t *point.Tag, key, value string) {
	if t.Params == nil {
		t.Params = point.Params{}
	}
	t.Params[key] = value
}

// clearText makes a text fit for a comment or unit: control characters become
// spaces.
func clearText(s string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == '\uFEFF' || c == utf8.RuneError {
			return ' '
		}
		return c
	}, s))
}
