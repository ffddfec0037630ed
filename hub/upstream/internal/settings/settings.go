// Package settings reads the table of one upstream in the configuration:
// strictly, without I/O, and telling everything that is wrong at once.
package settings

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Reader takes keys out of a table. Each method returns the default when the
// key is not there, and notes an error when its value is not what it should be.
// Err tells of these and of keys that nobody asked for.
type Reader struct {
	table map[string]any
	known []string
	errs  []error
}

// New returns a reader of the table.
func New(table map[string]any) *Reader { return &Reader{table: table} }

func (r *Reader) get(key string) (any, bool) {
	r.known = append(r.known, key)
	v, ok := r.table[key]
	return v, ok
}

func (r *Reader) fail(key, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%q: %s", key, fmt.Sprintf(format, args...)))
}

// String returns a string.
func (r *Reader) String(key, def string) string {
	v, ok := r.get(key)
	if !ok {
		return def
	}
	s, ok := v.(string)
	if !ok {
		r.fail(key, "must be a string, not %v", v)
		return def
	}
	return s
}

// Strings returns a list of strings, nil when the key is not there.
func (r *Reader) Strings(key string) (list []string) {
	v, ok := r.get(key)
	if !ok {
		return nil
	}
	if l, isStrings := v.([]string); isStrings {
		return l
	}
	l, ok := v.([]any)
	for _, e := range l {
		s, isString := e.(string)
		ok = ok && isString
		list = append(list, s)
	}
	if !ok {
		r.fail(key, "must be a list of strings, not %v", v)
		return nil
	}
	return list
}

// Texts returns a table of strings whose keys are among known, nil when the key
// is not there.
func (r *Reader) Texts(key string, known ...string) map[string]string {
	v, ok := r.get(key)
	if !ok {
		return nil
	}
	t, ok := v.(map[string]any)
	if !ok {
		r.fail(key, "must be a table, not %v", v)
		return nil
	}
	return r.texts(key, t, known)
}

func (r *Reader) texts(key string, t map[string]any, known []string) map[string]string {
	texts := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		s, ok := t[name].(string)
		switch {
		case !slices.Contains(known, name):
			r.fail(key, "%v", UnknownKey(name, known))
		case !ok:
			r.fail(key, "%q must be a string, not %v", name, t[name])
		default:
			texts[name] = s
		}
	}
	return texts
}

// TextTables returns a list of tables of strings, each with exactly the keys
// that are named; nil when the key is not there.
func (r *Reader) TextTables(key string, names ...string) (list []map[string]string) {
	v, ok := r.get(key)
	if !ok {
		return nil
	}
	tables, ok := v.([]map[string]any)
	if l, isAny := v.([]any); isAny {
		ok = true
		for _, e := range l {
			t, isTable := e.(map[string]any)
			ok = ok && isTable
			tables = append(tables, t)
		}
	}
	if !ok {
		r.fail(key, "must be a list of tables, not %v", v)
		return nil
	}
	for _, t := range tables {
		texts := r.texts(key, t, names)
		for _, name := range names {
			if _, there := t[name]; !there {
				r.fail(key, "an entry has no %q", name)
			}
		}
		list = append(list, texts)
	}
	return list
}

// Choice returns a string that is one of the options.
func (r *Reader) Choice(key, def string, options ...string) string {
	s := r.String(key, def)
	if !slices.Contains(options, s) {
		r.fail(key, "%q is not one of %s", s, strings.Join(options, ", "))
		return def
	}
	return s
}

// Bool returns true or false.
func (r *Reader) Bool(key string, def bool) bool {
	v, ok := r.get(key)
	if !ok {
		return def
	}
	b, ok := v.(bool)
	if !ok {
		r.fail(key, "must be true or false, not %v", v)
		return def
	}
	return b
}

// Int returns a whole number between least and most.
func (r *Reader) Int(key string, def, least, most int) int {
	v, ok := r.get(key)
	if !ok {
		return def
	}
	n, ok := v.(int64)
	if i, isInt := v.(int); isInt {
		n, ok = int64(i), true
	}
	if !ok || n < int64(least) || n > int64(most) {
		r.fail(key, "must be a whole number from %d to %d, not %v", least, most, v)
		return def
	}
	return int(n)
}

// Duration returns a time with its unit, such as "10s", between least and most.
func (r *Reader) Duration(key string, def, least, most time.Duration) time.Duration {
	v, ok := r.get(key)
	if !ok {
		return def
	}
	s, _ := v.(string)
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most {
		r.fail(key, "must be a time with its unit from %v to %v, not %v", least, most, v)
		return def
	}
	return d
}

var units = map[string]int{"B": 1, "kB": 1000, "MB": 1e6, "KiB": 1 << 10, "MiB": 1 << 20}

// Size returns bytes, written with a unit such as "64KiB", between least and most.
func (r *Reader) Size(key string, def, least, most int) int {
	v, ok := r.get(key)
	if !ok {
		return def
	}
	s, _ := v.(string)
	digits := strings.TrimRight(s, "BkKMi")
	n, err := strconv.Atoi(strings.TrimSpace(digits))
	unit, known := units[s[len(digits):]]
	if err != nil || !known || n < 0 || n > most/unit || n*unit < least {
		r.fail(key, "must be a size with its unit (B, kB, MB, KiB, MiB) from %d to %d bytes, not %v", least, most, v)
		return def
	}
	return n * unit
}

// Err returns everything that was wrong, nil if nothing was. It is called last.
func (r *Reader) Err() error {
	var unknown []string
	for key := range r.table {
		if !slices.Contains(r.known, key) {
			unknown = append(unknown, key)
		}
	}
	slices.Sort(unknown)
	for _, key := range unknown {
		r.errs = append(r.errs, UnknownKey(key, r.known))
	}
	return errors.Join(r.errs...)
}

// UnknownKey returns the error for a key that is not known, which names the
// nearest one that is.
func UnknownKey(key string, known []string) error {
	best, distance := "", len(key)/2+2
	for _, k := range known {
		if d := editDistance(key, k); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return fmt.Errorf("unknown key %q", key)
	}
	return fmt.Errorf("unknown key %q, did you mean %q?", key, best)
}

// editDistance is the number of letters to insert, delete or change.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
