package gpiotest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"holdfast/drivers/gpio"
)

// An Op is one thing done with a line.
type Op struct {
	Line string
	What string // "open", "read", "set", "edge", "close"
	// Level is what was read or set, or the level after the edge.
	Level gpio.Level
	Err   error
}

// String returns the operation in words, such as "DOOR read high".
func (o Op) String() string {
	s := o.Line + " " + o.What
	if o.What != "open" && o.What != "close" {
		s += " " + o.Level.String()
	}
	if o.Err != nil {
		s += ": " + o.Err.Error()
	}
	return s
}

// mostOps is how many operations a recorder keeps.
const mostOps = 1 << 16

// A Recorder passes everything on to lines and keeps the first 65,536 operations;
// it counts the rest, because a recording is good only from its beginning. Counts
// are not recorded.
type Recorder struct {
	lines gpio.Lines

	mu     sync.Mutex
	ops    []Op
	missed int
}

// NewRecorder returns a recorder in front of lines.
func NewRecorder(lines gpio.Lines) *Recorder { return &Recorder{lines: lines} }

func (r *Recorder) keep(o Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ops) >= mostOps {
		r.missed++
		return
	}
	r.ops = append(r.ops, o)
}

// Ops returns what has been recorded, and how many later operations there was no
// room for.
func (r *Recorder) Ops() (ops []Op, missed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ops), r.missed
}

// Input satisfies [gpio.Lines].
func (r *Recorder) Input(ctx context.Context, line string, c gpio.InputConfig) (gpio.Input, error) {
	in, err := r.lines.Input(ctx, line, c)
	r.keep(Op{Line: line, What: "open", Err: err})
	if err != nil {
		return nil, err
	}
	return &recorded{r: r, line: line, in: in}, nil
}

// Edges satisfies [gpio.Lines].
func (r *Recorder) Edges(ctx context.Context, line string, c gpio.EdgeConfig) (gpio.EdgeInput, error) {
	in, err := r.lines.Edges(ctx, line, c)
	r.keep(Op{Line: line, What: "open", Err: err})
	if err != nil {
		return nil, err
	}
	return &recorded{r: r, line: line, in: in, edges: in}, nil
}

// Output satisfies [gpio.Lines].
func (r *Recorder) Output(ctx context.Context, line string, c gpio.OutputConfig) (gpio.Output, error) {
	out, err := r.lines.Output(ctx, line, c)
	r.keep(Op{Line: line, What: "open", Err: err})
	if err != nil {
		return nil, err
	}
	return &recorded{r: r, line: line, in: out, out: out}, nil
}

// recorded is an open line of a recorder: in always, and one of the others.
type recorded struct {
	r     *Recorder
	line  string
	in    gpio.Input
	edges gpio.EdgeInput
	out   gpio.Output
}

func (l *recorded) String() string { return l.in.String() }

func (l *recorded) Read(ctx context.Context) (gpio.Level, error) {
	v, err := l.in.Read(ctx)
	l.r.keep(Op{Line: l.line, What: "read", Level: v, Err: err})
	return v, err
}

func (l *recorded) Set(ctx context.Context, v gpio.Level) error {
	err := l.out.Set(ctx, v)
	l.r.keep(Op{Line: l.line, What: "set", Level: v, Err: err})
	return err
}

func (l *recorded) Next(ctx context.Context) (gpio.Event, error) {
	ev, err := l.edges.Next(ctx)
	l.r.keep(Op{Line: l.line, What: "edge", Level: ev.Edge == gpio.Rising, Err: err})
	return ev, err
}

func (l *recorded) Counts() (gpio.Counts, error) { return l.edges.Counts() }

func (l *recorded) Close() error {
	err := l.in.Close()
	l.r.keep(Op{Line: l.line, What: "close", Err: err})
	return err
}

// A Playback is a set of lines that answer from a recording. Operations must come
// in the recorded order. Counts are those of the edges played so far.
type Playback struct {
	mu   sync.Mutex
	ops  []Op
	errs []string
}

// NewPlayback returns lines that play ops.
func NewPlayback(ops []Op) *Playback { return &Playback{ops: slices.Clone(ops)} }

// step takes the next operation, which must be this one on this line; a level to
// be set must be the recorded one.
func (p *Playback) step(ctx context.Context, line, what string, set *gpio.Level) (gpio.Level, error) {
	if err := ctx.Err(); err != nil {
		return gpio.Low, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	got := line + " " + what
	if set != nil {
		got += " " + set.String()
	}
	if len(p.ops) == 0 {
		return gpio.Low, p.fail("recording has ended, got %s", got)
	}
	o := p.ops[0]
	if o.Line != line || o.What != what || set != nil && o.Level != *set {
		return gpio.Low, p.fail("recorded %s, got %s", o, got)
	}
	p.ops = p.ops[1:]
	return o.Level, o.Err
}

func (p *Playback) fail(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if len(p.errs) < 10 { // the first ones tell the story
		p.errs = append(p.errs, text)
	}
	return fmt.Errorf("gpio playback: %s", text)
}

// Close returns an error if an operation differed from the recording or if some of
// the recording is left over.
func (p *Playback) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.errs) > 0:
		return errors.New("gpio playback: " + strings.Join(p.errs, "; "))
	case len(p.ops) > 0:
		return fmt.Errorf("gpio playback: %d operations left over, the next is %s", len(p.ops), p.ops[0])
	}
	return nil
}

// Input satisfies [gpio.Lines].
func (p *Playback) Input(ctx context.Context, line string, _ gpio.InputConfig) (gpio.Input, error) {
	if _, err := p.step(ctx, line, "open", nil); err != nil {
		return nil, err
	}
	return &played{p: p, line: line}, nil
}

// Edges satisfies [gpio.Lines].
func (p *Playback) Edges(ctx context.Context, line string, _ gpio.EdgeConfig) (gpio.EdgeInput, error) {
	if _, err := p.step(ctx, line, "open", nil); err != nil {
		return nil, err
	}
	return &played{p: p, line: line}, nil
}

// Output satisfies [gpio.Lines].
func (p *Playback) Output(ctx context.Context, line string, _ gpio.OutputConfig) (gpio.Output, error) {
	if _, err := p.step(ctx, line, "open", nil); err != nil {
		return nil, err
	}
	return &played{p: p, line: line}, nil
}

// played is an open line of a playback.
type played struct {
	p    *Playback
	line string

	mu     sync.Mutex
	counts gpio.Counts
}

func (l *played) String() string { return "gpio line " + l.line }

func (l *played) Read(ctx context.Context) (gpio.Level, error) {
	return l.p.step(ctx, l.line, "read", nil)
}

func (l *played) Set(ctx context.Context, v gpio.Level) error {
	_, err := l.p.step(ctx, l.line, "set", &v)
	return err
}

func (l *played) Next(ctx context.Context) (gpio.Event, error) {
	v, err := l.p.step(ctx, l.line, "edge", nil)
	if err != nil {
		return gpio.Event{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ev := gpio.Event{Edge: gpio.Falling}
	if v {
		ev.Edge = gpio.Rising
		l.counts.Rising++
	} else {
		l.counts.Falling++
	}
	return ev, nil
}

func (l *played) Counts() (gpio.Counts, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts, nil
}

func (l *played) Close() error {
	_, err := l.p.step(context.Background(), l.line, "close", nil)
	return err
}

var (
	_ gpio.Lines = (*Recorder)(nil)
	_ gpio.Lines = (*Playback)(nil)
)
