package bme280

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2ctest"
	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/sensortest"
)

func open(o Options) func(context.Context, i2c.Bus, uint16, time.Duration, clock.Clock) (sensor.Sensor, error) {
	return func(ctx context.Context, bus i2c.Bus, addr uint16, timeout time.Duration, c clock.Clock) (sensor.Sensor, error) {
		o := o
		o.Timeout, o.Clock = timeout, c
		d, err := Open(ctx, bus, addr, o)
		if err != nil {
			return nil, err
		}
		return d, nil
	}
}

// A chip that is exchanged for another of its kind between two measurements has
// other trimming data: nothing may be computed from the old.
func TestExchangedChip(t *testing.T) {
	for name, make := range map[string]func(i2ctest.BME280Trim) *i2ctest.BME280{"bme280": i2ctest.NewBME280, "bmp280": i2ctest.NewBMP280} {
		bus := i2ctest.NewBus("i2c-test")
		clk := &sensortest.Clock{}
		put := func(k i2ctest.BME280Trim) {
			m := make(k)
			m.SetTime(clk.Elapsed)
			m.Set(20, 100000, 50)
			bus.Put(0x76, m)
		}
		put(i2ctest.TypicalBME280())
		d, err := Open(t.Context(), bus, 0x76, Options{Timeout: time.Minute, Clock: clk})
		if err != nil {
			t.Fatal(err)
		}
		d.Sense(t.Context())
		other := i2ctest.TypicalBME280()
		other.T1, other.P1 = 28500, 37500
		put(other)
		for i, v := range d.Sense(t.Context()) {
			if !errors.Is(v.Err, sensor.ErrImplausible) {
				t.Errorf("%s: first Sense: %s = %g, %v", name, d.Channels()[i].Name, v.Value, v.Err)
			}
		}
		vs := d.Sense(t.Context())
		if vs[0].Err != nil || math.Abs(vs[0].Value-20) > 0.1 || math.Abs(vs[1].Value-100000) > 50 {
			t.Errorf("%s: second Sense: %+v", name, vs)
		}
	}
}

func TestConformance(t *testing.T) {
	fine := Options{Temperature: 16, Pressure: 16, Humidity: 16}
	t.Run("bme280", func(t *testing.T) {
		sensortest.Run(t, sensortest.Chip{
			Open: open(fine),
			Addr: 0x76,
			New: func() sensortest.Model {
				m := i2ctest.NewBME280(i2ctest.TypicalBME280())
				m.Set(25.08, 100653.27, 47.5)
				return m
			},
			// The model uses the floating-point compensation, the driver the integer
			// one. The data sheet gives the integer one up to a few Pa.
			Want:      []float64{25.08, 100653.27, 47.5},
			Tolerance: []float64{0.02, 6, 0.1},
			Foreign:   func(m sensortest.Model) { m.(*i2ctest.BME280).SetID(0x55) },
			Beyond:    func(m sensortest.Model) { m.(*i2ctest.BME280).Set(99, 99000, 50) },
		})
	})
	t.Run("bmp280", func(t *testing.T) {
		sensortest.Run(t, sensortest.Chip{
			Open: open(fine),
			Addr: 0x77,
			New: func() sensortest.Model {
				m := i2ctest.NewBMP280(i2ctest.TypicalBME280())
				m.Set(-12.25, 85000, 0)
				return m
			},
			Want:      []float64{-12.25, 85000},
			Tolerance: []float64{0.02, 6},
			Foreign:   func(m sensortest.Model) { m.(*i2ctest.BME280).SetID(0xFF) },
			Beyond:    func(m sensortest.Model) { m.(*i2ctest.BME280).Set(-60, 99000, 0) },
		})
	})
}
