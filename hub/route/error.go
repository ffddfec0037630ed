package route

import (
	"fmt"
	"strings"
)

// An Error is what is wrong with a route and where.
type Error struct {
	Line    int    // from 1
	Col     int    // from 1, in characters
	Problem string // what was expected, or what cannot be
	Nearest string // the known word that may have been meant, or empty
}

// Error returns position, problem and the nearest known word.
func (e *Error) Error() string {
	s := fmt.Sprintf("line %d, column %d: %s", e.Line, e.Col, e.Problem)
	if e.Nearest != "" {
		s += fmt.Sprintf("; did you mean %s?", e.Nearest)
	}
	return s
}

// errorAt makes an Error of a byte position in text.
func errorAt(text string, pos int, nearest, format string, args ...any) *Error {
	before := text[:min(pos, len(text))]
	line := 1 + strings.Count(before, "\n")
	last := strings.LastIndexByte(before, '\n') + 1
	return &Error{
		Line:    line,
		Col:     1 + len([]rune(before[last:])),
		Problem: fmt.Sprintf(format, args...),
		Nearest: nearest,
	}
}

// nearest returns the word of known that is at most two edits, and less than
// half its length, away from word; empty when there is none.
func nearest(word string, known ...string) string {
	best, found := 3, ""
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < best && d*2 <= len(k) {
			best, found = d, k
		}
	}
	return found
}

// distance is the Levenshtein distance of two short words, where exchanging
// two neighbours counts as one edit.
func distance(a, b string) int {
	if len(a) > 40 || len(b) > 40 {
		return 40
	}
	var d [41][41]int
	for i := range len(a) + 1 {
		for j := range len(b) + 1 {
			switch {
			case i == 0:
				d[i][j] = j
			case j == 0:
				d[i][j] = i
			default:
				cost := 1
				if a[i-1] == b[j-1] {
					cost = 0
				}
				d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
				if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
					d[i][j] = min(d[i][j], d[i-2][j-2]+1)
				}
			}
		}
	}
	return d[len(a)][len(b)]
}
