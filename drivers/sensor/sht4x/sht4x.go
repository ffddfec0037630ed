// Package sht4x drives Sensirion's SHT40, SHT41, SHT43 and SHT45, temperature and
// humidity, over I2C.
//
// Data sheet: SHT4x, version 6 (March 2023); section numbers are its.
// The chip sleeps between measurements, and has no settings that it could lose.
package sht4x

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
	// Precision is "high", "medium" or "low": less noise, or less consumption.
	// Empty means high.
	Precision string

	// Timeout limits one Sense. 0 means 1 s.
	Timeout time.Duration

	// Clock times the waiting; nil is the machine's own.
	Clock clock.Clock
}

// ParseOptions reads the options "precision" and "timeout" from text.
func ParseOptions(text map[string]string) (Options, error) {
	s := sensor.NewSettings(text)
	o := Options{
		Precision: s.Choice("precision", "high", "high", "medium", "low"),
		Timeout:   s.Duration("timeout", time.Second),
	}
	return o, s.Err()
}

// Addresses returns the addresses the chip can have, by the letter in its type: A,
// B, C.
func Addresses() []uint16 { return []uint16{0x44, 0x45, 0x46} }

// Commands (command overview, 4.5).
const (
	cmdHigh   = 0xFD
	cmdMedium = 0xF6
	cmdLow    = 0xE0
	cmdSerial = 0x89
	cmdReset  = 0x94
)

// Dev is a chip. It satisfies [sensor.Sensor].
type Dev struct {
	dev      i2c.Dev
	opts     Options
	measure  byte
	wait     time.Duration
	channels []sensor.Channel

	mu     sync.Mutex
	serial uint32
	ready  bool // identified since the last error
	closed bool
}

// Open finds out whether an SHT4x answers at addr: its serial number must come
// with the right checksum.
func Open(ctx context.Context, bus i2c.Bus, addr uint16, o Options) (*Dev, error) {
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	d := &Dev{dev: i2c.Dev{Bus: bus, Addr: addr}, opts: o, channels: []sensor.Channel{
		// The specified range of operation.
		{Name: "temperature", Unit: "Cel", Min: -40, Max: 125, Resolution: 0.01},
		{Name: "humidity", Unit: "%", Min: 0, Max: 100, Resolution: 0.01},
	}}
	switch o.Precision { // longest measurement durations
	case "", "high":
		d.measure, d.wait = cmdHigh, 8300*time.Microsecond
	case "medium":
		d.measure, d.wait = cmdMedium, 4500*time.Microsecond
	case "low":
		d.measure, d.wait = cmdLow, 1600*time.Microsecond
	default:
		return nil, fmt.Errorf("sht4x: precision %q: unknown%s", o.Precision, sensor.Hint(o.Precision, []string{"high", "medium", "low"}))
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if err := d.setUp(ctx); err != nil {
		return nil, d.wrap(err)
	}
	d.ready = true
	return d, nil
}

// Channels satisfies [sensor.Sensor]: temperature in Cel and relative humidity in
// %.
func (d *Dev) Channels() []sensor.Channel { return d.channels }

// Serial returns the chip's serial number.
func (d *Dev) Serial() uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.serial
}

// String names the chip in messages.
func (d *Dev) String() string { return "sht4x on " + d.dev.String() }

func (d *Dev) wrap(err error) error { return fmt.Errorf("%s: %w", d, err) }

// setUp ends whatever the chip was doing and asks who it is.
func (d *Dev) setUp(ctx context.Context) error {
	if err := d.command(ctx, cmdReset); err != nil {
		return err
	}
	if err := sensor.Wait(ctx, d.opts.Clock, time.Millisecond); err != nil { // longest soft reset
		return err
	}
	high, low, err := d.ask(ctx, cmdSerial, time.Millisecond)
	if err != nil {
		return err
	}
	d.serial = uint32(high)<<16 | uint32(low)
	return nil
}

func (d *Dev) command(ctx context.Context, cmd byte) error {
	if err := d.dev.Tx(ctx, []byte{cmd}, nil); err != nil {
		return fmt.Errorf("command 0x%02x: %w", cmd, err)
	}
	return nil
}

// ask sends a command and reads the two words of its answer.
func (d *Dev) ask(ctx context.Context, cmd byte, wait time.Duration) (first, second uint16, err error) {
	if err := d.command(ctx, cmd); err != nil {
		return 0, 0, err
	}
	if err := sensor.Wait(ctx, d.opts.Clock, wait); err != nil {
		return 0, 0, err
	}
	var b [6]byte
	if err := d.dev.Tx(ctx, nil, b[:]); err != nil { // not acknowledged also if it is not ready
		return 0, 0, fmt.Errorf("answer to command 0x%02x: %w", cmd, err)
	}
	if checksum(b[0:2]) != b[2] || checksum(b[3:5]) != b[5] {
		return 0, 0, fmt.Errorf("%w: checksum of % x", sensor.ErrImplausible, b)
	}
	return uint16(b[0])<<8 | uint16(b[1]), uint16(b[3])<<8 | uint16(b[4]), nil
}

// checksum is the CRC-8 of a word: polynomial 0x31, start 0xFF, nothing
// reflected or inverted at the end (4.4).
func checksum(b []byte) byte {
	crc := byte(0xFF)
	for _, v := range b {
		crc ^= v
		for range 8 {
			high := crc & 0x80
			crc <<= 1
			if high != 0 {
				crc ^= 0x31
			}
		}
	}
	return crc
}

// Sense satisfies [sensor.Sensor].
func (d *Dev) Sense(ctx context.Context) []sensor.Value {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return sensor.Failed(2, d.wrap(sensor.ErrClosed))
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	vs, err := d.sense(ctx)
	d.ready = err == nil
	if err != nil {
		return sensor.Failed(2, d.wrap(err))
	}
	return vs
}

func (d *Dev) sense(ctx context.Context) ([]sensor.Value, error) {
	if !d.ready {
		if err := d.setUp(ctx); err != nil {
			return nil, err
		}
	}
	t, h, err := d.ask(ctx, d.measure, d.wait)
	if err != nil {
		return nil, err
	}
	vs := []sensor.Value{d.channels[0].Check(celsius(t)), d.channels[1].Check(humidity(h))}
	if err := vs[0].Err; err != nil {
		// The humidity is compensated for the temperature inside the chip.
		return sensor.Failed(2, d.wrap(err)), nil
	}
	return vs, nil
}

// celsius and humidity convert the words of a measurement (4.6). A humidity that
// the tolerances carry beyond the physical limits is put there, as the section
// asks.
func celsius(word uint16) float64 { return -45 + 175*float64(word)/65535 }

func humidity(word uint16) float64 {
	return min(100, max(0, -6+125*float64(word)/65535))
}

// Close satisfies [sensor.Sensor]. The chip is reset, after which it sleeps.
func (d *Dev) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.Timeout)
	defer cancel()
	if err := d.command(ctx, cmdReset); err != nil && !errors.Is(err, i2c.ErrClosed) {
		return d.wrap(fmt.Errorf("close: %w", err))
	}
	return nil
}

var _ sensor.Sensor = (*Dev)(nil)
