package importer

import (
	"fmt"
	"strings"
)

// maxTable bounds the work of finding what two files have in common. Beyond it
// all that is between the same beginning and the same end counts as changed.
const maxTable = 4_000_000

// context is how many lines that stay are shown around a change.
const context = 3

// Diff returns what changes in a file, as diff -u writes it, "" when nothing
// does.
func (f *File) Diff() string {
	if f.Same() {
		return ""
	}
	before, after := split(f.Old), split(f.New)
	var b strings.Builder
	from := f.Path
	if f.Old == nil {
		from = "/dev/null"
	}
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", from, f.Path)
	for _, h := range hunks(edits(before, after)) {
		h.write(&b)
	}
	return b.String()
}

func split(data []byte) []string {
	if len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// An edit is one line of a diff.
type edit struct {
	kind byte // ' ', '-', '+'
	text string
}

// edits returns the lines of both files in order: what stays, goes and comes.
func edits(a, b []string) []edit {
	var out []edit
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		out = append(out, edit{' ', a[0]})
		a, b = a[1:], b[1:]
	}
	n := 0
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	tail := a[len(a)-n:]
	a, b = a[:len(a)-n], b[:len(b)-n]
	if len(a)*len(b) <= maxTable {
		out = append(out, common(a, b)...)
	} else {
		for _, s := range a {
			out = append(out, edit{'-', s})
		}
		for _, s := range b {
			out = append(out, edit{'+', s})
		}
	}
	for _, s := range tail {
		out = append(out, edit{' ', s})
	}
	return out
}

// common finds the longest common subsequence.
func common(a, b []string) []edit {
	width := len(b) + 1
	longest := make([]int32, (len(a)+1)*width)
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				longest[i*width+j] = longest[(i+1)*width+j+1] + 1
			} else {
				longest[i*width+j] = max(longest[(i+1)*width+j], longest[i*width+j+1])
			}
		}
	}
	var out []edit
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, edit{' ', a[i]})
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && longest[(i+1)*width+j] >= longest[i*width+j+1]:
			out = append(out, edit{'-', a[i]})
			i++
		default:
			out = append(out, edit{'+', b[j]})
			j++
		}
	}
	return out
}

// A hunk is a run of changes with lines around it.
type hunk struct {
	old, new int // first lines, from 1
	edits    []edit
}

func hunks(all []edit) []hunk {
	var out []hunk
	oldLine, newLine := 1, 1
	var open *hunk
	quiet := 0 // lines that stay since the last change
	for i, e := range all {
		if e.kind != ' ' && open == nil {
			from := max(0, i-context)
			if len(out) > 0 {
				from = max(from, i-quiet)
			}
			back := i - from
			out = append(out, hunk{old: oldLine - back, new: newLine - back, edits: append([]edit(nil), all[from:i]...)})
			open = &out[len(out)-1]
		}
		if open != nil {
			open.edits = append(open.edits, e)
		}
		if quiet++; e.kind != ' ' {
			quiet = 0
		}
		if open != nil && quiet > 2*context {
			open.edits = open.edits[:len(open.edits)-(quiet-context)]
			quiet -= context
			open = nil
		}
		if e.kind != '+' {
			oldLine++
		}
		if e.kind != '-' {
			newLine++
		}
	}
	if open != nil && quiet > context {
		open.edits = open.edits[:len(open.edits)-(quiet-context)]
	}
	return out
}

func (h *hunk) write(b *strings.Builder) {
	olds, news := 0, 0
	for _, e := range h.edits {
		if e.kind != '+' {
			olds++
		}
		if e.kind != '-' {
			news++
		}
	}
	old, fresh := h.old, h.new
	if olds == 0 {
		old--
	}
	if news == 0 {
		fresh--
	}
	fmt.Fprintf(b, "@@ -%d,%d +%d,%d @@\n", old, olds, fresh, news)
	for _, e := range h.edits {
		b.WriteByte(e.kind)
		b.WriteString(e.text)
		b.WriteByte('\n')
	}
}
