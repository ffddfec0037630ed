package mqtt

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"holdfast/hub"
)

// A template is a topic with places to fill in, level by level. The package
// comment says what may stand in it.
type template []level

// A level is what stands between two slashes.
type level []piece

// A piece is a fixed text, or a place to fill in when source is not "".
type piece struct {
	text   string // what stands there; of a place what does when it comes out empty
	source string // a name of names
	part   span
}

// A span picks levels of a text that has several. The zero value picks all.
type span struct {
	set      bool
	from, to int // negative: from the end
	open     bool
}

// Names that may stand in a template, in groups by where they are known.
var (
	recordNames  = []string{"topic", "sender"}
	gatewayNames = []string{"gateway"}
	deviceNames  = []string{"device", "path", "enterprise", "site", "area", "line", "cell"}
	tagNames     = []string{"tag", "unit", "class"}
)

// pathLevels are names of the first levels of a path (the equipment hierarchy of
// IEC 62264-1, 5.3).
var pathLevels = [...]string{"enterprise", "site", "area", "line", "cell"}

// ranged are the names whose text has levels of its own.
var ranged = []string{"topic", "path"}

// parseTemplate reads a template in which the names may stand.
func parseTemplate(s string, names ...string) (template, error) {
	if i := strings.IndexAny(s, "+#\x00"); i >= 0 {
		return nil, fmt.Errorf("%q holds a wildcard or NUL", s)
	}
	t := template{nil}
	for rest := s; rest != ""; {
		open := strings.IndexAny(rest, "{}")
		fixed := rest
		if open >= 0 {
			fixed = rest[:open]
		}
		t.fixed(fixed)
		if open < 0 {
			return t, nil
		}
		end := strings.IndexAny(rest[open+1:], "{}")
		if rest[open] == '}' || end < 0 || rest[open+1+end] == '{' {
			return nil, fmt.Errorf("braces in %q do not match", s)
		}
		p, err := parsePlace(rest[open+1:open+1+end], names)
		if err != nil {
			return nil, err
		}
		last := len(t) - 1
		t[last] = append(t[last], p)
		rest = rest[open+end+2:]
	}
	return t, nil
}

// fixed appends a text, whose slashes begin levels.
func (t *template) fixed(s string) {
	for i, part := range strings.Split(s, "/") {
		if i > 0 {
			*t = append(*t, nil)
		}
		if last := len(*t) - 1; part != "" {
			(*t)[last] = append((*t)[last], piece{text: part})
		}
	}
}

// parsePlace reads what stands between braces: name, name[span], either with
// |text behind it.
func parsePlace(s string, names []string) (p piece, err error) {
	place, text, _ := strings.Cut(s, "|")
	p.text = text
	name, index, isRanged := strings.Cut(place, "[")
	p.source = name
	if !slices.Contains(names, name) {
		err := fmt.Errorf("%q is not one of {%s}", "{"+s+"}", strings.Join(names, "}, {"))
		if name == "device" && slices.Contains(names, "gateway") {
			err = fmt.Errorf("%w; this gateway is {gateway}", err)
		}
		return p, err
	}
	if isRanged {
		if !slices.Contains(ranged, name) {
			return p, fmt.Errorf("%q: only {%s} have levels to choose from", "{"+s+"}", strings.Join(ranged, "}, {"))
		}
		if p.part, err = parseSpan(index); err != nil {
			return p, fmt.Errorf("%q: %w", "{"+s+"}", err)
		}
	}
	if i := slices.Index(pathLevels[:], name); i >= 0 {
		p.source, p.part = "path", span{set: true, from: i, to: i + 1}
	}
	return p, nil
}

var errSpan = errors.New("want levels such as [0], [-1], [1:] or [1:3]")

// parseSpan reads what follows the bracket that opens.
func parseSpan(s string) (span, error) {
	s, closed := strings.CutSuffix(s, "]")
	from, to, isRange := strings.Cut(s, ":")
	p := span{set: true, open: isRange && to == ""}
	var err error
	if from != "" || !isRange {
		p.from, err = strconv.Atoi(from)
	}
	switch {
	case !closed || err != nil:
		return p, errSpan
	case !isRange && p.from == -1:
		p.open = true
	case !isRange:
		p.to = p.from + 1
	case to != "":
		if p.to, err = strconv.Atoi(to); err != nil {
			return p, errSpan
		}
	}
	return p, nil
}

// of returns the levels of s that p picks, "" when there are none.
func (p span) of(s []byte) []byte {
	if !p.set {
		return s
	}
	n := 1
	for _, c := range s {
		if c == '/' {
			n++
		}
	}
	from, to := p.from, p.to
	if from < 0 {
		from = max(0, n+from)
	}
	switch {
	case p.open:
		to = n
	case to < 0:
		to += n
	}
	if to = min(to, n); from >= to {
		return nil
	}
	start, end, at := 0, len(s), 0
	for i, c := range s {
		if c != '/' {
			continue
		}
		if at++; at == from {
			start = i + 1
		}
		if at == to {
			end = i
			break
		}
	}
	return s[start:end]
}

// append fills the template in. The record and what a message is about may be
// nil where no name needs them.
func (t template) append(dst []byte, gateway string, r *hub.Record, a *About) []byte {
	begun := false
	for _, l := range t {
		before := len(dst)
		if begun {
			dst = append(dst, '/')
		}
		start, mayVanish := len(dst), len(l) > 0
		for i := range l {
			if l[i].source == "" {
				dst, mayVanish = append(dst, l[i].text...), false
				continue
			}
			dst = l[i].append(dst, gateway, r, a)
		}
		if mayVanish && len(dst) == start {
			dst = dst[:before]
			continue
		}
		begun = true
	}
	return dst
}

// append fills one place in.
func (p *piece) append(dst []byte, gateway string, r *hub.Record, a *About) []byte {
	start := len(dst)
	switch p.source {
	case "topic":
		dst = append(dst, p.part.of(r.Topic)...)
	case "sender":
		dst = appendLevel(dst, r.Sender)
	case "gateway":
		dst = appendLevel(dst, gateway)
	case "device":
		dst = appendLevel(dst, a.Device)
	case "tag":
		dst = appendLevel(dst, a.Tag)
	case "unit":
		dst = appendLevel(dst, a.Unit)
	case "class":
		dst = appendLevel(dst, a.Class)
	case "path":
		dst = append(dst, a.Path...)
		dst = append(dst[:start], p.part.of(dst[start:])...)
	}
	if len(dst) == start {
		dst = append(dst, p.text...)
	}
	return dst
}

// appendLevel appends s so that it is one level of a topic and can be told from
// any other s.
func appendLevel[T string | []byte](dst []byte, s T) []byte {
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
