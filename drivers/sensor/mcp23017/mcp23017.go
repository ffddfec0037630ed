// Package mcp23017 drives Microchip's MCP23017, 16 digital inputs and outputs,
// over I2C.
//
// Data sheet: DS20001952C (2016); section, table and register numbers are its.
// From revision D (2022) on, pins A7 and B7 are specified as outputs only.
//
// The 16 pins are channels of a sensor, so that all of them are read in one
// transaction, a consistent picture. The chip has no identity and the bus no
// checksum: the driver puts a mark into the default-compare registers, whose
// interrupts it does not use, and reads it back, with all settings, each time.
package mcp23017

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"holdfast/drivers/i2c"
	"holdfast/drivers/sensor"
)

// Options of a chip. The zero value works: 16 inputs.
type Options struct {
	// Outputs are the pins that are driven, such as "a0" or "b7". The others are
	// inputs.
	Outputs []string

	// High are the outputs that are on from the moment the chip is opened. The
	// others are off.
	High []string

	// PullUps are the inputs that the chip pulls up (100 kOhm).
	PullUps []string

	// Inverted are the pins that are on when their voltage is low.
	Inverted []string

	// Timeout limits one Sense or Set. 0 means 1 s.
	Timeout time.Duration
}

// ParseOptions reads the options "outputs", "high", "pull-ups", "inverted" (pins
// with commas between) and "timeout" from text.
func ParseOptions(text map[string]string) (Options, error) {
	s := sensor.NewSettings(text)
	o := Options{
		Outputs:  s.List("outputs", nil, pins()...),
		High:     s.List("high", nil, pins()...),
		PullUps:  s.List("pull-ups", nil, pins()...),
		Inverted: s.List("inverted", nil, pins()...),
		Timeout:  s.Duration("timeout", time.Second),
	}
	return o, errors.Join(s.Err(), o.check())
}

// check reports pins that are not what they are named for.
func (o *Options) check() error {
	var errs []error
	for _, pin := range o.High {
		if !slices.Contains(o.Outputs, pin) {
			errs = append(errs, fmt.Errorf("option \"high\": pin %s is no output", pin))
		}
	}
	for _, pin := range o.PullUps {
		if slices.Contains(o.Outputs, pin) {
			errs = append(errs, fmt.Errorf("option \"pull-ups\": pin %s is an output", pin))
		}
	}
	return errors.Join(errs...)
}

// Outputs returns the channels that can be set under these options.
func Outputs(text map[string]string) []string {
	o, _ := ParseOptions(text)
	return o.Outputs
}

// Addresses returns the addresses the chip can have: A2, A1, A0 (figure 3-3).
func Addresses() []uint16 {
	return []uint16{0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27}
}

// pins returns the names of the pins in the order of their bits.
func pins() []string {
	var names []string
	for _, port := range "ab" {
		for i := range 8 {
			names = append(names, fmt.Sprintf("%c%d", port, i))
		}
	}
	return names
}

// Registers with IOCON.BANK = 0 (table 3-1): each a pair, port A and port B.
const (
	regDirection = 0x00 // IODIR: 1 is an input
	regPolarity  = 0x02 // IPOL: 1 reads inverted
	regDefault   = 0x06 // DEFVAL
	regControl   = 0x0A // IOCON, the same at both addresses
	regPullUp    = 0x0C // GPPU
	regPort      = 0x12 // GPIO
	regLatch     = 0x14 // OLAT
	registers    = 0x16

	// bankedControl is IOCON's address with IOCON.BANK = 1. With BANK = 0 it is
	// GPINTENB, where 0 does no harm.
	bankedControl = 0x05

	mark = 0xA55A // in DEFVAL, 0 after power-on
)

// Dev is a chip. It satisfies [sensor.Setter].
type Dev struct {
	dev      i2c.Dev
	timeout  time.Duration
	channels []sensor.Channel
	output   uint16
	invert   uint16
	pull     uint16

	mu     sync.Mutex
	latch  uint16 // voltages that the outputs have or should have
	lost   bool   // the chip does not have its settings
	closed bool
}

// Open finds out whether a chip that behaves as an MCP23017 answers at addr, and
// sets it up. Outputs go from what they are to their first level without another
// in between.
func Open(ctx context.Context, bus i2c.Bus, addr uint16, o Options) (*Dev, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("mcp23017: %w", err)
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	d := &Dev{dev: i2c.Dev{Bus: bus, Addr: addr}, timeout: o.Timeout}
	var high uint16
	for _, set := range []struct {
		names []string
		bits  *uint16
	}{{o.Outputs, &d.output}, {o.Inverted, &d.invert}, {o.PullUps, &d.pull}, {o.High, &high}} {
		for _, name := range set.names {
			i := slices.Index(pins(), name)
			if i < 0 {
				return nil, fmt.Errorf("mcp23017: pin %q: unknown%s", name, sensor.Hint(name, pins()))
			}
			*set.bits |= 1 << i
		}
	}
	d.latch = (high ^ d.invert) & d.output
	for i, name := range pins() {
		d.channels = append(d.channels, sensor.Channel{
			Name: name, Unit: "1", Min: 0, Max: 1, Resolution: 1, Digital: true, Writable: d.output>>i&1 == 1,
		})
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	err := d.setUp(ctx)
	if err == nil {
		_, err = d.read(ctx)
	}
	if err != nil {
		return nil, d.wrap(err)
	}
	return d, nil
}

// Channels satisfies [sensor.Sensor]: a0 to a7 and b0 to b7.
func (d *Dev) Channels() []sensor.Channel { return d.channels }

// String names the chip in messages.
func (d *Dev) String() string { return "mcp23017 on " + d.dev.String() }

func (d *Dev) wrap(err error) error { return fmt.Errorf("%s: %w", d, err) }

// pair writes two registers, of port A and port B.
func (d *Dev) pair(ctx context.Context, reg byte, v uint16) error {
	return d.dev.Write(ctx, reg, byte(v), byte(v>>8))
}

// setUp writes all settings. Whatever layout the chip was left in, it is in the
// first one after the first two writes (3.2.1). Levels come before directions, so
// that an output never shows another.
func (d *Dev) setUp(ctx context.Context) error {
	if err := d.dev.Write(ctx, bankedControl, 0); err != nil {
		return err
	}
	if err := d.dev.Write(ctx, regControl, 0); err != nil {
		return err
	}
	for _, s := range []struct {
		reg byte
		v   uint16
	}{
		{regLatch, d.latch}, {regPullUp, d.pull}, {regPolarity, d.invert}, {regDefault, mark}, {regDirection, ^d.output},
	} {
		if err := d.pair(ctx, s.reg, s.v); err != nil {
			return err
		}
	}
	return nil
}

// read reads all registers at once and returns the port, after making sure that
// the settings are there.
func (d *Dev) read(ctx context.Context) (uint16, error) {
	var b [registers]byte
	if err := d.dev.Read(ctx, 0, b[:]); err != nil {
		return 0, err
	}
	at := func(reg int) uint16 { return uint16(b[reg]) | uint16(b[reg+1])<<8 }
	for _, s := range []struct {
		reg  int
		want uint16
	}{
		{regDirection, ^d.output}, {regPolarity, d.invert}, {regDefault, mark}, {regControl, 0}, {regPullUp, d.pull},
		{regLatch, d.latch},
	} {
		if got := at(s.reg); got != s.want {
			d.lost = true
			return 0, fmt.Errorf("%w: registers 0x%02x are 0x%04x, were set to 0x%04x", sensor.ErrImplausible, s.reg, got, s.want)
		}
	}
	return at(regPort), nil
}

// Sense satisfies [sensor.Sensor]. The values are the levels at the pins, also of
// outputs. A chip that has lost its settings gets them again, its outputs as they
// were set last.
func (d *Dev) Sense(ctx context.Context) []sensor.Value {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return sensor.Failed(len(d.channels), d.wrap(sensor.ErrClosed))
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	port, err := d.sense(ctx)
	if err != nil {
		return sensor.Failed(len(d.channels), d.wrap(err))
	}
	vs := make([]sensor.Value, len(d.channels))
	for i := range vs {
		vs[i].Value = float64(port >> i & 1)
	}
	return vs
}

func (d *Dev) sense(ctx context.Context) (uint16, error) {
	if d.lost {
		if err := d.setUp(ctx); err != nil {
			return 0, err
		}
		d.lost = false
	}
	return d.read(ctx)
}

// Set satisfies [sensor.Setter]: 0 is off, 1 is on. When it returns nil, the chip
// has been seen to drive the pin so.
func (d *Dev) Set(ctx context.Context, channel string, value float64) error {
	i := slices.IndexFunc(d.channels, func(c sensor.Channel) bool { return c.Name == channel })
	switch {
	case i < 0:
		return d.wrap(fmt.Errorf("pin %q: %w: there is none", channel, sensor.ErrRefused))
	case !d.channels[i].Writable:
		return d.wrap(fmt.Errorf("pin %s: %w: it is an input", channel, sensor.ErrRefused))
	case value != 0 && value != 1:
		return d.wrap(fmt.Errorf("pin %s: %w to %g: want 0 or 1", channel, sensor.ErrRefused, value))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return d.wrap(sensor.ErrClosed)
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	before := d.latch
	d.latch &^= 1 << i
	if on := value == 1; on != (d.invert>>i&1 == 1) {
		d.latch |= 1 << i
	}
	err := d.drive(ctx)
	if err != nil {
		d.latch, d.lost = before, true // what the chip drives is not known
		return d.wrap(fmt.Errorf("set %s: %w", channel, err))
	}
	return nil
}

// drive gives the chip its levels and makes sure that it drives them.
func (d *Dev) drive(ctx context.Context) error {
	if d.lost {
		if err := d.setUp(ctx); err != nil {
			return err
		}
		d.lost = false
	}
	if err := d.pair(ctx, regLatch, d.latch); err != nil {
		return err
	}
	_, err := d.read(ctx)
	return err
}

// Close satisfies [sensor.Sensor]. The pull-ups are switched off, through which a
// closed contact draws current; outputs keep their levels.
func (d *Dev) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	if err := d.pair(ctx, regPullUp, 0); err != nil && !errors.Is(err, i2c.ErrClosed) {
		return d.wrap(fmt.Errorf("close: %w", err))
	}
	return nil
}

var _ sensor.Setter = (*Dev)(nil)
