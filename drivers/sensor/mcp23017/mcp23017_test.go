package mcp23017

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"periph.io/x/conn/v3/gpio"
	"periph.io/x/devices/v3/mcp23xxx"

	"holdfast/drivers/clock"
	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2cperiph"
	"holdfast/drivers/i2c/i2ctest"
	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/sensortest"
)

func TestConformance(t *testing.T) {
	o := Options{
		Outputs: []string{"a0", "a1", "b6", "b7"}, High: []string{"a0", "b7"}, PullUps: []string{"a2", "a3"},
		Inverted: []string{"a1", "a3", "b0", "b7"},
	}
	sensortest.Run(t, sensortest.Chip{
		Open: func(ctx context.Context, bus i2c.Bus, addr uint16, timeout time.Duration, _ clock.Clock) (sensor.Sensor, error) {
			o := o
			o.Timeout = timeout
			d, err := Open(ctx, bus, addr, o)
			if err != nil {
				return nil, err
			}
			return d, nil
		},
		Addr: 0x20,
		New: func() sensortest.Model {
			m := i2ctest.NewMCP23017()
			m.Drive(4, true)
			m.Drive(8, true)
			m.Drive(9, true)
			return m
		},
		//              a0 a1 a2 a3 a4          b0 b1             b6 b7
		Want:      []float64{1, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1},
		Tolerance: make([]float64, 16),
	})
}

func opened(t *testing.T, o Options) (*Dev, *i2ctest.MCP23017, *i2ctest.Recorder) {
	t.Helper()
	m, bus := i2ctest.NewMCP23017(), i2ctest.NewBus("i2c-test")
	bus.Put(0x21, m)
	rec := i2ctest.NewRecorder(bus)
	d, err := Open(t.Context(), rec, 0x21, o)
	if err != nil {
		t.Fatal(err)
	}
	return d, m, rec
}

// levels returns the channels as a number, a0 the lowest bit.
func levels(t *testing.T, d *Dev) (bits uint16) {
	t.Helper()
	vs := d.Sense(t.Context())
	if err := sensor.FirstError(vs); err != nil {
		t.Fatal(err)
	}
	for i, v := range vs {
		if v.Value == 1 {
			bits |= 1 << i
		}
	}
	return bits
}

// The emulated chip answers the traffic with which periph.io's driver is tested
// (periph.io/x/devices/v3 v3.7.4, mcp23xxx/mcp23017_test.go) as is written there.
func TestModelAgainstVectors(t *testing.T) {
	for name, text := range map[string]string{
		"out":      "20 w 00 r ff\n20 w 01 r ff\n20 w 00 fe\n20 w 14 r 00\n20 w 14 01\n20 w 12 r 01\n",
		"in":       "20 w 00 r ff\n20 w 01 r ff\n20 w 0c r 00\n20 w 12 r 01\n",
		"inverted": "20 w 00 r ff\n20 w 01 r ff\n20 w 0c r 00\n20 w 02 01\n20 w 12 r 00\n",
	} {
		ops, err := i2ctest.ReadOps(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		m, bus := i2ctest.NewMCP23017(), i2ctest.NewBus("i2c-test")
		m.Drive(0, true)
		bus.Put(0x20, m)
		for _, o := range ops {
			r := make([]byte, len(o.R))
			if err := bus.Tx(t.Context(), o.Addr, o.W, r); err != nil || !bytes.Equal(r, o.R) {
				t.Errorf("%s: %s answered % x, %v", name, o, r, err)
			}
		}
	}
}

// Whatever drives the inputs, periph.io's driver and ours read the same from one
// emulated chip, and what ours drives periph.io's reads.
func TestAgainstPeriph(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 23017))
	o := Options{Outputs: []string{"a1", "b0", "b5"}, PullUps: []string{"a0", "b7"}}
	m, bus := i2ctest.NewMCP23017(), i2ctest.NewBus("i2c-test")
	bus.Put(0x26, m)
	ours, err := Open(t.Context(), bus, 0x26, o)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := mcp23xxx.NewI2C(i2cperiph.ToPeriph(t.Context(), bus, 0), mcp23xxx.MCP23017, 0x26)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	for range 500 {
		for pin := range 16 {
			switch rng.IntN(6) {
			case 0:
				m.Release(pin)
			case 1, 2:
				m.Drive(pin, rng.IntN(2) == 0)
			}
		}
		if err := ours.Set(t.Context(), o.Outputs[rng.IntN(3)], float64(rng.IntN(2))); err != nil {
			t.Fatal(err)
		}
		got := levels(t, ours)
		for i := range 16 {
			if high := theirs.Pins[i/8][i%8].Read() == gpio.High; high != (got>>i&1 == 1) {
				t.Fatalf("pin %s: ours %v, periph.io %v", pins()[i], !high, high)
			}
		}
	}
}

// An output has its first level from the moment it is one, whatever the latch
// held, and in whatever layout the registers were left.
func TestOutputsDoNotGlitch(t *testing.T) {
	for _, before := range []string{"", "21 w 14 00 00\n21 w 00 00 00\n", "21 w 0a 80\n21 w 0a 00\n", "21 w 0a a0\n"} {
		m, bus := i2ctest.NewMCP23017(), i2ctest.NewBus("i2c-test")
		bus.Put(0x21, m)
		m.Drive(3, true) // as an input it is high: low would be seen
		ops, err := i2ctest.ReadOps(strings.NewReader(before))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range ops {
			if err := bus.Tx(t.Context(), o.Addr, o.W, nil); err != nil {
				t.Fatal(err)
			}
		}
		seen := []bool{}
		watch := &watching{Bus: bus, after: func() {
			if len(seen) == 0 || seen[len(seen)-1] != m.At(3) {
				seen = append(seen, m.At(3))
			}
		}}
		if _, err := Open(t.Context(), watch, 0x21, Options{Outputs: []string{"a3"}, High: []string{"a3"}}); err != nil {
			t.Fatalf("left as %q: %v", before, err)
		}
		if !m.At(3) || len(seen) > 2 {
			t.Errorf("left as %q: the pin went %v", before, seen)
		}
	}
}

type watching struct {
	i2c.Bus
	after func()
}

func (w *watching) Tx(ctx context.Context, addr uint16, out, in []byte) error {
	err := w.Bus.Tx(ctx, addr, out, in)
	w.after()
	return err
}

// TestSupply: outputs come back as they were set last, once the chip is asked.
func TestSupply(t *testing.T) {
	d, m, _ := opened(t, Options{Outputs: []string{"a0", "b7"}, High: []string{"b7"}, Inverted: []string{"b7"}})
	if m.At(0) || m.At(15) || levels(t, d) != 1<<15 {
		t.Error("first levels")
	}
	if err := d.Set(t.Context(), "a0", 1); err != nil || !m.At(0) {
		t.Error(err)
	}
	if err := d.Set(t.Context(), "b7", 0); err != nil || !m.At(15) {
		t.Error(err)
	}
	m.PowerCycle()
	if err := d.Set(t.Context(), "a0", 1); err == nil {
		t.Error("Set on a chip that lost its settings says that it drives the pin")
	}
	if err := d.Set(t.Context(), "a0", 1); err != nil || !m.At(0) || !m.At(15) {
		t.Errorf("%v, pins %v %v", err, m.At(0), m.At(15))
	}
	m.PowerCycle()
	d.Sense(t.Context())
	if levels(t, d) != 1 || !m.At(0) || !m.At(15) {
		t.Errorf("after the second interruption: pins %v %v", m.At(0), m.At(15))
	}
}

// One transaction reads all pins.
func TestOneTransaction(t *testing.T) {
	d, _, rec := opened(t, Options{})
	before, _ := rec.Ops()
	levels(t, d)
	after, _ := rec.Ops()
	if n := len(after) - len(before); n != 1 {
		t.Errorf("%d transactions", n)
	}
}

func TestOptions(t *testing.T) {
	text := map[string]string{"outputs": "a0, b7", "high": "b7", "pull-ups": "a1", "inverted": "a1,b7", "timeout": "300ms"}
	o, err := ParseOptions(text)
	if err != nil || !slices.Equal(o.Outputs, []string{"a0", "b7"}) || !slices.Equal(Outputs(text), o.Outputs) || o.Timeout != 300*time.Millisecond {
		t.Errorf("%+v, %v", o, err)
	}
	for _, tt := range []struct{ key, value, want string }{
		{"outputs", "c0", "want some of a0"}, {"high", "a0", "no output"}, {"ouputs", "a0", "outputs"},
	} {
		if _, err := ParseOptions(map[string]string{tt.key: tt.value}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s = %s: %v", tt.key, tt.value, err)
		}
	}
	for _, o := range []Options{{High: []string{"a0"}}, {Outputs: []string{"a9"}}, {Outputs: []string{"a0"}, PullUps: []string{"a0"}}} {
		if _, err := Open(t.Context(), i2ctest.NewBus("x"), 0x20, o); err == nil || fmt.Sprint(err) == "" {
			t.Errorf("%+v was accepted", o)
		}
	}
}
