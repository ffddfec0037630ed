// Package tagfile reads and writes tag tables: lists of tags with an address, a
// type, a scale and so on, as a person keeps them in TOML or in a spreadsheet.
// FORMAT.md beside this file documents the columns. Both forms hold the same,
// and turning one into the other and back loses nothing.
//
// Reading is strict: every mistake is reported, with its line, and a misspelt
// key or column with the known one that is nearest. It does no I/O.
package tagfile

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"holdfast/protocols/point"
)

// A Mistake is one thing that is wrong in a tag table. The error of the
// functions of this package is one or more of them, joined.
type Mistake struct {
	File string // as given; "" for a table without a file
	Line int    // counted from 1; 0 if not known
	Key  string // key or column; "" if it is about the whole line or file
	Text string // what is wrong
	Hint string // what to do about it; "" when the text says it all
}

// Error returns the mistake on one line: file:line: key: text; hint.
func (m *Mistake) Error() string {
	var b strings.Builder
	if m.File != "" {
		b.WriteString(m.File + ":")
		if m.Line > 0 {
			fmt.Fprintf(&b, "%d:", m.Line)
		}
		b.WriteByte(' ')
	} else if m.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", m.Line)
	}
	if m.Key != "" {
		b.WriteString(m.Key + ": ")
	}
	b.WriteString(m.Text)
	if m.Hint != "" {
		b.WriteString(" (" + m.Hint + ")")
	}
	return b.String()
}

// Decode reads a tag table. name is the file's, for messages and to tell the
// form: .toml or .csv.
func Decode(data []byte, name string) ([]point.Tag, error) {
	data, err := text(data, name)
	if err != nil {
		return nil, err
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".toml":
		return decodeTOML(data, name)
	case ".csv":
		return decodeCSV(data, name)
	}
	return nil, &Mistake{File: name, Text: "unknown kind of tag table", Hint: "name it .toml or .csv"}
}

// text strips a byte order mark and refuses what is not UTF-8.
func text(data []byte, name string) ([]byte, error) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, &Mistake{File: name, Line: 1, Text: "the file is UTF-16", Hint: "save it as CSV UTF-8"}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if utf8.Valid(data) {
		return data, nil
	}
	line := 1
	for rest := data; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		if r == utf8.RuneError && size == 1 {
			break
		}
		if r == '\n' {
			line++
		}
		rest = rest[size:]
	}
	return nil, &Mistake{File: name, Line: line, Text: "the text is not UTF-8", Hint: "save it as CSV UTF-8"}
}

// Encode writes tags in the form that the name tells, .toml or .csv. It refuses
// tags that Decode would refuse.
func Encode(tags []point.Tag, name string) ([]byte, error) {
	if err := encodable(tags); err != nil {
		return nil, err
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".toml":
		return encodeTOML(tags), nil
	case ".csv":
		return encodeCSV(tags), nil
	}
	return nil, &Mistake{File: name, Text: "unknown kind of tag table", Hint: "name it .toml or .csv"}
}

func encodable(tags []point.Tag) error {
	var errs []error
	for i := range tags {
		b := builder{}
		for _, f := range fieldsOf(&tags[i]) {
			b.set(f.key, f.value, 0)
		}
		_, mistakes := b.finish(0)
		for _, m := range mistakes {
			m.Text = fmt.Sprintf("tag %q: %s", tags[i].Name, m.Text)
			errs = append(errs, m)
		}
	}
	return errors.Join(errs...)
}

// FromTable makes a tag of a table that a TOML file holds inline, as the
// decoder gives it: text, int64, float64, bool and, for params, a table.
// Mistakes carry their key and no file or line.
func FromTable(table map[string]any) (point.Tag, error) {
	b := builder{}
	b.table(table, func(string) int { return 0 })
	tag, mistakes := b.finish(0)
	return tag, join("", mistakes)
}

func join(file string, mistakes []*Mistake) error {
	errs := make([]error, len(mistakes))
	for i, m := range mistakes {
		m.File = file
		errs[i] = m
	}
	return errors.Join(errs...)
}

// checkUnique reports names that are there twice.
func checkUnique(tags []point.Tag, lines []int) (mistakes []*Mistake) {
	first := make(map[string]int, len(tags))
	for i := range tags {
		name := tags[i].Name
		if at, ok := first[name]; ok && name != "" {
			mistakes = append(mistakes, &Mistake{
				Line: lines[i], Key: "name", Text: fmt.Sprintf("tag %q is there twice, first in line %d", name, at),
			})
			continue
		}
		first[name] = lines[i]
	}
	return mistakes
}
