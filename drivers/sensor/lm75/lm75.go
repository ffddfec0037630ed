// Package lm75 drives the LM75 and its relatives over I2C: LM75B and TMP102.
//
// Data sheets: Texas Instruments SNOS808P (LM75), NXP LM75B Rev. 6.1 (6 February
// 2015), Texas Instruments SBOS397 (TMP102).
//
// These chips have no identity, and a stuck bus reads as -0.5, -0.0625 or 0 Cel,
// as does a chip that has just got its supply back. So the driver changes a
// setting of the thermostat output, which it does not use, to other than its
// power-on value, and reads it back with every measurement. A circuit that uses the output sees it switch after six
// measurements beyond the limit instead of one.
package lm75

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

// A Variant is one of the family.
type Variant string

// The variants.
const (
	LM75   Variant = "lm75"   // 9 bits, 0.5 Cel; also right for any relative with more
	LM75B  Variant = "lm75b"  // 11 bits, 0.125 Cel
	TMP102 Variant = "tmp102" // 12 bits, 0.0625 Cel, a wider configuration register
)

// Options of a chip. The zero value works.
type Options struct {
	// Variant is the chip; the empty one means LM75.
	Variant Variant

	// Timeout limits one Sense, set-up included, which waits for a first
	// conversion (up to 0.3 s). 0 means 2 s.
	Timeout time.Duration

	// Clock times the waiting; nil is the machine's own.
	Clock clock.Clock
}

// ParseOptions reads the option "timeout" from text, for the given variant.
func ParseOptions(v Variant, text map[string]string) (Options, error) {
	s := sensor.NewSettings(text)
	o := Options{Variant: v, Timeout: s.Duration("timeout", 2*time.Second)}
	return o, s.Err()
}

// Addresses returns the addresses a variant can have.
func Addresses(v Variant) []uint16 {
	if v == TMP102 { // one pin to ground, supply, SDA, SCL (SBOS397, table 4)
		return []uint16{0x48, 0x49, 0x4A, 0x4B}
	}
	return []uint16{0x48, 0x49, 0x4A, 0x4B, 0x4C, 0x4D, 0x4E, 0x4F}
}

// Registers, the same in all variants.
const (
	regTemperature = 0
	regConfig      = 1
)

// kind is what differs between the variants.
type kind struct {
	bits       int
	min, max   float64
	conversion time.Duration // the longest until the first result
	config     []byte        // to write: running, six faults until the output switches
	mask       []byte        // the bits of it that read back as written
	fixed      []byte        // the bits that always read as given in want
	want       []byte
}

func (v Variant) kind() (kind, error) {
	// LM75: bits 4 and 3 are the fault queue, 7 to 5 read 0 (SNOS808P, 7.6.3;
	// LM75B, table 8). Conversion: 300 ms at most (SNOS808P, 6.5).
	k := kind{
		bits: 9, min: -55, max: 125, conversion: 300 * time.Millisecond,
		config: []byte{0x18}, mask: []byte{0x1F}, fixed: []byte{0xE0}, want: []byte{0x00},
	}
	switch v {
	case LM75, "":
	case LM75B:
		k.bits = 11
	case TMP102:
		// Byte 1: OS, R1 R0 always 1, fault queue, polarity, mode, shutdown. Byte 2:
		// rate (4 per second), alert, extended mode, four bits always 0 (SBOS397,
		// tables 8 and 9). 35 ms for a conversion.
		k = kind{
			bits: 12, min: -40, max: 125, conversion: 40 * time.Millisecond,
			config: []byte{0x18, 0x80}, mask: []byte{0x1F, 0xD0}, fixed: []byte{0x60, 0x0F}, want: []byte{0x60, 0x00},
		}
	default:
		return k, fmt.Errorf("lm75: variant %q: unknown%s", v, sensor.Hint(string(v), []string{string(LM75), string(LM75B), string(TMP102)}))
	}
	return k, nil
}

// Dev is a chip. It satisfies [sensor.Sensor].
type Dev struct {
	dev      i2c.Dev
	opts     Options
	kind     kind
	channels []sensor.Channel

	mu     sync.Mutex
	ready  bool // set up since the last error
	closed bool
}

// Open finds out whether a chip that behaves as the variant answers at addr and
// sets it up.
func Open(ctx context.Context, bus i2c.Bus, addr uint16, o Options) (*Dev, error) {
	k, err := o.Variant.kind()
	if err != nil {
		return nil, err
	}
	if o.Variant == "" {
		o.Variant = LM75
	}
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Second
	}
	d := &Dev{dev: i2c.Dev{Bus: bus, Addr: addr}, opts: o, kind: k, channels: []sensor.Channel{
		{Name: "temperature", Unit: "Cel", Min: k.min, Max: k.max, Resolution: 1 / float64(int(1)<<(k.bits-8))},
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
func (d *Dev) String() string { return string(d.opts.Variant) + " on " + d.dev.String() }

func (d *Dev) wrap(err error) error { return fmt.Errorf("%s: %w", d, err) }

func (d *Dev) setUp(ctx context.Context) error {
	if err := d.dev.Write(ctx, regConfig, d.kind.config...); err != nil {
		return err
	}
	if err := d.verify(ctx); err != nil {
		return err
	}
	return sensor.Wait(ctx, d.opts.Clock, d.kind.conversion)
}

// verify reads back what a stuck bus, a chip without its settings, or one of
// another family does not have.
func (d *Dev) verify(ctx context.Context) error {
	got := make([]byte, len(d.kind.config))
	if err := d.dev.Read(ctx, regConfig, got); err != nil {
		return err
	}
	for i, b := range got {
		if b&d.kind.mask[i] != d.kind.config[i]&d.kind.mask[i] || b&d.kind.fixed[i] != d.kind.want[i] {
			return fmt.Errorf("%w: configuration % x, was set to % x", sensor.ErrImplausible, got, d.kind.config)
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
	return d.channels[0].Check(celsius(raw, d.kind.bits)), nil
}

// celsius converts the temperature register: two's complement, left-justified,
// so that 1 Cel is 256 in every variant (LM75B, table 10; SBOS397, table 5). The
// bits below the variant's resolution are not to be used (LM75B, 7.4.3).
func celsius(raw uint16, bits int) float64 {
	unused := 16 - bits
	return float64(int16(raw)>>unused<<unused) / 256
}

// Close satisfies [sensor.Sensor]. The chip is left shut down, and its thermostat
// setting as after power-on.
func (d *Dev) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.Timeout)
	defer cancel()
	off := append([]byte{0x01}, d.kind.config[1:]...) // shutdown bit
	if err := d.dev.Write(ctx, regConfig, off...); err != nil && !errors.Is(err, i2c.ErrClosed) {
		return d.wrap(fmt.Errorf("close: %w", err))
	}
	return nil
}

var _ sensor.Sensor = (*Dev)(nil)
