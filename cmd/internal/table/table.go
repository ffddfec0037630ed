// Package table lays out rows for people: columns that line up, that fit the
// terminal, and, for live views, that are painted over in place.
package table

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Column is one column of a table.
type Column struct {
	Title string
	Right bool // numbers line up at their right end
	Give  bool // gives way when the terminal is too narrow
}

const between = "  "

// minGive is the least width that a column which gives way keeps.
const minGive = 8

// Write lays out rows below the titles. width is that of the terminal, 0 for
// no limit: then nothing is cut. Cells hold one line of text each.
func Write(w io.Writer, width int, columns []Column, rows [][]string) {
	wide := make([]int, len(columns))
	for i, c := range columns {
		wide[i] = utf8.RuneCountInString(c.Title)
	}
	for _, r := range rows {
		for i, cell := range r {
			wide[i] = max(wide[i], utf8.RuneCountInString(clean(cell)))
		}
	}
	fit(wide, width, columns)

	var b bytes.Buffer
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.Title
	}
	line(&b, wide, columns, titles)
	for _, r := range rows {
		line(&b, wide, columns, r)
	}
	_, _ = w.Write(b.Bytes())
}

// fit takes what is too much from the columns that give way, widest first.
func fit(wide []int, width int, columns []Column) {
	if width <= 0 {
		return
	}
	total := len(between) * (len(wide) - 1)
	for _, n := range wide {
		total += n
	}
	for ; total > width; total-- {
		widest := -1
		for i, c := range columns {
			if c.Give && wide[i] > minGive && (widest < 0 || wide[i] > wide[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		wide[widest]--
	}
}

func line(b *bytes.Buffer, wide []int, columns []Column, cells []string) {
	start := b.Len()
	for i, cell := range cells {
		if i > 0 {
			b.WriteString(between)
		}
		cell = Cut(clean(cell), wide[i])
		pad := strings.Repeat(" ", wide[i]-utf8.RuneCountInString(cell))
		if columns[i].Right {
			b.WriteString(pad + cell)
		} else {
			b.WriteString(cell + pad)
		}
	}
	end := b.Len()
	for end > start && b.Bytes()[end-1] == ' ' {
		end--
	}
	b.Truncate(end)
	b.WriteByte('\n')
}

// Cut shortens s to at most n characters, the last of which then is "…".
func Cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	return string(r[:max(0, n-1)]) + "…"
}

// Number shortens a number to six significant digits, which is more than any
// instrument has, and leaves all other text as it is.
func Number(s string) string {
	if len(s) <= 8 || !strings.ContainsAny(s, ".e") {
		return s
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return s
	}
	return strconv.FormatFloat(f, 'g', 6, 64)
}

// clean replaces what would move the cursor: values come from field devices.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}

// A Screen paints frames over each other in a terminal, without clearing what
// was there before.
type Screen struct {
	W      io.Writer
	Height func() int // of the terminal; 0 when not known

	painted int
}

// Paint replaces the frame before by this one. A frame that is higher than the
// terminal is cut and says so.
func (s *Screen) Paint(frame string) {
	lines := strings.Split(strings.TrimSuffix(frame, "\n"), "\n")
	if s.Height != nil {
		if room := s.Height() - 1; room > 1 && len(lines) > room {
			more := len(lines) - room + 1
			lines = append(lines[:room-1:room-1], fmt.Sprintf("… %d more lines", more))
		}
	}
	var b bytes.Buffer
	if s.painted > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", s.painted)
	}
	for _, l := range lines {
		b.WriteString(l)
		b.WriteString("\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	s.painted = len(lines)
	_, _ = s.W.Write(b.Bytes())
}
