package importer

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A row is one line of a table with a header.
type row struct {
	r     *reader
	line  int
	cells map[string]string // by column, in lower case; what is read is taken out
}

// take returns a cell, without spaces around it.
func (w *row) take(column string) string {
	key := strings.ToLower(column)
	s := strings.TrimSpace(w.cells[key])
	delete(w.cells, key)
	return s
}

// number returns a cell as a number.
func (w *row) number(column string, otherwise float64) float64 {
	s := w.take(column)
	if s == "" {
		return otherwise
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != f || f-f != 0 {
		w.r.lost(w.line, column, "%q is not a number", s)
		return otherwise
	}
	return f
}

// drop notes a cell that is given and not as usual.
func (w *row) drop(column, why string, usual ...string) {
	s := w.take(column)
	if s == "" || slices.ContainsFunc(usual, func(u string) bool { return strings.EqualFold(u, s) }) {
		return
	}
	w.r.lost(w.line, column, "%q: %s", s, why)
}

// rest notes the cells that nobody has read.
func (w *row) rest(columns []string) {
	for _, c := range columns {
		if s := strings.TrimSpace(w.cells[strings.ToLower(c)]); s != "" {
			w.r.lost(w.line, c, "%q has no counterpart", s)
		}
	}
}

// rows calls each for the rows below the header, which must have the columns
// needed. Columns that need not be told about are read by each and given by rest.
func (r *reader) rows(in Input, needed []string, each func(w *row)) error {
	data, err := trim(in)
	if err != nil {
		return err
	}
	c := csv.NewReader(bytes.NewReader(data))
	c.Comma = separator(data)
	c.FieldsPerRecord = -1
	c.LazyQuotes = true
	c.ReuseRecord = true
	head, err := c.Read()
	if err != nil {
		return fmt.Errorf("%s: there is no header row", in.Name)
	}
	columns := make([]string, len(head))
	for i, h := range head {
		columns[i] = strings.TrimSpace(h)
	}
	for _, n := range needed {
		if !slices.ContainsFunc(columns, func(c string) bool { return strings.EqualFold(c, n) }) {
			return fmt.Errorf("%s:1: the column %q is missing", in.Name, n)
		}
	}
	w := &row{r: r, cells: make(map[string]string, len(columns))}
	for {
		record, err := c.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", in.Name, err)
		}
		if strings.TrimSpace(strings.Join(record, "")) == "" {
			continue
		}
		w.line, _ = c.FieldPos(0)
		clear(w.cells)
		for i, cell := range record {
			if i < len(columns) {
				w.cells[strings.ToLower(columns[i])] = cell
			} else if strings.TrimSpace(cell) != "" {
				r.lost(w.line, fmt.Sprintf("column %d", i+1), "%q is beyond the last column", cell)
			}
		}
		each(w)
		w.rest(columns)
	}
}

func separator(data []byte) rune {
	line, _, _ := bytes.Cut(data, []byte{'\n'})
	if i := bytes.IndexAny(line, ",;\t"); i >= 0 {
		return rune(line[i])
	}
	return ','
}
