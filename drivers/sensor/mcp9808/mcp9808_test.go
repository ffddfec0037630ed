package mcp9808

import (
	"context"
	"math"
	"testing"
	"time"

	"periph.io/x/conn/v3/physic"
	pmcp9808 "periph.io/x/devices/v3/mcp9808"

	"holdfast/drivers/clock"
	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2cperiph"
	"holdfast/drivers/i2c/i2ctest"
	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/sensortest"
)

func TestConformance(t *testing.T) {
	sensortest.Run(t, sensortest.Chip{
		Open: func(ctx context.Context, bus i2c.Bus, addr uint16, timeout time.Duration, c clock.Clock) (sensor.Sensor, error) {
			d, err := Open(ctx, bus, addr, Options{Timeout: timeout, Clock: c})
			if err != nil {
				return nil, err
			}
			return d, nil
		},
		Addr: 0x18,
		New: func() sensortest.Model {
			m := i2ctest.NewMCP9808()
			m.Set(-25.3)
			return m
		},
		Want:      []float64{-25.3},
		Tolerance: []float64{0.04},
		Foreign:   func(m sensortest.Model) { m.(*i2ctest.MCP9808).SetRegister(regDevice, 0x0201) },
		Beyond:    func(m sensortest.Model) { m.(*i2ctest.MCP9808).Set(140) },
	})
}

// Figure 5-5 of the data sheet (page 26) reads +25.25 Cel; the others are
// register 5-4 by its bits, and the vectors that periph.io's driver is tested
// with (periph.io/x/devices/v3 v3.7.4, mcp9808/mcp9808_test.go, TestSense).
func TestVectors(t *testing.T) {
	tests := []struct {
		raw  uint16
		want float64
	}{
		{0x0194, 25.25}, // figure 5-5
		{0x00A0, 10},    // periph.io
		{0x1F60, -10},   // periph.io
		{0x0000, 0},
		{0x1FFF, -0.0625},
		{0x0001, 0.0625},
		{0x07D0, 125},
		{0x1D80, -40},
		{0xC194, 25.25}, // with flags
	}
	for _, tt := range tests {
		if got := celsius(tt.raw); got != tt.want {
			t.Errorf("0x%04x = %g, want %g", tt.raw, got, tt.want)
		}
	}
}

// Every code of the temperature register within the range, read by periph.io's
// driver and by ours, on the same emulated chip.
func TestAgainstPeriph(t *testing.T) {
	m := i2ctest.NewMCP9808()
	clk := &sensortest.Clock{}
	m.SetTime(clk.Elapsed)
	bus := i2ctest.NewBus("i2c-test")
	bus.Put(0x1C, m)
	theirs, err := pmcp9808.New(i2cperiph.ToPeriph(t.Context(), bus, 0), &pmcp9808.Opts{Addr: 0x1C})
	if err != nil {
		t.Fatal(err)
	}
	ours, err := Open(t.Context(), bus, 0x1C, Options{Timeout: time.Minute, Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	for code := -40 * 16; code <= 125*16; code++ {
		m.Set(float64(code) / 16)
		var env physic.Env
		if err := theirs.Sense(&env); err != nil {
			t.Fatal(err)
		}
		v := ours.Sense(t.Context())[0]
		if v.Err != nil || math.Abs(v.Value-env.Temperature.Celsius()) > 1e-6 {
			t.Errorf("code %d: ours %g, %v; periph.io %g", code, v.Value, v.Err, env.Temperature.Celsius())
		}
	}
}

func TestOptions(t *testing.T) {
	o, err := ParseOptions(map[string]string{"timeout": "700ms"})
	if err != nil || o.Timeout != 700*time.Millisecond {
		t.Errorf("ParseOptions = %+v, %v", o, err)
	}
	if _, err := ParseOptions(map[string]string{"timeot": "1s"}); err == nil {
		t.Error("an unknown option was accepted")
	}
}
