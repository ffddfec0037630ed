package sht4x

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
	for _, precision := range []string{"", "medium", "low"} {
		t.Run(precision, func(t *testing.T) {
			sensortest.Run(t, sensortest.Chip{
				Open: func(ctx context.Context, bus i2c.Bus, addr uint16, timeout time.Duration, c clock.Clock) (sensor.Sensor, error) {
					d, err := Open(ctx, bus, addr, Options{Precision: precision, Timeout: timeout, Clock: c})
					if err != nil {
						return nil, err
					}
					return d, nil
				},
				Addr: 0x44,
				New: func() sensortest.Model {
					m := i2ctest.NewSHT4x()
					m.Set(-12.34, 61.5)
					return m
				},
				Want:      []float64{-12.34, 61.5},
				Tolerance: []float64{0.002, 0.002},
				Beyond:    func(m sensortest.Model) { m.(*i2ctest.SHT4x).Set(128, 20) },
			})
		})
	}
}

// The example of section 4.4: CRC(0xBEEF) = 0x92. The others are those with which
// an independent driver is tested (esp-idf component sht4x, test_sht4x.c).
func TestChecksum(t *testing.T) {
	for word, want := range map[uint16]byte{0xBEEF: 0x92, 0xDEAD: 0x98, 0x5F16: 0x1A, 0x5E35: 0x3B, 0xD916: 0x63, 0x0C49: 0x80} {
		if got := checksum([]byte{byte(word >> 8), byte(word)}); got != want {
			t.Errorf("CRC(0x%04X) = 0x%02X, want 0x%02X", word, got, want)
		}
	}
}

// Answers with which an independent driver is tested (as above), played back
// whole; the last two are humidities beyond what there is.
func TestPlayback(t *testing.T) {
	for _, tt := range []struct {
		answer            []byte
		celsius, humidity float64
	}{
		{[]byte{0x5F, 0x16, 0x1A, 0x5E, 0x35, 0x3B}, 20.001144426642256, 40.000228885328454},
		{[]byte{0x5F, 0x16, 0x1A, 0xD9, 0x16, 0x63}, 20.001144426642256, 100},
		{[]byte{0x5F, 0x16, 0x1A, 0x0C, 0x49, 0x80}, 20.001144426642256, 0},
	} {
		bus := i2ctest.NewPlayback([]i2ctest.Op{
			{Addr: 0x44, W: []byte{0x94}},
			{Addr: 0x44, W: []byte{0x89}},
			{Addr: 0x44, R: []byte{0xDE, 0xAD, 0x98, 0xBE, 0xEF, 0x92}},
			{Addr: 0x44, W: []byte{0xFD}},
			{Addr: 0x44, R: tt.answer},
			{Addr: 0x44, W: []byte{0x94}},
		})
		d, err := Open(t.Context(), bus, 0x44, Options{Clock: &sensortest.Clock{}})
		if err != nil {
			t.Fatal(err)
		}
		if d.Serial() != 0xDEADBEEF {
			t.Errorf("serial 0x%08X", d.Serial())
		}
		vs := d.Sense(t.Context())
		if err := sensor.FirstError(vs); err != nil || math.Abs(vs[0].Value-tt.celsius) > 1e-9 || math.Abs(vs[1].Value-tt.humidity) > 1e-9 {
			t.Errorf("% x = %+v, want %g and %g", tt.answer, vs, tt.celsius, tt.humidity)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Every single wrong bit of an answer is noticed.
func TestWrongBits(t *testing.T) {
	good := []byte{0x5F, 0x16, 0x1A, 0x5E, 0x35, 0x3B}
	for bit := range 48 {
		bad := append([]byte(nil), good...)
		bad[bit/8] ^= 1 << (bit % 8)
		bus := i2ctest.NewPlayback([]i2ctest.Op{
			{Addr: 0x45, W: []byte{0x94}}, {Addr: 0x45, W: []byte{0x89}}, {Addr: 0x45, R: []byte{0xDE, 0xAD, 0x98, 0xBE, 0xEF, 0x92}},
			{Addr: 0x45, W: []byte{0xE0}}, {Addr: 0x45, R: bad},
		})
		d, err := Open(t.Context(), bus, 0x45, Options{Precision: "low", Clock: &sensortest.Clock{}})
		if err != nil {
			t.Fatal(err)
		}
		if err := sensor.FirstError(d.Sense(t.Context())); !errors.Is(err, sensor.ErrImplausible) {
			t.Errorf("bit %d: %v", bit, err)
		}
	}
}

func TestOptions(t *testing.T) {
	o, err := ParseOptions(map[string]string{"precision": "low", "timeout": "50ms"})
	if err != nil || o.Precision != "low" || o.Timeout != 50*time.Millisecond {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := ParseOptions(map[string]string{"precison": "low"}); err == nil || !strings.Contains(err.Error(), "precision") {
		t.Errorf("%v", err)
	}
	if _, err := Open(t.Context(), i2ctest.NewBus("x"), 0x44, Options{Precision: "hihg"}); err == nil || !strings.Contains(err.Error(), `"high"`) {
		t.Errorf("%v", err)
	}
}
