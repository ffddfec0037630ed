package bme280

import (
	"context"
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
