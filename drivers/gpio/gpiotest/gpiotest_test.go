package gpiotest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/gpio"
)

const patience = 20 * time.Second

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestInputAndOutput(t *testing.T) {
	b := New(nil)
	in, err := b.Input(t.Context(), "DOOR", gpio.InputConfig{ActiveLow: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, volt := range []gpio.Level{gpio.Low, gpio.High} {
		b.Drive("DOOR", volt)
		if got, err := in.Read(t.Context()); err != nil || got == volt {
			t.Errorf("active low at %v reads %v, %v", volt, got, err)
		}
	}
	out, err := b.Output(t.Context(), "gpiochip0:4", gpio.OutputConfig{ActiveLow: true, Initial: gpio.Low})
	if err != nil {
		t.Fatal(err)
	}
	if b.At("gpiochip0:4") != gpio.High {
		t.Error("the initial level was not driven")
	}
	if err := out.Set(t.Context(), gpio.High); err != nil || b.At("gpiochip0:4") != gpio.Low {
		t.Errorf("Set: %v, pin at %v", err, b.At("gpiochip0:4"))
	}
	if _, err := b.Input(t.Context(), "DOOR", gpio.InputConfig{}); !errors.Is(err, gpio.ErrBusy) {
		t.Errorf("a line that is open: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if _, err := in.Read(t.Context()); !errors.Is(err, gpio.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if _, err := b.Input(t.Context(), "DOOR", gpio.InputConfig{}); err != nil {
		t.Errorf("a line that was closed: %v", err)
	}
}

func TestEdges(t *testing.T) {
	clk := clocktest.New(time.Unix(1_700_000_000, 0))
	b := New(clk)
	e, err := b.Edges(t.Context(), "RAIN", gpio.EdgeConfig{Edges: gpio.Rising, Queue: 3})
	if err != nil {
		t.Fatal(err)
	}
	b.Pulse("RAIN", 10)
	if c, err := e.Counts(); err != nil || c != (gpio.Counts{Rising: 10}) {
		t.Errorf("Counts = %+v, %v", c, err)
	}
	for _, lost := range []uint64{7, 0, 0} {
		if ev, err := e.Next(soon(t)); err != nil || ev.Lost != lost || ev.Edge != gpio.Rising || !ev.Time.Equal(clk.Now()) {
			t.Errorf("Next = %+v, %v; want %d lost", ev, err, lost)
		}
	}
	got := make(chan gpio.Event, 1)
	go func() { ev, _ := e.Next(soon(t)); got <- ev }()
	b.Drive("RAIN", gpio.High)
	if ev := <-got; ev.Edge != gpio.Rising {
		t.Errorf("waiting Next = %+v", ev)
	}
}

func TestDebounce(t *testing.T) {
	clk := clocktest.New(time.Unix(1_700_000_000, 0))
	b := New(clk)
	e, err := b.Edges(t.Context(), "DOOR", gpio.EdgeConfig{InputConfig: gpio.InputConfig{Debounce: 10 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	b.Pulse("DOOR", 5)
	b.Drive("DOOR", gpio.High)
	if l, _ := e.Read(t.Context()); l != gpio.Low {
		t.Error("a bounce was seen")
	}
	clk.Advance(9 * time.Millisecond)
	b.Settle()
	if c, _ := e.Counts(); c.Total() != 0 {
		t.Errorf("Counts = %+v before the time is over", c)
	}
	clk.Advance(time.Millisecond)
	if c, _ := e.Counts(); c != (gpio.Counts{Rising: 1}) {
		t.Errorf("Counts = %+v, want one edge", c)
	}
	if l, _ := e.Read(t.Context()); l != gpio.High {
		t.Error("the settled level was not seen")
	}
}

func TestFaults(t *testing.T) {
	b := New(nil)
	in, err := b.Edges(t.Context(), "DOOR", gpio.EdgeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	b.Fail("DOOR", gpio.ErrGone)
	_, rerr := in.Read(t.Context())
	_, nerr := in.Next(soon(t))
	_, cerr := in.Counts()
	for _, err := range []error{rerr, nerr, cerr} {
		if !errors.Is(err, gpio.ErrGone) {
			t.Errorf("a chip that is gone: %v", err)
		}
	}
	b.Fail("DOOR", nil)
	b.Hang("DOOR", true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := in.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a hung line: %v", err)
	}
	got := make(chan error, 1)
	go func() { _, err := in.Read(soon(t)); got <- err }()
	b.Hang("DOOR", false)
	if err := <-got; err != nil {
		t.Errorf("a line that hangs no more: %v", err)
	}
	wrong := func() (n int) {
		b.Glitch("DOOR", 0.2, 5)
		for range 1000 {
			if l, _ := in.Read(t.Context()); l == gpio.High {
				n++
			}
		}
		return n
	}
	if n := wrong(); n < 130 || n > 270 || n != wrong() {
		t.Errorf("%d of 1000 reads glitched, or not the same again", n)
	}
}

func TestRecorderAndPlayback(t *testing.T) {
	b := New(nil)
	rec := NewRecorder(b)
	use := func(l gpio.Lines) {
		in, _ := l.Input(t.Context(), "DOOR", gpio.InputConfig{})
		b.Drive("DOOR", gpio.High)
		in.Read(t.Context())
		out, _ := l.Output(t.Context(), "PUMP", gpio.OutputConfig{})
		out.Set(t.Context(), gpio.High)
		e, _ := l.Edges(t.Context(), "RAIN", gpio.EdgeConfig{})
		b.Pulse("RAIN", 1)
		e.Next(soon(t))
		e.Next(soon(t))
		if c, err := e.Counts(); err != nil || c != (gpio.Counts{Rising: 1, Falling: 1}) {
			t.Errorf("Counts = %+v, %v", c, err)
		}
		in.Close()
	}
	use(rec)
	ops, _ := rec.Ops()
	var text []string
	for _, o := range ops {
		text = append(text, o.String())
	}
	const want = "DOOR open, DOOR read high, PUMP open, PUMP set high, RAIN open, RAIN edge high, RAIN edge low, DOOR close"
	if got := strings.Join(text, ", "); got != want {
		t.Fatalf("recorded %s\nwant %s", got, want)
	}
	p := NewPlayback(ops)
	use(p)
	if err := p.Close(); err != nil {
		t.Error(err)
	}

	for name, wrong := range map[string]func(l gpio.Lines){
		"nothing":    func(gpio.Lines) {},
		"other line": func(l gpio.Lines) { l.Input(t.Context(), "GATE", gpio.InputConfig{}) },
		"other level": func(l gpio.Lines) {
			in, _ := l.Output(t.Context(), "DOOR", gpio.OutputConfig{})
			in.Set(t.Context(), gpio.High)
		},
	} {
		p := NewPlayback(ops[:2])
		wrong(p)
		if p.Close() == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}
