// Package all is the table of chips: every driver, one line each.
package all

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"holdfast/drivers/i2c"
	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/ads1115"
	"holdfast/drivers/sensor/bme280"
	"holdfast/drivers/sensor/lm75"
	"holdfast/drivers/sensor/mcp9808"
)

// An opener checks the options and, if bus is not nil, opens the chip.
type opener func(ctx context.Context, bus i2c.Bus, addr uint16, options map[string]string) (sensor.Sensor, error)

type chip struct {
	name      string
	addresses []uint16
	open      opener
}

func chips() []chip {
	return []chip{
		{"ads1115", ads1115.Addresses(), of(ads1115.ParseOptions, ads1115.Open)},
		{"bme280", bme280.Addresses(), of(bme280.ParseOptions, bme280.Open)},
		{"bmp280", bme280.Addresses(), of(bme280.ParseOptions, bme280.Open)},
		{"lm75", lm75.Addresses(lm75.LM75), of(variant(lm75.LM75), lm75.Open)},
		{"lm75b", lm75.Addresses(lm75.LM75B), of(variant(lm75.LM75B), lm75.Open)},
		{"mcp9808", mcp9808.Addresses(), of(mcp9808.ParseOptions, mcp9808.Open)},
		{"tmp102", lm75.Addresses(lm75.TMP102), of(variant(lm75.TMP102), lm75.Open)},
	}
}

// of joins a driver's two functions.
func of[O any, S sensor.Sensor](parse func(map[string]string) (O, error), open func(context.Context, i2c.Bus, uint16, O) (S, error)) opener {
	return func(ctx context.Context, bus i2c.Bus, addr uint16, options map[string]string) (sensor.Sensor, error) {
		o, err := parse(options)
		if err != nil || bus == nil {
			return nil, err
		}
		s, err := open(ctx, bus, addr, o)
		if err != nil {
			return nil, err // not s, which would be an interface that is not nil
		}
		return s, nil
	}
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

// Check reports whether a chip of that name can be at addr with these options,
// without touching any hardware. An addr of 0 is the chip's first.
func Check(name string, addr uint16, options map[string]string) error {
	_, _, err := find(name, addr, options)
	return err
}

// Open opens a chip by its name, in lower case. An addr of 0 is the first
// address that the chip can have. Options are those of the chip's ParseOptions.
// Errors name the chip; one about a name or an option that does not exist names
// the nearest that does.
func Open(ctx context.Context, name string, bus i2c.Bus, addr uint16, options map[string]string) (sensor.Sensor, error) {
	c, addr, err := find(name, addr, options)
	if err != nil {
		return nil, err
	}
	return c.open(ctx, bus, addr, options)
}

func find(name string, addr uint16, options map[string]string) (chip, uint16, error) {
	all := chips()
	i := slices.IndexFunc(all, func(c chip) bool { return c.name == name })
	if i < 0 {
		return chip{}, 0, fmt.Errorf("sensor chip %q: unknown%s", name, sensor.Hint(name, Names()))
	}
	c := all[i]
	if addr == 0 {
		addr = c.addresses[0]
	}
	if !slices.Contains(c.addresses, addr) {
		var possible []string
		for _, a := range c.addresses {
			possible = append(possible, fmt.Sprintf("0x%02x", a))
		}
		return chip{}, 0, fmt.Errorf("sensor chip %q: address 0x%02x: want one of %s", name, addr, strings.Join(possible, ", "))
	}
	if _, err := c.open(context.Background(), nil, addr, options); err != nil {
		return chip{}, 0, fmt.Errorf("sensor chip %q: %w", name, err)
	}
	return c, addr, nil
}
