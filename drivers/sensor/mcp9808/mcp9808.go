// Package mcp9808 drives Microchip's MCP9808, a thermometer, over I2C.
//
// Data sheet: DS25095A (2011); section, register and page numbers are its.
//
// The chip converts all the time. A bus without a checksum that is stuck reads
// as -0.0625 Cel or 0 Cel, and a chip that has just got its supply back reads 0
// Cel, all of which look like winter. So the driver puts a mark into the
// registers of the temperature limits, whose alert output it does not use, and
// reads it back with every measurement.
package mcp9808

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/i2c"
	"holdfast/drivers/sensor"
)

// Options of a chip. The zero value works.
type Options struct {
	// Timeout limits one Sense, set-up included, which waits for a first
	// conversion (0.3 s). 0 means 2 s.
	Timeout time.Duration

	// Clock times the waiting; nil is the machine's own.
	Clock clock.Clock
}

// ParseOptions reads the option "timeout" from text.
func ParseOptions(text map[string]string) (Options, error) {
	s := sensor.NewSettings(text)
	o := Options{Timeout: s.Duration("timeout", 2*time.Second)}
	return o, s.Err()
}

// Addresses returns the addresses the chip can have: A2, A1, A0 (3.5).
func Addresses() []uint16 {
	return []uint16{0x18, 0x19, 0x1A, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F}
}

// Registers (register 5-1).
const (
	regConfig       = 1
	regUpper        = 2
	regLower        = 3
	regCritical     = 4
	regTemperature  = 5
	regManufacturer = 6
	regDevice       = 7
	regResolution   = 8

	manufacturer = 0x0054 // register 5-5
	device       = 0x04   // high byte; the low one is the revision (register 5-6)
	finest       = 0x03   // 0.0625 Cel (register 5-7)

	configRun      = 0x0000
	configShutdown = 0x0100 // register 5-2, bit 8

	// The limits are set to where no measurement within range raises a flag, and
	// are other than after power-on (0, table 5-3): +125.5 and -40.25 Cel in sixteenths,
	// two's complement with 13 bits (register 5-3).
	markUpper = 0x07D8
	markLower = 0x1D7C

	signBit = 0x1000
	flags   = 0xE000 // T_A against the limits (register 5-4)
)

// conversion is the longest time of a first conversion: 250 ms typical (table
// 5-2), for which the data sheet gives no maximum, and a fifth.
const conversion = 300 * time.Millisecond

// Dev is a chip. It satisfies [sensor.Sensor].
type Dev struct {
	dev      i2c.Dev
	opts     Options
	channels []sensor.Channel

	mu     sync.Mutex
	ready  bool // set up since the last error
	closed bool
}

// Open finds out whether an MCP9808 answers at addr and sets it up.
func Open(ctx context.Context, bus i2c.Bus, addr uint16, o Options) (*Dev, error) {
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Second
	}
	d := &Dev{dev: i2c.Dev{Bus: bus, Addr: addr}, opts: o, channels: []sensor.Channel{
		// The operating range (page 3).
		{Name: "temperature", Unit: "Cel", Min: -40, Max: 125, Resolution: 0.0625},
	}}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if err := d.setUp(ctx); err != nil {
		return nil, d.wrap(err)
	}
	d.ready = true
	return d, nil
}

// Channels satisfies [sensor.Sensor]: temperature in Cel.
func (d *Dev) Channels() []sensor.Channel { return d.channels }

// String names the chip in messages.
func (d *Dev) String() string { return "mcp9808 on " + d.dev.String() }

func (d *Dev) wrap(err error) error { return fmt.Errorf("%s: %w", d, err) }

// setUp identifies the chip, writes the settings and waits for a conversion.
func (d *Dev) setUp(ctx context.Context) error {
	m, err := d.dev.ReadUint16(ctx, regManufacturer)
	if err != nil {
		return err
	}
	id, err := d.dev.ReadUint16(ctx, regDevice)
	if err != nil {
		return err
	}
	if m != manufacturer || id>>8 != device {
		return fmt.Errorf("%w: manufacturer 0x%04x device 0x%04x, want 0x%04x 0x%02xxx", sensor.ErrIdentity, m, id, manufacturer, device)
	}
	if err := d.dev.Write(ctx, regResolution, finest); err != nil {
		return err
	}
	for _, s := range []struct {
		reg byte
		v   uint16
	}{
		{regConfig, configRun}, {regCritical, markUpper}, {regUpper, markUpper}, {regLower, markLower},
	} {
		if err := d.dev.WriteUint16(ctx, s.reg, s.v); err != nil {
			return err
		}
	}
	if err := d.verify(ctx); err != nil {
		return err
	}
	return sensor.Wait(ctx, d.opts.Clock, conversion)
}

// verify reads the settings back. They are lost with the supply, and a stuck bus
// does not have them.
func (d *Dev) verify(ctx context.Context) error {
	for _, s := range []struct {
		reg  byte
		want uint16
	}{{regConfig, configRun}, {regUpper, markUpper}, {regLower, markLower}, {regCritical, markUpper}} {
		got, err := d.dev.ReadUint16(ctx, s.reg)
		if err != nil {
			return err
		}
		if got != s.want {
			return fmt.Errorf("%w: register %d is 0x%04x, was set to 0x%04x", sensor.ErrImplausible, s.reg, got, s.want)
		}
	}
	return nil
}

// Sense satisfies [sensor.Sensor].
func (d *Dev) Sense(ctx context.Context) []sensor.Value {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return sensor.Failed(1, d.wrap(sensor.ErrClosed))
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	v, err := d.sense(ctx)
	d.ready = err == nil
	if err == nil {
		err = v.Err
	}
	if err != nil {
		v.Err = d.wrap(err)
	}
	return []sensor.Value{v}
}

func (d *Dev) sense(ctx context.Context) (sensor.Value, error) {
	if !d.ready {
		if err := d.setUp(ctx); err != nil {
			return sensor.Value{}, err
		}
	}
	raw, err := d.dev.ReadUint16(ctx, regTemperature)
	if err != nil {
		return sensor.Value{}, err
	}
	// After the temperature, so that a loss of supply between the two shows.
	if err := d.verify(ctx); err != nil {
		return sensor.Value{}, err
	}
	v := d.channels[0].Check(celsius(raw))
	if v.Err == nil && raw&flags != 0 {
		return sensor.Value{}, fmt.Errorf("%w: temperature register 0x%04x has flags that its value does not raise", sensor.ErrImplausible, raw)
	}
	return v, nil
}

// celsius converts the temperature register: sixteenths in two's complement with
// 13 bits, above which are the flags (register 5-4 and 5.1.3.1; the code of
// example 5-1 subtracts the wrong way round for temperatures below 0).
func celsius(raw uint16) float64 {
	n := int(raw &^ flags)
	if n&signBit != 0 {
		n -= 2 * signBit
	}
	return float64(n) / 16
}

// Close satisfies [sensor.Sensor]. The chip is left shut down (5.2.1).
func (d *Dev) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.Timeout)
	defer cancel()
	if err := d.dev.WriteUint16(ctx, regConfig, configShutdown); err != nil && !errors.Is(err, i2c.ErrClosed) {
		return d.wrap(fmt.Errorf("close: %w", err))
	}
	return nil
}

var _ sensor.Sensor = (*Dev)(nil)
