// Package strict reads TOML the way a person who edits a file by hand wants it
// read: every key must be known, every quantity carries its unit, all mistakes
// are told at once, and each of them names the key, the file and the line, and
// the known key that is nearest to a misspelt one.
//
// It does no I/O: the caller reads the file and hands in the bytes.
package strict

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// A Document is one parsed file, and the mistakes found in it so far.
type Document struct {
	name     string
	tree     map[string]any
	places   map[string]int // path to line
	mistakes Mistakes
}

// A Mistake is one thing that is wrong in a file.
type Mistake struct {
	File string `json:"file"`
	Line int    `json:"line"` // counted from 1; 0 when the mistake is that something is missing
	Key  string `json:"key"`  // full path such as hub.journal.budget; "" for a syntax error
	Text string `json:"error"`
	Hint string `json:"hint,omitempty"` // what to do about it, "" when the text says it all
}

// Error returns the mistake on one line, without its hint.
func (m Mistake) Error() string {
	var b strings.Builder
	b.WriteString(m.File)
	if m.Line > 0 {
		fmt.Fprintf(&b, ":%d", m.Line)
	}
	b.WriteString(": ")
	if m.Key != "" {
		b.WriteString(m.Key)
		b.WriteString(": ")
	}
	b.WriteString(m.Text)
	return b.String()
}

// Mistakes is the error that reports all mistakes of one or more files.
type Mistakes []Mistake

// Error returns one line for each mistake.
func (ms Mistakes) Error() string {
	lines := make([]string, len(ms))
	for i, m := range ms {
		lines[i] = m.Error()
	}
	return strings.Join(lines, "\n")
}

// Parse reads the syntax of a file. name is what mistakes call the file. A
// syntax error is the only thing it reports, as Mistakes of length one, because
// nothing behind it can be trusted.
func Parse(name string, data []byte) (*Document, error) {
	d := &Document{name: name, tree: map[string]any{}}
	if err := toml.Unmarshal(data, &d.tree); err != nil {
		m := Mistake{File: name, Text: strings.TrimPrefix(err.Error(), "toml: ")}
		var at *toml.DecodeError
		if errors.As(err, &at) {
			m.Line, _ = at.Position()
			m.Key = strings.Join(at.Key(), ".")
		}
		return nil, Mistakes{m}
	}
	d.places = index(data)
	return d, nil
}

// Tree returns the file as plain TOML values. It must not be changed.
func (d *Document) Tree() map[string]any { return d.tree }

// Line returns the line on which a path was written, or the line of the
// nearest table around it, or 0.
func (d *Document) Line(path string) int {
	for path != "" {
		if line, ok := d.places[path]; ok {
			return line
		}
		path = parent(path)
	}
	return 0
}

// Add records a mistake at a path. A text of two lines is an error and its hint.
func (d *Document) Add(path, format string, args ...any) {
	text, hint, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
	d.mistakes = append(d.mistakes, Mistake{File: d.name, Line: d.Line(path), Key: path, Text: text, Hint: hint})
}

// Err returns all mistakes in the order of their lines, or nil.
func (d *Document) Err() error {
	if len(d.mistakes) == 0 {
		return nil
	}
	sorted := append(Mistakes(nil), d.mistakes...)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].Line < sorted[j].Line })
	return sorted
}

// Join returns the path of a key inside a table.
func Join(path, key string) string {
	if !bare(key) {
		key = fmt.Sprintf("%q", key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// At returns the path of an element of an array.
func At(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// bare reports whether a key needs no quotes (TOML 1.0, "Keys").
func bare(key string) bool {
	for i := 0; i < len(key); i++ {
		c := key[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return key != ""
}

// parent cuts the last key or index off a path. Quoted keys may hold any byte.
func parent(path string) string {
	quoted := false
	for i := len(path) - 1; i > 0; i-- {
		switch c := path[i]; {
		case c == '"' && path[i-1] != '\\':
			quoted = !quoted
		case !quoted && (c == '.' || c == '['):
			return path[:i]
		}
	}
	return ""
}

// Has reports whether the file writes the path itself.
func (d *Document) Has(path string) bool {
	_, ok := d.places[path]
	return ok
}
