// Package max31865 drives Maxim's MAX31865, which measures the resistance of a
// platinum thermometer (Pt100, Pt1000), over SPI.
//
// Data sheet: 19-6478, Rev 3 (July 2015); table and page numbers are its.
//
// Each Sense is a fault detection cycle and one conversion, with the bias on for as
// long as they take: current warms the sensor. SPI tells nothing of a chip that is
// not there, so the driver sets the fault thresholds to values that are a mark as
// well, reads them with every result, and reads every result twice.
package max31865

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/sensor"
	"holdfast/drivers/spi"
)

// Options of a chip. The zero value works: a Pt100 with two or four wires and the
// data sheet's reference resistor.
type Options struct {
	// Element is the resistance of the thermometer at 0 Cel in Ohm: 100 for a
	// Pt100, 1000 for a Pt1000. 0 means 100.
	Element float64

	// Reference is the resistance of the reference resistor in Ohm. 0 means four
	// times Element, as in the data sheet. Many modules have 430 or 4300.
	Reference float64

	// Wires are 2, 3 or 4. 0 means 4; 2 is the same to the chip.
	Wires int

	// Mains is the frequency that is filtered out, 50 or 60 Hz. 0 means 50.
	Mains int

	// Settle is how long the bias is on before a conversion: 10.5 time constants
	// of the input filter and 1 ms (page 20). 0 means 10 ms, which is good for
	// 100 nF at a Pt1000 with 4 kOhm.
	Settle time.Duration

	// Timeout limits one Sense. 0 means 1 s.
	Timeout time.Duration

	// Clock times the waiting; nil is the machine's own.
	Clock clock.Clock
}

// ParseOptions reads the options "element" (pt100, pt1000), "reference" (Ohm; it
// must be given, because a wrong one is a wrong temperature), "wires", "mains",
// "settle" and "timeout" from text.
func ParseOptions(text map[string]string) (Options, error) {
	s := sensor.NewSettings(text)
	o := Options{
		Element:   100,
		Reference: s.Float("reference", 0, leastReference, mostReference),
		Wires:     s.Int("wires", 4, 2, 3, 4),
		Mains:     s.Int("mains", 50, 50, 60),
		Settle:    s.Duration("settle", 10*time.Millisecond),
		Timeout:   s.Duration("timeout", time.Second),
	}
	if s.Choice("element", "pt100", "pt100", "pt1000") == "pt1000" {
		o.Element = 1000
	}
	if _, ok := text["reference"]; !ok {
		s.Missing("reference", "the reference resistor in Ohm, as printed on the board: often 430 (Pt100) or 4300 (Pt1000)")
	}
	return o, s.Err()
}

// SPI returns how the chip is talked to: mode 1, at most 5 MHz (page 4), of which
// less is taken because of long wires.
func SPI() spi.Config { return spi.Config{Mode: 1, Hertz: 1_000_000} }

// Registers (table 1), the bits of the configuration (table 2) and of the fault
// status (table 7).
const (
	regConfig = 0x00
	regHigh   = 0x03
	writing   = 0x80
	registers = 8

	configBias   = 0x80
	configOnce   = 0x20
	config3Wire  = 0x10
	configDetect = 0x04 // automatic fault detection cycle; 0x0C while it runs
	configCycle  = 0x0C
	configClear  = 0x02
	config50Hz   = 0x01

	// The thresholds, left-aligned as the results are. After power-on they are
	// 0xFFFF and 0. A result beyond them is that of a broken wire or a short.
	markHigh = 0xFFFC
	markLow  = 0x0004

	codes = 32768

	leastReference, mostReference = 10, 100_000
)

// The longest times of a detection cycle (page 15) and of a conversion with either
// filter (page 3), and how often a bit that should be clear is read again.
const (
	detection    = time.Millisecond
	conversion60 = 55 * time.Millisecond
	conversion50 = 66 * time.Millisecond
	mostPolls    = 5
)

// Dev is a chip. It satisfies [sensor.Sensor].
type Dev struct {
	conn       spi.Conn
	opts       Options
	config     byte
	conversion time.Duration
	channels   []sensor.Channel

	mu     sync.Mutex
	ready  bool // set up since the last error
	closed bool
}

// Open finds out whether a chip that behaves as a MAX31865 answers and sets it
// up: it has no identity, but its registers must hold what is written.
func Open(ctx context.Context, conn spi.Conn, o Options) (*Dev, error) {
	d := &Dev{conn: conn, opts: o}
	if err := d.plan(); err != nil {
		return nil, fmt.Errorf("max31865: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	if err := d.setUp(ctx); err != nil {
		return nil, d.wrap(err)
	}
	d.ready = true
	return d, nil
}

// plan turns the options into a configuration and channels.
func (d *Dev) plan() error {
	o := &d.opts
	if o.Element == 0 {
		o.Element = 100
	}
	if o.Reference == 0 {
		o.Reference = 4 * o.Element
	}
	if o.Settle <= 0 {
		o.Settle = 10 * time.Millisecond
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	switch o.Wires {
	case 0, 2, 4:
	case 3:
		d.config |= config3Wire
	default:
		return fmt.Errorf("%d wires: want 2, 3 or 4", o.Wires)
	}
	switch o.Mains {
	case 0, 50:
		d.config |= config50Hz
		d.conversion = conversion50
	case 60:
		d.conversion = conversion60
	default:
		return fmt.Errorf("mains of %d Hz: want 50 or 60", o.Mains)
	}
	if !(o.Element > 0) || !(o.Reference >= leastReference && o.Reference <= mostReference) {
		return fmt.Errorf("element of %g Ohm, reference of %g Ohm: want %g to %g", o.Element, o.Reference, float64(leastReference), float64(mostReference))
	}
	// The range of the standard, and a count beyond: the ends are between counts.
	step := o.Reference / codes
	low, high := ratio(leastCelsius)-step/o.Element, ratio(mostCelsius)+step/o.Element
	d.channels = []sensor.Channel{
		{Name: "temperature", Unit: "Cel", Min: celsius(low), Max: celsius(high), Resolution: step / o.Element / cvdA},
		{Name: "resistance", Unit: "Ohm", Min: o.Element * low, Max: o.Element * high, Resolution: step},
	}
	return nil
}

// Channels satisfies [sensor.Sensor]: temperature in Cel and resistance in Ohm.
func (d *Dev) Channels() []sensor.Channel { return d.channels }

// String names the chip in messages.
func (d *Dev) String() string { return "max31865 on " + d.conn.String() }

func (d *Dev) wrap(err error) error { return fmt.Errorf("%s: %w", d, err) }

func (d *Dev) write(ctx context.Context, reg byte, b ...byte) error {
	if err := d.conn.Tx(ctx, append([]byte{reg | writing}, b...), nil); err != nil {
		return fmt.Errorf("write register %d: %w", reg, err)
	}
	return nil
}

// content is all registers.
type content [registers]byte

func (c *content) result() uint16 { return uint16(c[1])<<8 | uint16(c[2]) }
func (c *content) fault() byte    { return c[7] }

// read reads all registers, twice, which must agree, and makes sure that the
// settings are there. Bits of busy in the configuration may be set.
func (d *Dev) read(ctx context.Context, config, busy byte) (c content, err error) {
	var first, again [1 + registers]byte
	for _, r := range [][]byte{first[:], again[:]} {
		if err := d.conn.Tx(ctx, make([]byte, len(r)), r); err != nil {
			return c, fmt.Errorf("read registers: %w", err)
		}
	}
	if !bytes.Equal(first[1:], again[1:]) && first[1]&busy == again[1]&busy {
		return c, fmt.Errorf("%w: registers differ from one reading to the next", sensor.ErrImplausible)
	}
	c = content(again[1:])
	high, low := uint16(c[3])<<8|uint16(c[4]), uint16(c[5])<<8|uint16(c[6])
	if c[0]&^busy != config || high != markHigh || low != markLow {
		return c, fmt.Errorf("%w: configuration 0x%02x thresholds 0x%04x 0x%04x, were set to 0x%02x 0x%04x 0x%04x",
			sensor.ErrImplausible, c[0], high, low, config, markHigh, markLow)
	}
	return c, nil
}

// setUp writes the settings and reads them back.
func (d *Dev) setUp(ctx context.Context) error {
	if err := d.write(ctx, regConfig, d.config|configClear); err != nil {
		return err
	}
	if err := d.write(ctx, regHigh, markHigh>>8, markHigh&0xFF, markLow>>8, markLow); err != nil {
		return err
	}
	_, err := d.read(ctx, d.config, 0)
	return err
}

// Sense satisfies [sensor.Sensor]. A fault of the thermometer or its wires is an
// error that wraps ErrFault and says which.
func (d *Dev) Sense(ctx context.Context) []sensor.Value {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return sensor.Failed(2, d.wrap(sensor.ErrClosed))
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	ohms, err := d.sense(ctx)
	d.ready = err == nil || errors.Is(err, sensor.ErrFault)
	if err != nil {
		return sensor.Failed(2, d.wrap(err))
	}
	vs := []sensor.Value{d.channels[0].Check(celsius(ohms / d.opts.Element)), d.channels[1].Check(ohms)}
	if err := sensor.FirstError(vs); err != nil { // the two are one
		return sensor.Failed(2, d.wrap(err))
	}
	return vs
}

func (d *Dev) sense(ctx context.Context) (ohms float64, err error) {
	if !d.ready {
		if err := d.setUp(ctx); err != nil {
			return 0, err
		}
	}
	on := d.config | configBias
	if err := d.write(ctx, regConfig, on|configClear); err != nil {
		return 0, err
	}
	if err := sensor.Wait(ctx, d.opts.Clock, d.opts.Settle); err != nil {
		return 0, err
	}
	if err := d.write(ctx, regConfig, on|configDetect); err != nil {
		return 0, err
	}
	if _, err := d.await(ctx, on, configCycle, detection); err != nil {
		return 0, err
	}
	if err := d.write(ctx, regConfig, on|configOnce); err != nil {
		return 0, err
	}
	c, err := d.await(ctx, on, configOnce, d.conversion)
	if err != nil {
		return 0, err
	}
	if err := d.write(ctx, regConfig, d.config); err != nil {
		return 0, err
	}
	code := c.result() >> 1
	if c.fault() != 0 || c.result()&1 != 0 {
		return 0, fmt.Errorf("%w: %s", sensor.ErrFault, explain(c.fault()))
	}
	return float64(code) / codes * d.opts.Reference, nil
}

// await waits until the bits of busy are clear.
func (d *Dev) await(ctx context.Context, config, busy byte, wait time.Duration) (c content, err error) {
	for range mostPolls {
		if err := sensor.Wait(ctx, d.opts.Clock, wait); err != nil {
			return c, err
		}
		if c, err = d.read(ctx, config, busy); err != nil || c[0]&busy == 0 {
			return c, err
		}
		wait = time.Millisecond
	}
	return c, fmt.Errorf("%w: configuration 0x%02x after %d polls", sensor.ErrNotReady, c[0], mostPolls)
}

// explain says what the bits of the fault status mean (table 7).
func explain(status byte) string {
	var causes []string
	for _, b := range []struct {
		bit  byte
		text string
	}{
		{0x80, "resistance above the threshold: open thermometer or wire"},
		{0x40, "resistance below the threshold: shorted thermometer"},
		{0x20, "REFIN- too high: open thermometer or wire"},
		{0x10, "REFIN- too low: FORCE- open or shorted"},
		{0x08, "RTDIN- too low: FORCE- open or shorted"},
		{0x04, "voltage beyond the supply at an input"},
	} {
		if status&b.bit != 0 {
			causes = append(causes, b.text)
		}
	}
	if len(causes) == 0 {
		return fmt.Sprintf("fault status 0x%02x", status)
	}
	return strings.Join(causes, "; ")
}

// Close satisfies [sensor.Sensor]. The bias is left off. The connection belongs to
// whoever opened it.
func (d *Dev) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.Timeout)
	defer cancel()
	if err := d.write(ctx, regConfig, d.config); err != nil && !errors.Is(err, spi.ErrClosed) {
		return d.wrap(fmt.Errorf("close: %w", err))
	}
	return nil
}

var _ sensor.Sensor = (*Dev)(nil)
