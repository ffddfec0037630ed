package local

import (
	"context"
	"math"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/gpio"
	"holdfast/drivers/gpio/gpiotest"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// wires is a board under a fake clock, behind the adapter.
type wires struct {
	t     *testing.T
	clk   *clocktest.Fake
	board *gpiotest.Board
	a     *Adapter
}

func newWires(t *testing.T) *wires {
	clk := clocktest.New(time.Time{})
	b := gpiotest.New(clk)
	w := &wires{t: t, clk: clk, board: b, a: New(protocols.Env{Clock: clk}, Options{Lines: b})}
	t.Cleanup(func() { _ = w.a.Close() })
	return w
}

// open opens a device with these tags and returns a function that reads some of
// them, a group of its own for each.
func (w *wires) open(tags ...point.Tag) (protocols.Session, map[string]func() point.Sample) {
	w.t.Helper()
	s, err := w.a.Open(protocols.Device{Name: "board", Tags: tags})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Close() })
	read := map[string]func() point.Sample{}
	for _, tg := range tags {
		read[tg.Name] = w.group(s, tg)
	}
	return s, read
}

func (w *wires) group(s protocols.Session, tg point.Tag) func() point.Sample {
	w.t.Helper()
	g, err := s.Group([]point.Tag{tg})
	if err != nil {
		w.t.Fatal(err)
	}
	return func() point.Sample {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		out := make([]point.Sample, 1)
		g.Read(ctx, out)
		return out[0]
	}
}

// pulses drives a line at a frequency for some time.
func (w *wires) pulses(line string, hz float64, d time.Duration) {
	period := time.Duration(float64(time.Second) / hz)
	for end := w.clk.Elapsed() + d; w.clk.Elapsed()+period <= end; {
		w.board.Drive(line, gpio.High)
		w.clk.Advance(period / 2)
		w.board.Drive(line, gpio.Low)
		w.clk.Advance(period - period/2)
	}
}

func hz(t *testing.T, s point.Sample) float64 {
	t.Helper()
	f, ok := s.Value.Float()
	if s.Quality != point.Good || !ok {
		t.Errorf("%+v is no frequency", s)
	}
	return f
}

// TestFrequency: exact from a tenth of a Hertz to where the queue of edges
// overflows, whatever the period of reading.
func TestFrequency(t *testing.T) {
	for _, want := range []float64{0.1, 0.7, 3, 50, 250, 1000, 20_000} {
		for _, every := range []time.Duration{100 * time.Millisecond, time.Second, 7 * time.Second} {
			w := newWires(t)
			_, read := w.open(tag("f", "freq:FLOW", point.ReadOnly, "timeout=60s"))
			read["f"]()
			var got point.Sample
			for range 5 {
				w.pulses("FLOW", want, max(every, time.Duration(2.5/want*float64(time.Second))))
				got = read["f"]()
			}
			if f := hz(t, got); math.Abs(f-want) > want*1e-6 {
				t.Errorf("%g Hz read every %s: %g", want, every, f)
			}
		}
	}
}

// TestFrequencyOfTheWindow: old edges are forgotten, slow ones are not.
func TestFrequencyOfTheWindow(t *testing.T) {
	w := newWires(t)
	_, read := w.open(tag("f", "freq:FLOW", point.ReadOnly, "window=500ms", "edges=both"))
	if s := read["f"](); s.Quality != point.BadWaitingForInitialData {
		t.Errorf("before any edge: %+v", s)
	}
	w.pulses("FLOW", 10, time.Second)
	if f := hz(t, read["f"]()); math.Abs(f-20) > 1e-6 {
		t.Errorf("both edges of 10 Hz: %g", f)
	}
	w.pulses("FLOW", 40, 600*time.Millisecond)
	if f := hz(t, read["f"]()); math.Abs(f-80) > 1e-6 {
		t.Errorf("after the window has passed: %g", f)
	}
}

// TestFrequencyOfNothing: between the last edge and the time-out the frequency
// falls as it must; then it is 0, and what stopped does not count for what begins.
func TestFrequencyOfNothing(t *testing.T) {
	w := newWires(t)
	_, read := w.open(tag("f", "freq:FLOW", point.ReadOnly, "timeout=4s"))
	read["f"]()
	w.clk.Advance(4 * time.Second)
	if f := hz(t, read["f"]()); f != 0 {
		t.Errorf("a line without an edge from the start: %g", f)
	}
	w.pulses("FLOW", 10, time.Second)
	if f := hz(t, read["f"]()); math.Abs(f-10) > 1e-6 {
		t.Errorf("10 Hz: %g", f)
	}
	last := 10.0
	for range 7 {
		w.clk.Advance(500 * time.Millisecond)
		f := hz(t, read["f"]())
		if !(f < last && f > 0) {
			t.Errorf("%g after %g", f, last)
		}
		last = f
	}
	w.clk.Advance(time.Second)
	if f := hz(t, read["f"]()); f != 0 {
		t.Errorf("after the time-out: %g", f)
	}
	w.clk.Advance(time.Hour)
	w.board.Pulse("FLOW", 1)
	if f := hz(t, read["f"]()); f != 0 {
		t.Errorf("one edge after an hour: %g", f)
	}
	w.clk.Advance(250 * time.Millisecond)
	w.board.Pulse("FLOW", 1)
	if f := hz(t, read["f"]()); math.Abs(f-4) > 1e-6 {
		t.Errorf("two edges 250 ms apart: %g", f)
	}
}

// TestDebounce: short pulses are neither counted nor levels.
func TestDebounce(t *testing.T) {
	w := newWires(t)
	_, read := w.open(
		tag("n", "count:DOOR", point.ReadOnly, "debounce=5ms"), tag("level", "gpio:DOOR", point.ReadOnly, "debounce=5ms"),
		tag("f", "freq:DOOR", point.ReadOnly, "debounce=5ms"),
	)
	read["n"]()
	for i := range 4 {
		w.board.Pulse("DOOR", 20) // bounces
		w.board.Drive("DOOR", gpio.High)
		w.clk.Advance(50 * time.Millisecond)
		if s := read["level"](); !s.Value.Bool() {
			t.Errorf("pulse %d: level %+v", i, s)
		}
		w.board.Pulse("DOOR", 20)
		w.board.Drive("DOOR", gpio.Low)
		w.clk.Advance(50 * time.Millisecond)
		if s := read["level"](); s.Value.Bool() || s.Quality != point.Good {
			t.Errorf("pause %d: level %+v", i, s)
		}
	}
	if s := read["n"](); s.Value.Int() != 4 {
		t.Errorf("counted %+v, want 4", s)
	}
	if f := hz(t, read["f"]()); math.Abs(f-10) > 1e-6 {
		t.Errorf("frequency %g, want 10", f)
	}
}

// TestSeveralTagsOnOneLine: the line is opened once for all of them.
func TestSeveralTagsOnOneLine(t *testing.T) {
	w := newWires(t)
	tags := []point.Tag{
		tag("level", "gpio:gpiochip0:3", point.ReadOnly), tag("n", "count:/dev/gpiochip0:3", point.ReadOnly),
		tag("f", "freq:gpiochip0:3", point.ReadOnly), tag("again", "count:gpiochip0:3", point.ReadOnly),
	}
	tags[0].Type = "int"
	rec := gpiotest.NewRecorder(w.board)
	w.a.o.Lines = rec
	_, read := w.open(tags...)
	read["level"]() // opens the line, with its edges
	w.pulses("gpiochip0:3", 5, 2*time.Second)
	w.board.Drive("gpiochip0:3", gpio.High)
	if s := read["level"](); s.Value.Int() != 1 || s.Value.Kind() != point.Int {
		t.Errorf("level %+v", s)
	}
	if a, b := read["n"](), read["again"](); a.Value.Int() != 11 || b.Value.Int() != 11 {
		t.Errorf("counts %+v, %+v", a, b)
	}
	if f := hz(t, read["f"]()); math.Abs(f-5) > 1e-6 {
		t.Errorf("frequency %g", f)
	}
	ops, _ := rec.Ops()
	opens := 0
	for _, o := range ops {
		if o.What == "open" {
			opens++
		}
	}
	if opens != 1 {
		t.Errorf("the line was opened %d times", opens)
	}
}

// TestLineIsExtended: a count that is asked for later does not end the group that
// reads the level.
func TestLineIsExtended(t *testing.T) {
	w := newWires(t)
	s, read := w.open(tag("level", "gpio:DOOR", point.ReadOnly))
	w.board.Drive("DOOR", gpio.High)
	if s := read["level"](); !s.Value.Bool() {
		t.Fatalf("%+v", s)
	}
	n := w.group(s, tag("n", "count:DOOR", point.ReadOnly))
	if s := n(); s.Quality != point.Good || s.Value.Int() != 0 {
		t.Errorf("count %+v", s)
	}
	w.board.Drive("DOOR", gpio.Low)
	w.board.Pulse("DOOR", 3)
	if s := n(); s.Value.Int() != 3 {
		t.Errorf("count %+v", s)
	}
	if s := read["level"](); s.Quality != point.Good || s.Value.Bool() {
		t.Errorf("level %+v", s)
	}
	f := w.group(s, tag("f", "freq:DOOR", point.ReadOnly)) // opens the line anew, for the stamps
	f()
	w.board.Pulse("DOOR", 2)
	if s := n(); s.Value.Int() != 5 {
		t.Errorf("the count began anew: %+v", s)
	}
}
