package sim

import (
	"context"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/protocols"
	"holdfast/protocols/point"
	"holdfast/protocols/protocoltest"
)

func tag(name, address, typ string, params ...string) point.Tag {
	t := point.Tag{Name: name, Address: address, Type: typ}
	for _, p := range params {
		if p == "rw" {
			t.Access = point.ReadWrite
			continue
		}
		k, v, _ := strings.Cut(p, "=")
		if t.Params == nil {
			t.Params = point.Params{}
		}
		t.Params[k] = v
	}
	return t
}

func TestConformance(t *testing.T) {
	protocoltest.Run(t, func(t *testing.T) protocoltest.Harness {
		a := New(protocols.Env{Clock: clocktest.New(time.Time{})}, Options{})
		refused := func(tags ...point.Tag) protocols.Device { return protocols.Device{Name: "d", Tags: tags} }
		d := protocols.Device{Name: "d", Tags: []point.Tag{
			tag("a", "constant", "", "value=1.5", "rw"), tag("b", "constant", "int", "value=7", "rw"),
			tag("c", "text", "", "value=hello", "rw"), tag("e", "constant", "bool", "rw"), tag("f", "sine", ""),
		}}
		return protocoltest.Harness{
			Adapter: a, Device: d,
			Refused: map[string]protocols.Device{
				"sinus":           refused(tag("x", "sinus", "")),
				"double":          refused(tag("x", "sine", "double")),
				"perod":           refused(tag("x", "sine", "", "perod=1s")),
				"period":          refused(tag("x", "sine", "", "period=5")),
				"between 0 and 1": refused(tag("x", "sine", "", "phase=2")),
				"be written":      refused(tag("x", "sine", "", "rw")),
				"file and column": refused(tag("x", "trace", "")),
				"of type bool":    refused(tag("x", "constant", "bool", "value=3")),
				"be a string":     refused(tag("x", "ramp", "string")),
				"speed":           refused(tag("x", "trace", "", "file=f", "column=c", "speed=0")),
				"below high":      refused(tag("x", "walk", "", "low=2")),
				"quality":         refused(tag("x", "sine", "", "quality=Awful")),
				"neither":         refused(tag("x", "trace", "", "file=f", "column=c", "loop=1")),
				"not a number":    refused(tag("x", "sine", "", "high=up")),
				"delay":           {Name: "d", Settings: map[string]any{"delay": int64(5)}},
				"seed":            {Name: "d", Settings: map[string]any{"seed": "x"}},
				"colour":          {Name: "d", Settings: map[string]any{"colour": "red"}},
			},
			Writes: []protocols.Write{
				{Tag: d.Tags[0], Value: point.FloatValue(-2.25)}, {Tag: d.Tags[1], Value: point.IntValue(99)},
				{Tag: d.Tags[2], Value: point.StringValue("bye")}, {Tag: d.Tags[3], Value: point.BoolValue(true)},
				{Tag: d.Tags[0], Value: point.IntValue(3)},
				{Tag: d.Tags[0], Value: point.FloatValue(-2.25)},
			},
			BadWrites: []protocols.Write{
				{Tag: d.Tags[4], Value: point.FloatValue(1)}, {Tag: d.Tags[1], Value: point.StringValue("x")},
				{Tag: d.Tags[2], Value: point.IntValue(1)}, {Tag: d.Tags[3], Value: point.IntValue(2)},
				{Tag: d.Tags[1], Value: point.BoolValue(true)},
			},
			Gone:   func() { a.Inject("d", Gone) },
			Silent: func() { a.Inject("d", Silent) },
			Back:   func() { a.Inject("d", None) },
		}
	})
}

// play reads one tag every step and returns its values.
func play(t *testing.T, tg point.Tag, n int, step time.Duration, files map[string]string) (out []point.Sample) {
	t.Helper()
	clk := clocktest.New(time.Time{})
	a := New(protocols.Env{Clock: clk}, Options{ReadFile: func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}})
	d := protocols.Device{Name: "d", Tags: []point.Tag{tg}}
	s, err := a.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.Group(d.Tags)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		one := make([]point.Sample, 1)
		g.Read(context.Background(), one)
		out = append(out, one[0])
		clk.Advance(step)
	}
	return out
}

func TestShapes(t *testing.T) {
	for _, c := range []struct {
		tag  point.Tag
		want string // values a quarter of a period apart
	}{
		{tag("sine", "sine", "", "low=-10", "high=10", "period=4s"), "0.0 10.0 0.0 -10.0 0.0"},
		{tag("triangle", "triangle", "", "high=8", "period=4s"), "0.0 4.0 8.0 4.0 0.0"},
		{tag("ramp", "ramp", "int", "high=100", "period=4s"), "0 25 50 75 0"},
		{tag("square", "square", "bool", "period=4s", "duty=0.25"), "true false false false true"},
		{tag("shifted", "ramp", "", "period=4s", "phase=0.5"), "0.5 0.75 0.0 0.25 0.5"},
		{tag("level", "ramp", "bool", "low=10", "high=20", "period=4s"), "false false true true false"},
		{tag("counter", "counter", "", "start=5", "step=2"), "5 7 9 11 13"},
		{tag("wrap", "counter", "", "high=3"), "0 1 2 0 1"},
		{tag("constant", "constant", "", "value=4.5"), "4.5 4.5 4.5 4.5 4.5"},
		{tag("text", "text", ""), "    "},
	} {
		var got []string
		for _, s := range play(t, c.tag, 5, time.Second, nil) {
			if s.Quality != point.Good {
				t.Errorf("%s: %s", c.tag.Name, s.Quality)
			}
			if f, ok := s.Value.Float(); ok && s.Value.Kind() == point.Float {
				got = append(got, point.FloatValue(math.Round(f*1e9)/1e9+0).String())
				continue
			}
			got = append(got, s.Value.String())
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %s, want %s", c.tag.Name, text, c.want)
		}
	}
}

func TestWalkStaysAndRepeats(t *testing.T) {
	walk := tag("w", "walk", "", "low=0", "high=10", "step=5")
	a, b := play(t, walk, 500, time.Second, nil), play(t, walk, 500, time.Second, nil)
	moved := 0
	for i := range a {
		v, _ := a[i].Value.Float()
		if v < 0 || v > 10 {
			t.Fatalf("%g is out of range", v)
		}
		if !a[i].Value.Equal(b[i].Value) {
			t.Fatal("two runs differ")
		}
		if i > 0 {
			before, _ := a[i-1].Value.Float()
			if math.Abs(v-before) > 5.0001 {
				t.Fatalf("moved from %g to %g in a second", before, v)
			}
			if v != before {
				moved++
			}
		}
	}
	if moved < 400 {
		t.Errorf("moved %d times of 499", moved)
	}
}

func TestInjectedBadness(t *testing.T) {
	bad := 0
	for _, s := range play(t, tag("x", "sine", "", "bad=0.25", "quality=BadOutOfService"), 1000, time.Second, nil) {
		switch s.Quality {
		case point.BadOutOfService:
			bad++
		case point.Good:
		default:
			t.Fatalf("%s", s.Quality)
		}
	}
	if bad < 180 || bad > 320 {
		t.Errorf("%d of 1000 are bad, want about 250", bad)
	}
}

const recording = "\xef\xbb\xbftime,temp,state\n# made by hand\n10,20.5,idle\n11,21,run\n12.5,,\n13,22.25,idle\n"

func TestTrace(t *testing.T) {
	files := map[string]string{
		"t.csv":       recording,
		"stamped.csv": "time,temp\n2026-01-01T00:00:00Z,1\n2026-01-01T00:00:01Z,2\n",
		"falls.csv":   "time,temp\n2,1\n1,2\n", "text.csv": "time,temp\nsoon,1\n", "empty.csv": "time,temp\n",
	}
	for _, c := range []struct {
		tag  point.Tag
		step time.Duration
		want string
	}{
		{tag("x", "trace", "", "file=t.csv", "column=temp"), time.Second, "20.5 21.0 21.0 22.25 20.5 21.0"},
		{tag("x", "trace", "", "file=t.csv", "column=temp", "speed=2.5"), time.Second, "20.5 BadNoData 21.0 22.25 21.0 20.5"},
		{tag("x", "trace", "", "file=t.csv", "column=temp", "loop=false"), 2 * time.Second, "20.5 21.0 BadNoData BadNoData BadNoData BadNoData"},
		{tag("x", "trace", "string", "file=t.csv", "column=state"), time.Second, "idle run run idle idle run"},
		{tag("x", "trace", "", "file=stamped.csv", "column=temp"), time.Second, "1.0 2.0 1.0 2.0 1.0 2.0"},
		{tag("x", "trace", "", "file=t.csv", "column=state"), time.Second, "BadTypeMismatch"},
		{tag("x", "trace", "", "file=t.csv", "column=none"), time.Second, "BadConfigurationError"},
		{tag("x", "trace", "", "file=t.csv", "column=time"), time.Second, "BadConfigurationError"},
		{tag("x", "trace", "", "file=away.csv", "column=temp"), time.Second, "BadConfigurationError"},
		{tag("x", "trace", "", "file=falls.csv", "column=temp"), time.Second, "BadConfigurationError"},
		{tag("x", "trace", "", "file=text.csv", "column=temp"), time.Second, "BadConfigurationError"},
		{tag("x", "trace", "", "file=empty.csv", "column=temp"), time.Second, "BadConfigurationError"},
	} {
		var got []string
		for _, s := range play(t, c.tag, 6, c.step, files) {
			if s.Quality == point.Good {
				got = append(got, s.Value.String())
				continue
			}
			if s.Detail == "" {
				t.Errorf("%v: no reason", c.tag.Params)
			}
			got = append(got, s.Quality.String())
		}
		want := strings.Fields(c.want)
		if !slices.Equal(got[:len(want)], want) {
			t.Errorf("%v: %q, want %q", c.tag.Params, got, want)
		}
	}
}

func TestDelay(t *testing.T) {
	clk := clocktest.New(time.Time{})
	a := New(protocols.Env{Clock: clk}, Options{})
	d := protocols.Device{Name: "d", Settings: map[string]any{"delay": "5ms", "seed": int64(3)}, Tags: []point.Tag{tag("x", "counter", "")}}
	s, err := a.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	g, _ := s.Group(d.Tags)
	out := make([]point.Sample, 1)
	done := make(chan struct{})
	go func() { defer close(done); g.Read(context.Background(), out) }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := clk.WaitArmed(ctx, 1); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
		t.Error("the read did not wait")
	default:
	}
	clk.Advance(5 * time.Millisecond)
	<-done
	if out[0].Quality != point.Good {
		t.Error(out[0].Detail)
	}
}

// TestTagThatMovesGoesOn: the state of a signal belongs to the tag, not to the group.
func TestTagThatMovesGoesOn(t *testing.T) {
	a := New(protocols.Env{Clock: clocktest.New(time.Time{})}, Options{})
	x := tag("x", "constant", "int", "rw")
	s, err := a.Open(protocols.Device{Name: "d", Tags: []point.Tag{x}})
	if err != nil {
		t.Fatal(err)
	}
	s.(protocols.Writer).Write(context.Background(), []protocols.Write{{Tag: x, Value: point.IntValue(5)}})
	x.Class, x.Comment = "slow", "moved"
	for _, want := range []int64{5, 0} {
		g, _ := s.Group([]point.Tag{x})
		out := make([]point.Sample, 1)
		g.Read(context.Background(), out)
		if out[0].Value.Int() != want {
			t.Errorf("%s, want %d", out[0].Value, want)
		}
		x.Params = point.Params{"value": "0"} // another signal
	}
}

func FuzzParseTrace(f *testing.F) {
	f.Add([]byte(recording), "temp", int64(time.Second))
	f.Add([]byte("t,x\n-1e9,1\n1e9,2\n"), "x", int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, data []byte, column string, at int64) {
		tr, err := parseTrace(data, column)
		if err != nil {
			return
		}
		if at < 0 {
			at = 0
		}
		if text, ok := tr.cell(time.Duration(at), true); !ok || !slices.Contains(tr.cells, text) {
			t.Fatalf("%q at %d is no cell of the trace", text, at)
		}
	})
}
