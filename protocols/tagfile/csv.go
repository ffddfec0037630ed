package tagfile

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"holdfast/protocols/point"
)

// decodeCSV reads rows under a header. The separator is the first comma,
// semicolon or tab of the header.
func decodeCSV(data []byte, name string) ([]point.Tag, error) {
	r := csv.NewReader(bytes.NewReader(data))
	r.Comma = separator(data)
	r.Comment = '#'
	r.FieldsPerRecord = -1
	r.ReuseRecord = true
	row, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, &Mistake{File: name, Line: 1, Text: "the header row is missing", Hint: "it begins with name,address"}
	}
	if err != nil {
		return nil, syntaxMistake(name, err)
	}
	headerLine, _ := r.FieldPos(0)
	columns, mistakes := header(row, headerLine)
	if len(mistakes) > 0 {
		return nil, join(name, mistakes)
	}
	tags, lines := []point.Tag{}, []int{}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.Join(join(name, mistakes), syntaxMistake(name, err))
		}
		line, _ := r.FieldPos(0)
		if strings.Join(row, "") == "" {
			continue // a row of separators only, which spreadsheets leave behind
		}
		tag, wrong := decodeRow(columns, row, line)
		mistakes = append(mistakes, wrong...)
		tags, lines = append(tags, tag), append(lines, line)
	}
	mistakes = append(mistakes, checkUnique(tags, lines)...)
	if len(mistakes) > 0 {
		slices.SortStableFunc(mistakes, func(a, b *Mistake) int { return a.Line - b.Line })
		return nil, join(name, mistakes)
	}
	return tags, nil
}

func decodeRow(columns, row []string, line int) (point.Tag, []*Mistake) {
	b := builder{}
	for i, text := range row {
		switch {
		case i < len(columns) && text != "":
			b.set(columns[i], cell(text), line)
		case text != "":
			b.fail("", line, "%q is beyond the last column; a text with the separator in it needs quotes", text)
		}
	}
	return b.finish(line)
}

// header checks the first row and returns its columns.
func header(row []string, line int) (columns []string, mistakes []*Mistake) {
	seen := map[string]bool{}
	b := builder{}
	for len(row) > 0 && strings.TrimSpace(row[len(row)-1]) == "" {
		row = row[:len(row)-1]
	}
	for i, text := range row {
		column := strings.ToLower(strings.TrimSpace(text))
		name, isParam := strings.CutPrefix(column, paramPrefix)
		switch {
		case column == "":
			b.fail("", line, "column %d has no name", i+1)
		case seen[column]:
			b.fail(column, line, "the column is there twice")
		case isParam && !validParam(name):
			b.fail(column, line, "a key of the protocol has only lower-case letters, digits and '_'")
		case !isParam && !slices.Contains(keys[:], column):
			b.unknown(column, line)
		}
		seen[column] = true
		columns = append(columns, column)
	}
	for _, needed := range []string{"name", "address"} {
		if !seen[needed] {
			b.fail(needed, line, "the column is missing")
		}
	}
	return columns, b.mistakes
}

// separator returns the first comma, semicolon or tab of the first line that
// is not a comment.
func separator(data []byte) rune {
	for line := range bytes.Lines(data) {
		if len(bytes.TrimSpace(line)) == 0 || line[0] == '#' {
			continue
		}
		if i := bytes.IndexAny(line, ",;\t"); i >= 0 {
			return rune(line[i])
		}
		break
	}
	return ','
}

func syntaxMistake(name string, err error) error {
	m := &Mistake{File: name, Text: err.Error()}
	if p, ok := errors.AsType[*csv.ParseError](err); ok {
		m.Line, m.Text = p.Line, p.Err.Error()
	}
	return m
}

// encodeCSV writes the columns that any of the tags needs.
func encodeCSV(tags []point.Tag) []byte {
	used, params := map[string]bool{"name": true, "address": true}, map[string]bool{}
	rows := make([][]field, len(tags))
	for i := range tags {
		rows[i] = fieldsOf(&tags[i])
		for _, f := range rows[i] {
			if strings.HasPrefix(f.key, paramPrefix) {
				params[f.key] = true
			}
			used[f.key] = true
		}
	}
	var columns []string
	for _, key := range keys {
		if used[key] {
			columns = append(columns, key)
		}
	}
	columns = append(columns, slices.Sorted(maps.Keys(params))...)
	var out bytes.Buffer
	out.WriteString(strings.Join(columns, ",") + "\n")
	place := make(map[string]int, len(columns))
	for i, c := range columns {
		place[c] = i
	}
	cells := make([]string, len(columns))
	for _, row := range rows {
		clear(cells)
		for _, f := range row {
			cells[place[f.key]] = formatCell(f.value)
		}
		for i, c := range cells {
			if i > 0 {
				out.WriteByte(',')
			}
			quoteCSV(&out, c)
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

func formatCell(v any) string {
	if f, ok := v.(float64); ok {
		return strings.TrimSuffix(formatFloat(f), ".0")
	}
	return fmt.Sprint(v)
}

// quoteCSV quotes more than it must: also what holds a semicolon or a tab, so
// that a program that splits there reads the same cells.
func quoteCSV(out *bytes.Buffer, s string) {
	if !strings.ContainsAny(s, ",;\t\"") && strings.TrimSpace(s) == s && !strings.HasPrefix(s, "#") {
		out.WriteString(s)
		return
	}
	out.WriteByte('"')
	out.WriteString(strings.ReplaceAll(s, `"`, `""`))
	out.WriteByte('"')
}
