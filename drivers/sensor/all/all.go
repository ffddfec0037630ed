// Package all is the table of chips: every driver, one line each.
package all

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"holdfast/drivers/i2c"
	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/ads1115"
	"holdfast/drivers/sensor/bme280"
	"holdfast/drivers/sensor/ds18b20"
	"holdfast/drivers/sensor/ina226"
	"holdfast/drivers/sensor/lm75"
	"holdfast/drivers/sensor/max31865"
	"holdfast/drivers/sensor/mcp23017"
	"holdfast/drivers/sensor/mcp9808"
	"holdfast/drivers/sensor/sht4x"
	"holdfast/drivers/sensor/sysfs"
	"holdfast/drivers/spi"
)

// An opener checks the options and, if the bus is not zero, opens the chip.
type opener func(ctx context.Context, bus sensor.Bus, addr uint16, options map[string]string) (sensor.Sensor, error)

type chip struct {
	name      string
	kind      sensor.Kind
	addresses []uint16 // of I2C
	open      opener
	outputs   func(options map[string]string) []string // channels that can be set; nil = none
}

func chips() []chip {
	return []chip{
		{"ads1115", sensor.I2C, ads1115.Addresses(), onI2C(ads1115.ParseOptions, ads1115.Open), nil},
		{"bme280", sensor.I2C, bme280.Addresses(), onI2C(bme280.ParseOptions, bme280.Open), nil},
		{"bmp280", sensor.I2C, bme280.Addresses(), onI2C(bme280.ParseOptions, bme280.Open), nil},
		{"ds18b20", sensor.OneWire, nil, onOneWire(ds18b20.ParseOptions, ds18b20.Open), nil},
		{"hwmon", sensor.Sysfs, nil, onSysfs(subsystem(sysfs.HWMon), sysfs.Open), nil},
		{"iio", sensor.Sysfs, nil, onSysfs(subsystem(sysfs.IIO), sysfs.Open), nil},
		{"ina226", sensor.I2C, ina226.Addresses(), onI2C(ina226.ParseOptions, ina226.Open), nil},
		{"lm75", sensor.I2C, lm75.Addresses(lm75.LM75), onI2C(variant(lm75.LM75), lm75.Open), nil},
		{"lm75b", sensor.I2C, lm75.Addresses(lm75.LM75B), onI2C(variant(lm75.LM75B), lm75.Open), nil},
		{"max31865", sensor.SPI, nil, onSPI(max31865.SPI(), max31865.ParseOptions, max31865.Open), nil},
		{"mcp23017", sensor.I2C, mcp23017.Addresses(), onI2C(mcp23017.ParseOptions, mcp23017.Open), mcp23017.Outputs},
		{"mcp9808", sensor.I2C, mcp9808.Addresses(), onI2C(mcp9808.ParseOptions, mcp9808.Open), nil},
		{"sht4x", sensor.I2C, sht4x.Addresses(), onI2C(sht4x.ParseOptions, sht4x.Open), nil},
		{"tmp102", sensor.I2C, lm75.Addresses(lm75.TMP102), onI2C(variant(lm75.TMP102), lm75.Open), nil},
	}
}

// onI2C joins a driver's two functions.
func onI2C[O any, S sensor.Sensor](parse func(map[string]string) (O, error), open func(context.Context, i2c.Bus, uint16, O) (S, error)) opener {
	return func(ctx context.Context, bus sensor.Bus, addr uint16, options map[string]string) (sensor.Sensor, error) {
		o, err := parse(options)
		if err != nil || bus.I2C == nil {
			return nil, err
		}
		return opened(open(ctx, bus.I2C, addr, o))
	}
}

// onSPI joins a driver's two functions and the settings of its connection, which
// lives as long as the sensor.
func onSPI[O any, S sensor.Sensor](c spi.Config, parse func(map[string]string) (O, error), open func(context.Context, spi.Conn, O) (S, error)) opener {
	return func(ctx context.Context, bus sensor.Bus, _ uint16, options map[string]string) (sensor.Sensor, error) {
		o, err := parse(options)
		if err != nil || bus.SPI == nil {
			return nil, err
		}
		conn, err := bus.SPI(ctx, c)
		if err != nil {
			return nil, err
		}
		s, err := open(ctx, conn, o)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return &connected{Sensor: s, conn: conn}, nil
	}
}

// connected is a sensor that closes its connection.
type connected struct {
	sensor.Sensor
	conn io.Closer
	once sync.Once
}

func (c *connected) Close() error {
	err := c.Sensor.Close()
	c.once.Do(func() { err = errors.Join(err, c.conn.Close()) })
	return err
}

// onOneWire and onSysfs join the two functions of a driver that reads files.
func onOneWire[O any, S sensor.Sensor](parse func(map[string]string) (O, error), open func(context.Context, fs.FS, O) (S, error)) opener {
	return onFiles(func(b sensor.Bus) fs.FS { return b.OneWire }, parse, open)
}

func onSysfs[O any, S sensor.Sensor](parse func(map[string]string) (O, error), open func(context.Context, fs.FS, O) (S, error)) opener {
	return onFiles(func(b sensor.Bus) fs.FS { return b.Sysfs }, parse, open)
}

func onFiles[O any, S sensor.Sensor](root func(sensor.Bus) fs.FS, parse func(map[string]string) (O, error), open func(context.Context, fs.FS, O) (S, error)) opener {
	return func(ctx context.Context, bus sensor.Bus, _ uint16, options map[string]string) (sensor.Sensor, error) {
		o, err := parse(options)
		if err != nil || root(bus) == nil {
			return nil, err
		}
		return opened(open(ctx, root(bus), o))
	}
}

// opened makes an error a nil sensor, not an interface that holds one.
func opened[S sensor.Sensor](s S, err error) (sensor.Sensor, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

func subsystem(s sysfs.Subsystem) func(map[string]string) (sysfs.Options, error) {
	return func(options map[string]string) (sysfs.Options, error) { return sysfs.ParseOptions(s, options) }
}

func variant(v lm75.Variant) func(map[string]string) (lm75.Options, error) {
	return func(options map[string]string) (lm75.Options, error) { return lm75.ParseOptions(v, options) }
}

// Names returns the names of the chips, sorted.
func Names() []string {
	var names []string
	for _, c := range chips() {
		names = append(names, c.name)
	}
	return names
}

// Check reports whether a chip of that name can be on a bus of that kind, at
// addr, with these options, without touching any hardware. Only on I2C a chip has
// an address; 0 is its first. It returns the names of the channels that can be
// set.
func Check(name string, on sensor.Kind, addr uint16, options map[string]string) (outputs []string, err error) {
	c, _, err := find(name, on, addr, options)
	if err != nil || c.outputs == nil {
		return nil, err
	}
	return c.outputs(options), nil
}

// Open opens a chip by its name, in lower case. On I2C, an addr of 0 is the first
// address that the chip can have; elsewhere it is 0. Options are those of the
// chip's ParseOptions. Errors name the chip; one about a name or an option that
// does not exist names the nearest that does.
func Open(ctx context.Context, name string, bus sensor.Bus, addr uint16, options map[string]string) (sensor.Sensor, error) {
	c, addr, err := find(name, bus.Kind(), addr, options)
	if err != nil {
		return nil, err
	}
	return c.open(ctx, bus, addr, options)
}

func find(name string, on sensor.Kind, addr uint16, options map[string]string) (chip, uint16, error) {
	all := chips()
	i := slices.IndexFunc(all, func(c chip) bool { return c.name == name })
	if i < 0 {
		return chip{}, 0, fmt.Errorf("sensor chip %q: unknown%s", name, sensor.Hint(name, Names()))
	}
	c := all[i]
	switch {
	case on != c.kind:
		return chip{}, 0, fmt.Errorf("sensor chip %q: is on a bus of kind %s, not %q", name, c.kind, on)
	case addr == 0 && len(c.addresses) > 0:
		addr = c.addresses[0]
	case addr != 0 && len(c.addresses) == 0:
		return chip{}, 0, fmt.Errorf("sensor chip %q: address 0x%02x: a chip on %s has none", name, addr, c.kind)
	}
	if addr != 0 && !slices.Contains(c.addresses, addr) {
		var possible []string
		for _, a := range c.addresses {
			possible = append(possible, fmt.Sprintf("0x%02x", a))
		}
		return chip{}, 0, fmt.Errorf("sensor chip %q: address 0x%02x: want one of %s", name, addr, strings.Join(possible, ", "))
	}
	if _, err := c.open(context.Background(), sensor.Bus{}, addr, options); err != nil {
		return chip{}, 0, fmt.Errorf("sensor chip %q: %w", name, err)
	}
	return c, addr, nil
}
