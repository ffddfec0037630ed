package ina226

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2ctest"
	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/sensortest"
)

func TestConformance(t *testing.T) {
	for name, o := range map[string]Options{
		"averaged": {Shunt: 0.002}, "single": {Shunt: 0.002, Averages: 1, Conversion: 140}, "long": {Shunt: 0.002, Averages: 1024, Conversion: 8244},
	} {
		t.Run(name, func(t *testing.T) {
			sensortest.Run(t, sensortest.Chip{
				Open: func(ctx context.Context, bus i2c.Bus, addr uint16, timeout time.Duration, c clock.Clock) (sensor.Sensor, error) {
					o := o
					o.Timeout, o.Clock = timeout, c
					d, err := Open(ctx, bus, addr, o)
					if err != nil {
						return nil, err
					}
					return d, nil
				},
				Addr: 0x40,
				New: func() sensortest.Model {
					m := i2ctest.NewINA226()
					m.Set(-0.0512, 24.3)
					return m
				},
				Want:      []float64{24.3, -0.0512, -25.6, -622.08},
				Tolerance: []float64{0.0007, 1.3e-6, 0.0007, 0.05},
				Foreign:   func(m sensortest.Model) { m.(*i2ctest.INA226).SetIdentity(0x5449, 0x2270) },
				Beyond:    func(m sensortest.Model) { m.(*i2ctest.INA226).Set(0.09, 38) },
			})
		})
	}
	t.Run("without a shunt", func(t *testing.T) {
		sensortest.Run(t, sensortest.Chip{
			Open: func(ctx context.Context, bus i2c.Bus, addr uint16, timeout time.Duration, c clock.Clock) (sensor.Sensor, error) {
				d, err := Open(ctx, bus, addr, Options{Timeout: timeout, Clock: c})
				if err != nil {
					return nil, err
				}
				return d, nil
			},
			Addr: 0x4F,
			New: func() sensortest.Model {
				m := i2ctest.NewINA226()
				m.Set(0.01, 5)
				return m
			},
			Want: []float64{5, 0.01}, Tolerance: []float64{0.0007, 1.3e-6},
		})
	})
}

// play lets the chip answer with these registers, computed by no model.
func play(t *testing.T, o Options, shunt, bus, power, current uint16) []sensor.Value {
	t.Helper()
	word := func(v uint16) []byte { return []byte{byte(v >> 8), byte(v)} }
	read := func(reg byte, v uint16) i2ctest.Op { return i2ctest.Op{Addr: 0x40, W: []byte{reg}, R: word(v)} }
	config := uint16(0x4127)
	p := i2ctest.NewPlayback([]i2ctest.Op{
		read(0xFE, 0x5449), read(0xFF, 0x2260),
		{Addr: 0x40, W: []byte{0, 0x80, 0}}, {Addr: 0x40, W: []byte{5, 0x08, 0x00}},
		{Addr: 0x40, W: append([]byte{0}, word(config&^7|3)...)},
		read(6, 0x0008), read(1, shunt), read(2, bus), read(3, power), read(4, current), read(5, 0x0800), read(0, config&^7|3),
	})
	o.Averages, o.Conversion, o.Clock = 1, 1100, &sensortest.Clock{}
	d, err := Open(t.Context(), p, 0x40, o)
	if err != nil {
		t.Fatal(err)
	}
	vs := d.Sense(t.Context())
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	return vs
}

// Table 1 of the first revision (June 2011, page 16): 10 A through 2 mOhm
// at 12 V reads 0x1F40 and 0x2570, which is 20 mV, 11.98 V, 10 A, 119.8 W.
func TestDataSheetExample(t *testing.T) {
	vs := play(t, Options{Shunt: 0.002}, 0x1F40, 0x2570, 8000*9584/20000, 0x1F40)
	for i, want := range []struct{ value, within float64 }{{11.98, 1e-9}, {0.02, 1e-9}, {10, 1e-9}, {119.8, 0.05}} {
		if vs[i].Err != nil || math.Abs(vs[i].Value-want.value) > want.within {
			t.Errorf("channel %d = %+v, want %g", i, vs[i], want.value)
		}
	}
}

// TestDataSheetModel: the emulated chip, calibrated as in the example, shows the
// register contents of the example.
func TestDataSheetModel(t *testing.T) {
	m, clk := i2ctest.NewINA226(), &sensortest.Clock{}
	m.SetTime(clk.Elapsed)
	m.Set(0.02, 11.98)
	bus := i2ctest.NewBus("i2c-test")
	bus.Put(0x40, m)
	dev := i2c.Dev{Bus: bus, Addr: 0x40}
	if err := dev.WriteUint16(t.Context(), 5, 0x0A00); err != nil {
		t.Fatal(err)
	}
	clk.NewTimer(time.Second)
	for reg, want := range map[byte]uint16{0: 0x4127, 1: 0x1F40, 2: 0x2570, 3: 0x12B8, 4: 0x2710, 5: 0x0A00} {
		if got, err := dev.ReadUint16(t.Context(), reg); err != nil || got != want {
			t.Errorf("register %d = 0x%04X, %v; want 0x%04X", reg, got, err, want)
		}
	}
}

// Register contents that somebody read from four chips in series (TI E2E forum,
// thread 873778): shunts of 0.01 Ohm, calibration 2048, 0.25 mA per count.
func TestRecording(t *testing.T) {
	for _, tt := range []struct {
		shunt, bus uint16
		amps, volt float64
	}{{0x01F3, 0x03EF, 0.124750, 1.258750}, {0x01FB, 0x07C9, 0.126750, 2.491250}, {0x01E5, 0x0C4E, 0.121250, 3.937500}} {
		vs := play(t, Options{Shunt: 0.01}, tt.shunt, tt.bus, uint16(uint32(tt.shunt)*uint32(tt.bus)/20000), tt.shunt)
		if err := sensor.FirstError(vs); err != nil || math.Abs(vs[0].Value-tt.volt) > 1e-9 || math.Abs(vs[2].Value-tt.amps) > 1e-9 {
			t.Errorf("%+v, want %g V, %g A", vs, tt.volt, tt.amps)
		}
	}
}

// Registers that contradict each other are refused.
func TestDisagreement(t *testing.T) {
	for name, r := range map[string][4]uint16{
		"current": {0x1F40, 0x2570, 3833, 0x1F44}, "power": {0x1F40, 0x2570, 3840, 0x1F40}, "sign": {0x1F40, 0x2570, 3833, 0xE0C0},
	} {
		if err := sensor.FirstError(play(t, Options{Shunt: 1}, r[0], r[1], r[2], r[3])); !errors.Is(err, sensor.ErrImplausible) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// At the ends of the scale the result says only this much or more.
func TestClipped(t *testing.T) {
	for _, raw := range []uint16{0x7FFF, 0x8000} {
		vs := play(t, Options{Shunt: 0.01}, raw, 8000, uint16(math.Abs(float64(int16(raw)))*8000/20000), raw)
		if vs[0].Err != nil {
			t.Errorf("bus: %v", vs[0].Err)
		}
		for _, v := range vs[1:] {
			if !errors.Is(v.Err, sensor.ErrRange) {
				t.Errorf("0x%04X: %+v", raw, v)
			}
		}
	}
}

func TestOptions(t *testing.T) {
	o, err := ParseOptions(map[string]string{"shunt": "0.002", "averages": "64", "conversion": "8244", "timeout": "3s"})
	if err != nil || o != (Options{Shunt: 0.002, Averages: 64, Conversion: 8244, Timeout: 3 * time.Second}) {
		t.Errorf("%+v, %v", o, err)
	}
	for key, bad := range map[string]string{"shunt": "-1", "averages": "2", "conversion": "1000", "shnut": "1"} {
		if _, err := ParseOptions(map[string]string{key: bad}); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s = %s: %v", key, bad, err)
		}
	}
	for _, o := range []Options{{Shunt: -1}, {Shunt: math.NaN()}, {Averages: 3}, {Conversion: 1}} {
		if _, err := Open(t.Context(), i2ctest.NewBus("x"), 0x40, o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
