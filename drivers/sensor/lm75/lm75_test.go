package lm75

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/tmp102"

	"holdfast/drivers/clock"
	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2cperiph"
	"holdfast/drivers/i2c/i2ctest"
	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/sensortest"
)

var seed = flag.Uint64("seed", 0, "seed of the random register contents, 0 for a new one")

func model(v Variant) *i2ctest.LM75 {
	switch v {
	case LM75B:
		return i2ctest.NewLM75B()
	case TMP102:
		return i2ctest.NewTMP102()
	}
	return i2ctest.NewLM75()
}

func TestConformance(t *testing.T) {
	for _, v := range []Variant{LM75, LM75B, TMP102} {
		t.Run(string(v), func(t *testing.T) {
			sensortest.Run(t, sensortest.Chip{
				Open: func(ctx context.Context, bus i2c.Bus, addr uint16, timeout time.Duration, c clock.Clock) (sensor.Sensor, error) {
					d, err := Open(ctx, bus, addr, Options{Variant: v, Timeout: timeout, Clock: c})
					if err != nil {
						return nil, err
					}
					return d, nil
				},
				Addr: 0x48,
				New: func() sensortest.Model {
					m := model(v)
					m.Set(-17.3)
					return m
				},
				Want:      []float64{-17.3},
				Tolerance: []float64{0.26},
				Beyond:    func(m sensortest.Model) { m.(*i2ctest.LM75).Set(127) },
			})
		})
	}
}

// The tables of the data sheets: STMicroelectronics' STLM75 (Doc ID 13296 Rev 12,
// table 3) for the nine bits of the original, LM75B Rev. 6.1 table 10, and
// SBOS397 table 5, whose 128 and 127.9375 share a code.
func TestDataSheetTables(t *testing.T) {
	tests := []struct {
		bits int
		code uint16
		want float64
	}{
		{9, 0x0FA, 125}, {9, 0x032, 25}, {9, 0x001, 0.5}, {9, 0x000, 0}, {9, 0x1FF, -0.5}, {9, 0x1CE, -25}, {9, 0x1B0, -40}, {9, 0x192, -55},

		{11, 0x3F8, 127}, {11, 0x3F7, 126.875}, {11, 0x3F1, 126.125}, {11, 0x3E8, 125}, {11, 0x0C8, 25}, {11, 0x001, 0.125},
		{11, 0x000, 0}, {11, 0x7FF, -0.125}, {11, 0x738, -25}, {11, 0x649, -54.875}, {11, 0x648, -55},

		{12, 0x7FF, 127.9375}, {12, 0x640, 100}, {12, 0x500, 80}, {12, 0x4B0, 75}, {12, 0x320, 50}, {12, 0x190, 25},
		{12, 0x004, 0.25}, {12, 0x000, 0}, {12, 0xFFC, -0.25}, {12, 0xE70, -25}, {12, 0xC90, -55},
	}
	for _, tt := range tests {
		if got := celsius(tt.code<<(16-tt.bits), tt.bits); got != tt.want {
			t.Errorf("%d bits, code 0x%03x = %g, want %g", tt.bits, tt.code, got, tt.want)
		}
	}
}

// Temperatures as periph.io's driver is tested with (periph.io/x/devices/v3
// v3.7.4, tmp102/tmp102_test.go, TestSenseContinuous), played back whole.
func TestPlayback(t *testing.T) {
	for _, tt := range []struct {
		bits [2]byte
		want float64
	}{
		{[2]byte{0x64, 0x00}, 100}, {[2]byte{0x50, 0x00}, 80}, {[2]byte{0x32, 0x00}, 50}, {[2]byte{0x19, 0x00}, 25},
		{[2]byte{0x00, 0x00}, 0}, {[2]byte{0xE7, 0x00}, -25},
	} {
		verify := []i2ctest.Op{
			{Addr: 0x48, W: []byte{1}, R: []byte{0x78, 0xA0}},
		}
		ops := append([]i2ctest.Op{{Addr: 0x48, W: []byte{1, 0x18, 0x80}}}, verify...)
		ops = append(append(ops, i2ctest.Op{Addr: 0x48, W: []byte{0}, R: tt.bits[:]}), verify...)
		bus := i2ctest.NewPlayback(ops)
		d, err := Open(t.Context(), bus, 0x48, Options{Variant: TMP102, Clock: &sensortest.Clock{}})
		if err != nil {
			t.Fatal(err)
		}
		if v := d.Sense(t.Context())[0]; v.Err != nil || v.Value != tt.want {
			t.Errorf("% x = %g, %v; want %g", tt.bits, v.Value, v.Err, tt.want)
		}
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Every code of the temperature register, read by periph.io's driver and by
// ours, on the same emulated chip.
func TestAgainstPeriph(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d", s)
	r := rand.New(rand.NewPCG(s, 102))
	m := i2ctest.NewTMP102()
	clk := &sensortest.Clock{}
	m.SetTime(clk.Elapsed)
	bus := i2ctest.NewBus("i2c-test")
	bus.Put(0x49, m)
	ours, err := Open(t.Context(), bus, 0x49, Options{Variant: TMP102, Timeout: time.Minute, Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	opts := tmp102.Opts{SampleRate: tmp102.RateFourHertz}
	theirs, err := tmp102.NewI2C(i2cperiph.ToPeriph(t.Context(), bus, 0), 0x49, &opts)
	if err != nil {
		t.Fatal(err)
	}
	check := func(celsius float64) {
		m.Set(celsius)
		var env physic.Env
		if err := theirs.Sense(&env); err != nil {
			t.Fatal(err)
		}
		v := ours.Sense(t.Context())[0]
		if v.Err != nil || math.Abs(v.Value-env.Temperature.Celsius()) > 1e-6 {
			t.Errorf("%g Cel: ours %g, %v; periph.io %g", celsius, v.Value, v.Err, env.Temperature.Celsius())
		}
	}
	for code := -40 * 16; code <= 125*16; code++ {
		check(float64(code) / 16)
	}
	for range 1000 {
		check(-40 + 165*r.Float64())
	}
}

func TestOptions(t *testing.T) {
	if _, err := Open(t.Context(), i2ctest.NewBus("x"), 0x48, Options{Variant: "lm57"}); err == nil || fmt.Sprint(err) != `lm75: variant "lm57": unknown, did you mean "lm75"?` {
		t.Errorf("unknown variant: %v", err)
	}
	o, err := ParseOptions(LM75B, map[string]string{"timeout": "1s"})
	if err != nil || o.Variant != LM75B || o.Timeout != time.Second {
		t.Errorf("ParseOptions = %+v, %v", o, err)
	}
	if _, err := ParseOptions(LM75, map[string]string{"resolution": "12"}); err == nil {
		t.Error("an unknown option was accepted")
	}
}
