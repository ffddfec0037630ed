package demo

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"holdfast/cmd/internal/control"
	"holdfast/cmd/internal/table"
)

// keepEvents is how many events a live table shows.
const keepEvents = 6

// A view prints what happens: a table that is painted over in a terminal, lines
// elsewhere.
type view struct {
	o      Options
	screen table.Screen
	begin  time.Time

	mu     sync.Mutex
	events []string
	tags   []control.Tag // as last seen
	seen   time.Time
}

func newView(o Options) *view {
	return &view{o: o, begin: time.Now(), screen: table.Screen{W: o.Out, Height: o.Height}}
}

// live reports whether there is a terminal to paint in.
func (v *view) live() bool { return !v.o.JSON && v.o.Width() > 0 }

func (v *view) clock() string { return fmt.Sprintf("%5.1fs", time.Since(v.begin).Seconds()) }

// event tells that something happened.
func (v *view) event(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	line := v.clock() + "  " + fmt.Sprintf(format, args...)
	v.events = append(v.events, line)
	if !v.o.JSON && !v.live() {
		fmt.Fprintln(v.o.Out, line)
	}
}

// show shows a moment.
func (v *view) show(l look) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l.tags != nil {
		v.tags, v.seen = l.tags, time.Now()
	}
	switch {
	case v.o.JSON:
	case v.live():
		v.screen.Paint(v.frame(l, v.o.Width()))
	default:
		fmt.Fprintln(v.o.Out, v.clock()+"  "+v.line(l))
	}
}

// line is a moment in one line.
func (v *view) line(l look) string {
	return fmt.Sprintf("gateway %s; %s; upstream has %d readings in %d batches, %d counts; %d duplicates",
		state(l), backlog(l), l.verdict.Readings, l.verdict.Batches, l.verdict.Arrived, l.verdict.Repeats)
}

func state(l look) string {
	switch {
	case !l.running:
		return "has no power"
	case l.hub == nil:
		return "starts"
	}
	return fmt.Sprintf("up %s, %d MiB", time.Since(l.hub.Started).Round(time.Second), l.hub.Resident>>20)
}

func backlog(l look) string {
	if l.hub == nil || len(l.hub.Endpoints) == 0 {
		return "link not known"
	}
	e := l.hub.Endpoints[0]
	if !e.Connected {
		return fmt.Sprintf("link down, %d stored and waiting", e.Waiting)
	}
	return fmt.Sprintf("link up, %d waiting", e.Waiting)
}

// frame is a moment as a page.
func (v *view) frame(l look, width int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "holdfast demo %s of %s\n\n", time.Since(v.begin).Round(100*time.Millisecond), v.o.Duration)
	fmt.Fprintf(&b, "  gateway   %s\n", state(l))
	fmt.Fprintf(&b, "  upstream  %s\n", backlog(l))
	if l.hub != nil {
		fmt.Fprintf(&b, "  journal   offsets %d to %d, %d KiB\n", l.hub.Journal.First, l.hub.Journal.Committed, l.hub.Journal.Bytes>>10)
	} else {
		fmt.Fprintf(&b, "  journal   -\n")
	}
	r := l.verdict
	fmt.Fprintf(&b, "  arrived   %d readings in %d batches, %d missing; %d of %d acknowledged counts; %d duplicates\n\n",
		r.Readings, r.Batches, r.Holes, r.Arrived, r.Acked, r.Repeats)
	// Above the tags, because what is below them may not fit.
	for _, e := range v.events[max(0, len(v.events)-keepEvents):] {
		b.WriteString(table.Cut(e, max(20, width)) + "\n")
	}
	b.WriteByte('\n')
	rows := make([][]string, len(v.tags))
	gone := time.Since(v.seen)
	for i, t := range v.tags {
		age := "-"
		if t.Age >= 0 {
			age = fmt.Sprintf("%.1fs", t.Age+gone.Seconds())
		}
		rows[i] = []string{"  " + t.Device + "/" + t.Tag, table.Number(t.Text), t.Unit, t.Quality, age, t.Detail}
	}
	table.Write(&b, width, []table.Column{{Title: "  TAG", Give: true}, {Title: "VALUE", Right: true}, {Title: "UNIT"}, {Title: "QUALITY"},
		{Title: "AGE", Right: true}, {Title: "DETAIL", Give: true}}, rows)
	return b.String()
}

// verdict prints the proof.
func (v *view) verdict(r verdict) error {
	if v.o.JSON {
		e := json.NewEncoder(v.o.Out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	good := "nothing was lost"
	if r.Lost > 0 || r.Holes > 0 {
		good = "SOMETHING WAS LOST"
	}
	_, err := fmt.Fprintf(v.o.Out, `
%s
  counts    %d acknowledged by the gateway, %d of them arrived, %d lost, %d out of order
            %d more arrived whose acknowledgement the cut had swallowed
  readings  %d in %d batches, %d batches missing between them; the gateway was started %d times
  repeats   %d of %d arrivals were duplicates
`, strings.ToUpper(good[:1])+good[1:]+":", r.Acked, r.Arrived, r.Lost, r.OutOf, r.Extra, r.Readings, r.Batches, r.Holes, r.FieldRuns, r.Repeats, r.Total)
	return err
}
