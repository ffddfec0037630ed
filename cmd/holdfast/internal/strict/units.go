package strict

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span that is written with its unit: "250ms", "10s",
// "1h30m", "7d".
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns d with units.
func (d Duration) String() string {
	if day := Duration(24 * time.Hour); d != 0 && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// DecodeTOML takes text with a unit. Negative spans are refused.
func (d *Duration) DecodeTOML(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("%s is not a duration\nwrite it in quotes with its unit, such as \"250ms\", \"10s\" or \"2h\"", Show(v))
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n >= 0 && n <= 36500 {
			*d = Duration(n * float64(24*time.Hour))
			return nil
		}
	}
	span, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration\nunits are \"us\", \"ms\", \"s\", \"m\", \"h\" and \"d\", such as \"250ms\" or \"1h30m\"", s)
	}
	if span < 0 {
		return fmt.Errorf("%q is negative", s)
	}
	*d = Duration(span)
	return nil
}

// Size is a number of bytes that is written with its unit: "64MiB", "512KiB",
// "10GB", "100B".
type Size int64

var sizeUnits = []struct {
	name  string
	bytes float64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// String returns s in the largest binary unit that leaves no fraction.
func (s Size) String() string {
	for _, u := range sizeUnits[:4] {
		if s != 0 && int64(s)%int64(u.bytes) == 0 {
			return fmt.Sprintf("%d%s", int64(s)/int64(u.bytes), u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(s))
}

// DecodeTOML takes text with a unit.
func (s *Size) DecodeTOML(v any) error {
	text, ok := v.(string)
	if !ok {
		return fmt.Errorf("%s is not a size\nwrite it in quotes with its unit, such as \"64MiB\" or \"2GB\"", Show(v))
	}
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || n < 0 || math.IsNaN(n) || n*u.bytes > 1<<60 {
			break
		}
		*s = Size(n * u.bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size\nunits are B, kB, MB, GB, TB and KiB, MiB, GiB, TiB, such as \"64MiB\"", text)
}
