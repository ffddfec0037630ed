package sim

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"holdfast/protocols/point"
)

// A trace is one column of a recording: what it showed from when on.
type trace struct {
	at    []time.Duration // rising, the first is 0
	cells []string
	end   time.Duration // where a loop begins again: the last time and one step more
}

// parseTrace reads a CSV recording. The first column is the time, in seconds or
// as RFC 3339, rising; the others have their names in the header. An empty cell is
// a moment at which the column had no value.
func parseTrace(data []byte, column string) (*trace, error) {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	r.Comment = '#'
	rows, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) < 2 {
		return nil, errors.New("the trace has no rows")
	}
	place := slices.Index(rows[0], column)
	if place < 1 {
		return nil, fmt.Errorf("no column %q after the time: there are %q", column, rows[0])
	}
	t := &trace{}
	var first time.Duration
	for i, row := range rows[1:] {
		at, err := parseTime(row[0])
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", i+2, err)
		}
		if i == 0 {
			first = at
		}
		at -= first
		if i > 0 && at <= t.at[i-1] {
			return nil, fmt.Errorf("row %d: time %q does not rise", i+2, row[0])
		}
		t.at, t.cells = append(t.at, at), append(t.cells, row[place])
	}
	last := t.at[len(t.at)-1]
	t.end = last + time.Second
	if len(t.at) > 1 {
		t.end = last + (last-t.at[0])/time.Duration(len(t.at)-1)
	}
	return t, nil
}

// parseTime returns a time since 1970, from seconds or RFC 3339.
func parseTime(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	const most = float64(math.MaxInt64/4) / float64(time.Second)
	if f, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(f) < most {
		whole, part := math.Modf(f)
		return time.Duration(whole)*time.Second + time.Duration(math.Round(part*1e9)), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || math.Abs(float64(at.Unix())) > most {
		return 0, fmt.Errorf("time %q is neither seconds nor RFC 3339", text)
	}
	return time.Duration(at.Unix())*time.Second + time.Duration(at.Nanosecond()), nil
}

// cell returns what the trace shows at a time since its start.
func (t *trace) cell(at time.Duration, loop bool) (text string, ok bool) {
	if at >= t.end {
		if !loop {
			return "", false
		}
		at %= t.end
	}
	i := sort.Search(len(t.at), func(i int) bool { return t.at[i] > at })
	return t.cells[max(0, i-1)], true
}

// replay returns the sample of a trace signal.
func (s *signal) replay(at time.Duration, readFile func(string) ([]byte, error)) point.Sample {
	if !s.traceRead {
		s.traceRead = true
		data, err := readFile(s.shape.file)
		if err == nil {
			s.trace, err = parseTrace(data, s.shape.column)
		}
		if err != nil {
			s.traceErr = fmt.Errorf("trace %q: %w", s.shape.file, err)
		}
	}
	if s.traceErr != nil {
		return point.Sample{Quality: point.BadConfigurationError, Detail: s.traceErr.Error()}
	}
	text, ok := s.trace.cell(time.Duration(float64(at)*s.shape.speed), s.shape.loop)
	switch {
	case !ok:
		return point.Sample{Quality: point.BadNoData, Detail: "the trace is over"}
	case text == "":
		return point.Sample{Quality: point.BadNoData, Detail: "the trace has no value here"}
	case s.shape.typ == "string":
		return point.Sample{Value: point.StringValue(text)}
	}
	v, err := point.ParseValue([]byte(text))
	if err == nil {
		if typed, ok := s.shape.typed(v); ok {
			return point.Sample{Value: typed}
		}
	}
	return point.Sample{Quality: point.BadTypeMismatch, Detail: fmt.Sprintf("the trace holds %q, which is not of type %s", text, s.shape.typ)}
}
