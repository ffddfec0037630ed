package opcua

import (
	"fmt"
	"math"
	"sort"
	"time"
)

// reader takes typed values out of a decoded TOML table and gathers mistakes.
type reader struct {
	m     map[string]any
	known map[string]bool
	errs  []error
}

func (r *reader) fail(key, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("key %q: "+format, append([]any{key}, args...)...))
}

func (r *reader) take(key string) (any, bool) {
	r.known[key] = true
	v, ok := r.m[key]
	return v, ok
}

func (r *reader) text(key, def string) string {
	v, ok := r.take(key)
	if !ok {
		return def
	}
	s, ok := v.(string)
	if !ok {
		r.fail(key, "%v is not a text", v)
		return def
	}
	return s
}

// choice returns the index of the name given; the first is the default.
func (r *reader) choice(key string, names []string) int {
	got := r.text(key, names[0])
	for i, n := range names {
		if n == got {
			return i
		}
	}
	r.fail(key, "%q is none of %q%s", got, names, didYouMean(got, names))
	return 0
}

func (r *reader) boolean(key string, def bool) bool {
	v, ok := r.take(key)
	if !ok {
		return def
	}
	b, ok := v.(bool)
	if !ok {
		r.fail(key, "%v is neither true nor false", v)
		return def
	}
	return b
}

func (r *reader) integer(key string, def, low, high int) int {
	v, ok := r.take(key)
	if !ok {
		return def
	}
	var n int64
	switch x := v.(type) {
	case int64:
		n = x
	case int:
		n = int64(x)
	default:
		r.fail(key, "%v is not a whole number", v)
		return def
	}
	if n < int64(low) || n > int64(high) {
		r.fail(key, "%d is not in %d to %d", n, low, high)
		return def
	}
	return int(n)
}

// duration reads a text with a unit, such as "500ms".
func (r *reader) duration(key string, def, low, high time.Duration) time.Duration {
	v, ok := r.take(key)
	if !ok {
		return def
	}
	var d time.Duration
	switch x := v.(type) {
	case string:
		var err error
		if d, err = time.ParseDuration(x); err != nil {
			r.fail(key, "%q is not a duration with a unit, such as \"500ms\"", x)
			return def
		}
	case time.Duration:
		d = x
	default:
		r.fail(key, "%v is not a duration with a unit, such as \"500ms\"", v)
		return def
	}
	if d < low || d > high || d > math.MaxInt64/64 {
		r.fail(key, "%v is not in %v to %v", d, low, high)
		return def
	}
	return d
}

// unknown reports keys that nothing has asked for.
func (r *reader) unknown() {
	names := make([]string, 0, len(r.known))
	for k := range r.known {
		names = append(names, k)
	}
	sort.Strings(names)
	var bad []string
	for k := range r.m {
		if !r.known[k] {
			bad = append(bad, k)
		}
	}
	sort.Strings(bad)
	for _, k := range bad {
		r.errs = append(r.errs, fmt.Errorf("unknown key %q%s", k, didYouMean(k, names)))
	}
}
