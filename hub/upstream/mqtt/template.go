package mqtt

import (
	"fmt"
	"slices"
	"strings"

	"holdfast/hub"
)

// A template is a topic with places to fill in: fixed texts at even indices,
// names at odd ones.
type template []string

func parseTemplate(s string) template {
	var t template
	for {
		before, rest, found := strings.Cut(s, "{")
		t = append(t, before)
		if !found {
			return t
		}
		name, after, _ := strings.Cut(rest, "}")
		t, s = append(t, name), after
	}
}

// checkTemplate finds names that are not known and braces that do not match.
func checkTemplate(s string, names ...string) error {
	depth := 0
	for _, c := range s {
		switch c {
		case '{':
			depth++
		case '}':
			depth--
		case '+', '#', 0:
			return fmt.Errorf("%q holds a wildcard or NUL", s)
		}
		if depth < 0 || depth > 1 {
			break
		}
	}
	if depth != 0 {
		return fmt.Errorf("braces in %q do not match", s)
	}
	for i, name := range parseTemplate(s) {
		if i%2 == 1 && !slices.Contains(names, name) {
			return fmt.Errorf("%q is not one of {%s}", "{"+name+"}", strings.Join(names, "}, {"))
		}
	}
	return nil
}

// append fills the template in for a record, which may be nil.
func (t template) append(dst []byte, device string, r *hub.Record) []byte {
	for i, s := range t {
		switch {
		case i%2 == 0:
			dst = append(dst, s...)
		case s == "topic":
			dst = append(dst, r.Topic...)
		case s == "sender":
			dst = appendLevel(dst, string(r.Sender))
		case s == "device":
			dst = appendLevel(dst, device)
		}
	}
	return dst
}

// appendLevel appends s so that it is one level of a topic and can be told from
// any other s.
func appendLevel(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		switch c := s[i]; c {
		case '/', '+', '#', '%', 0:
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
