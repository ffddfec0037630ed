package point

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest name of a device or tag, in bytes.
const MaxName = 255

// CheckName reports why s cannot be the name of a device or a tag: it is part
// of MQTT topics, so it has no '/', '+', '#', control or invalid characters, is
// not empty, does not begin with '$', and is at most MaxName bytes long.
func CheckName(s string) error {
	switch {
	case s == "":
		return errors.New("the name is empty")
	case len(s) > MaxName:
		return fmt.Errorf("name %.20q... is longer than %d bytes", s, MaxName)
	case s[0] == '$':
		return fmt.Errorf("name %q begins with '$'", s)
	case !utf8.ValidString(s):
		return fmt.Errorf("name %q is not UTF-8", s)
	case strings.TrimSpace(s) != s:
		return fmt.Errorf("name %q begins or ends with a space", s)
	}
	for _, r := range s {
		if r == '/' || r == '+' || r == '#' || unicode.IsControl(r) {
			return fmt.Errorf("name %q contains %q", s, r)
		}
	}
	return nil
}

// Check reports every mistake in the parts of a tag that all protocols share,
// joined. Address, Type and Params are the protocol's to check.
func (t *Tag) Check() error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("tag %q: %w", t.Name, err))
		}
	}
	add(CheckName(t.Name))
	add(t.Scale.Check())
	add(t.Dead.Check(t.Scale))
	add(t.Reduce.Check(t.Scale, t.Dead))
	if t.Access > WriteOnly {
		add(errors.New("unknown access"))
	}
	if t.Stale < 0 {
		add(errors.New("stale: the time must not be negative"))
	}
	for _, limit := range []*float64{t.Min, t.Max} {
		if limit != nil && (math.IsNaN(*limit) || math.IsInf(*limit, 0)) {
			add(errors.New("min and max must be finite"))
		}
	}
	if t.Min != nil && t.Max != nil && *t.Min > *t.Max {
		add(fmt.Errorf("min %g is above max %g", *t.Min, *t.Max))
	}
	return errors.Join(errs...)
}

// Equal reports whether two tags are configured alike.
func (t *Tag) Equal(u *Tag) bool {
	if len(t.Params) != len(u.Params) || !sameLimit(t.Min, u.Min) || !sameLimit(t.Max, u.Max) {
		return false
	}
	for k, v := range t.Params {
		if w, ok := u.Params[k]; !ok || v != w {
			return false
		}
	}
	return t.Name == u.Name && t.Address == u.Address && t.Type == u.Type && t.Class == u.Class &&
		t.Access == u.Access && t.Unit == u.Unit && t.Comment == u.Comment && t.Scale == u.Scale &&
		t.Dead == u.Dead && t.Reduce == u.Reduce && t.Stale == u.Stale
}

func sameLimit(a, b *float64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
