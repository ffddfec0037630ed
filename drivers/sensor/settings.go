package sensor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Settings reads the options of a chip from text, strictly: a key that no one
// asked for is an error that names the nearest one. Call the readers, then Err.
// The zero value has no settings.
type Settings struct {
	given map[string]string
	asked []string
	errs  []error
}

// NewSettings returns a reader of the given options. The map is not changed.
func NewSettings(given map[string]string) *Settings {
	return &Settings{given: maps.Clone(given)}
}

func (s *Settings) get(key string) (string, bool) {
	s.asked = append(s.asked, key)
	v, ok := s.given[key]
	return strings.TrimSpace(v), ok
}

func (s *Settings) fail(key, value, want string) {
	s.errs = append(s.errs, fmt.Errorf("option %q: %q: want %s", key, value, want))
}

// Duration returns a setting such as "200ms", or otherwise if it is not given.
// It must be above 0.
func (s *Settings) Duration(key string, otherwise time.Duration) time.Duration {
	text, ok := s.get(key)
	if !ok {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		s.fail(key, text, "a duration such as 500ms")
		return otherwise
	}
	return d
}

// Choice returns a setting that must be one of choices, or otherwise if it is
// not given.
func (s *Settings) Choice(key, otherwise string, choices ...string) string {
	text, ok := s.get(key)
	if !ok {
		return otherwise
	}
	if !slices.Contains(choices, text) {
		s.fail(key, text, "one of "+strings.Join(choices, ", "))
		return otherwise
	}
	return text
}

// Int returns a setting that must be one of choices, or otherwise if it is not
// given.
func (s *Settings) Int(key string, otherwise int, choices ...int) int {
	text, ok := s.get(key)
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || !slices.Contains(choices, n) {
		s.fail(key, text, "one of "+strings.Trim(fmt.Sprint(choices), "[]"))
		return otherwise
	}
	return n
}

// Float returns a setting that must be a number from low to high, or otherwise if
// it is not given.
func (s *Settings) Float(key string, otherwise, low, high float64) float64 {
	text, ok := s.get(key)
	if !ok {
		return otherwise
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f >= low && f <= high) {
		s.fail(key, text, fmt.Sprintf("a number from %g to %g", low, high))
		return otherwise
	}
	return f
}

// Text returns a setting as it is, or "" if it is not given.
func (s *Settings) Text(key string) string {
	text, _ := s.get(key)
	return text
}

// Missing notes that a setting must be given, and as what.
func (s *Settings) Missing(key, want string) {
	s.errs = append(s.errs, fmt.Errorf("option %q: missing: want %s", key, want))
}

// List returns a setting of comma-separated words, each one of choices and none
// twice, or otherwise if it is not given.
func (s *Settings) List(key string, otherwise []string, choices ...string) []string {
	text, ok := s.get(key)
	if !ok {
		return otherwise
	}
	var list []string
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		if !slices.Contains(choices, word) || slices.Contains(list, word) {
			s.fail(key, text, "some of "+strings.Join(choices, ", ")+", each once, with commas between")
			return otherwise
		}
		list = append(list, word)
	}
	return list
}

// Err returns what was wrong with the settings read, and an error for each key
// that no one asked for.
func (s *Settings) Err() error {
	errs := slices.Clone(s.errs)
	for _, key := range slices.Sorted(maps.Keys(s.given)) {
		if !slices.Contains(s.asked, key) {
			errs = append(errs, fmt.Errorf("option %q: unknown%s", key, Hint(key, s.asked)))
		}
	}
	return errors.Join(errs...)
}

// Hint returns ", did you mean X?" for the name in known that is nearest to the
// one given, or the list of known names if none is near.
func Hint(name string, known []string) string {
	best, least := "", 3 // more than two edits are another word
	for _, k := range known {
		if d := edits(strings.ToLower(name), k); d < least {
			best, least = k, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf(", did you mean %q?", best)
	case len(known) == 0:
		return ", there are none"
	}
	return ", there are " + strings.Join(known, ", ")
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
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
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
