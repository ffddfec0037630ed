// Package bench measures Holdfast against its peers: both sides in turn on the
// same machine, round by round, so that a figure is a ratio of neighbours in
// time and not a memory of a quieter hour.
package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Options say what to measure and with what.
type Options struct {
	Bin    string         // folder with the holdfast program
	Dir    string         // scratch folder on the disk to be measured
	Rounds int            // rounds of every paired measurement [5]
	Only   *regexp.Regexp // names of the measurements to run, nil = all
	Out    io.Writer      // progress, a line each
}

// A Row is one line of the table.
type Row struct {
	Name     string // what was measured
	Holdfast string // our figure, median and range
	Peer     string // the other side's, "" when there is none
	Ratio    string // median of the same-round ratios
	Target   string // what was promised
	Met      Verdict
	Note     string // conditions, or why the row has no figure
}

// Verdict says whether a row's target was met.
type Verdict uint8

// The verdicts.
const (
	NoTarget Verdict = iota
	Met
	Missed
	Unmeasured
)

// String returns the verdict as it stands in the table.
func (v Verdict) String() string {
	return [...]string{"", "met", "**missed**", "not measured"}[v]
}

// verdict compares a figure with its target.
func verdict(ok bool) Verdict {
	if ok {
		return Met
	}
	return Missed
}

// A measurement is one entry of the suite: it returns the rows that it made.
type measurement struct {
	name string
	run  func(context.Context, *Options) ([]Row, error)
}

// suite lists all measurements in the order of the table.
func suite() []measurement {
	return []measurement{
		{"hub", hubRates},
		{"latency", hubLatency},
		{"slow-disk", hubSlowDisk},
		{"memory", hubMemory},
		{"backlog", hubBacklog},
		{"flash", hubFlash},
		{"field", fieldRates},
		{"opcua", opcuaRates},
		{"write", writeLatency},
		{"start", startAndSize},
	}
}

// Names returns the names of all measurements.
func Names() []string {
	var names []string
	for _, m := range suite() {
		names = append(names, m.name)
	}
	return names
}

// Run runs the measurements and returns their rows. A measurement that cannot
// be made gives a row that says why; the others still run.
func Run(ctx context.Context, o Options) ([]Row, error) {
	if o.Rounds == 0 {
		o.Rounds = 5
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	var rows []Row
	for _, m := range suite() {
		if o.Only != nil && !o.Only.MatchString(m.name) {
			continue
		}
		if ctx.Err() != nil {
			return rows, ctx.Err()
		}
		fmt.Fprintf(o.Out, "%s %s\n", time.Now().Format("15:04:05"), m.name)
		got, err := m.run(ctx, &o)
		if err != nil {
			got = append(got, Row{Name: m.name, Met: Unmeasured, Note: err.Error()})
			fmt.Fprintf(o.Out, "  %s: %v\n", m.name, err)
		}
		rows = append(rows, got...)
	}
	return rows, nil
}

// Table renders rows as a Markdown table.
func Table(rows []Row) string {
	var b strings.Builder
	b.WriteString("| what | Holdfast | peer | ratio | target | | conditions |\n|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", r.Name, r.Holdfast, r.Peer, r.Ratio, r.Target, r.Met, strings.ReplaceAll(r.Note, "|", "/"))
	}
	return b.String()
}

const (
	tableBegin = "<!-- table: make bench -->"
	tableEnd   = "<!-- end of table -->"
)

// WriteTable puts rows into the table of the Markdown file at path, which marks
// its place: a row takes the place of the row of the same name, and comes last
// if there is none. With whole, rows that were not made again are left out.
// about says when and on what the rows were made.
func WriteTable(path string, rows []Row, about string, whole bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(text), tableBegin)
	old, tail, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%q has no place for the table: it needs a line %q and a line %q", path, tableBegin, tableEnd)
	}
	table := Table(rows)
	if !whole {
		table = merge(old, table)
	}
	out := head + tableBegin + "\n\n" + about + "\n\n" + table + "\n" + tableEnd + tail
	return os.WriteFile(path, []byte(out), 0o644)
}

// merge returns the old table with the lines of the new one in their places. A
// measurement may make two rows of one name: the second is the second.
func merge(old, table string) string {
	var lines []string
	place := map[string][]int{}
	for line := range strings.Lines(old) {
		if strings.HasPrefix(line, "|") {
			place[cell(line)] = append(place[cell(line)], len(lines))
			lines = append(lines, line)
		}
	}
	for line := range strings.Lines(table) {
		name := cell(line)
		if at := place[name]; len(at) > 0 {
			lines[at[0]], place[name] = line, at[1:]
			continue
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

// cell returns the first cell of a table's line.
func cell(line string) string {
	_, rest, _ := strings.Cut(line, "|")
	name, _, _ := strings.Cut(rest, "|")
	return strings.TrimSpace(name)
}

// A series is one figure over all rounds.
type series []float64

func (s series) median() float64 {
	if len(s) == 0 {
		return 0
	}
	c := slices.Clone(s)
	slices.Sort(c)
	if n := len(c); n%2 == 0 {
		return (c[n/2-1] + c[n/2]) / 2
	}
	return c[len(c)/2]
}

// over returns the ratios of s to t, round by round.
func (s series) over(t series) series {
	var r series
	for i := range min(len(s), len(t)) {
		if t[i] != 0 {
			r = append(r, s[i]/t[i])
		}
	}
	return r
}

// show prints the median and the range with the given verb for one number.
func (s series) show(verb string) string {
	if len(s) == 0 {
		return "none"
	}
	f := func(x float64) string { return fmt.Sprintf(verb, x) }
	return fmt.Sprintf("%s [%s..%s]", f(s.median()), f(slices.Min(s)), f(slices.Max(s)))
}

// thousands prints a rate as 123 k.
func (s series) thousands(unit string) string {
	k := make(series, len(s))
	for i, x := range s {
		k[i] = x / 1e3
	}
	return k.show("%.0f") + " k" + unit
}
