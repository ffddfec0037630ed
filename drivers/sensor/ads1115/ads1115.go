// Package ads1115 drives Texas Instruments' ADS1115, a 16-bit analog-to-digital
// converter with four inputs and a programmable gain, over I2C.
//
// Data sheet: SBAS444D (revision of January 2018); section and table numbers are
// its. Each channel is one conversion in single-shot mode (9.4.2.1), begun and
// awaited by the driver.
package ads1115

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/i2c"
	"holdfast/drivers/sensor"
)

// Options of a chip. The zero value works.
type Options struct {
	// Inputs are the channels to measure: "a0" to "a3" against ground, and the
	// pairs the chip can subtract, "a0-a1", "a0-a3", "a1-a3", "a2-a3". None means
	// a0 to a3.
	Inputs []string

	// FullScale is the largest voltage to measure, in mV: 6144, 4096, 2048, 1024,
	// 512 or 256 (table 3). 0 means 4096. No input may exceed the supply,
	// whatever is set here.
	FullScale int

	// Rate is in conversions per second: 8, 16, 32, 64, 128, 250, 475 or 860.
	// 0 means 128. A lower rate means less noise.
	Rate int

	// Timeout limits one Sense over all inputs. 0 means 2 s, or what the
	// conversions take if that is more.
	Timeout time.Duration

	// Clock times the waiting; nil is the machine's own.
	Clock clock.Clock
}

// ParseOptions reads the options "inputs" (with commas between), "full-scale"
// (mV), "rate" and "timeout" from text.
func ParseOptions(text map[string]string) (Options, error) {
	s := sensor.NewSettings(text)
	o := Options{
		Inputs:    s.List("inputs", nil, inputNames()...),
		FullScale: s.Int("full-scale", 4096, 6144, 4096, 2048, 1024, 512, 256),
		Rate:      s.Int("rate", 128, 8, 16, 32, 64, 128, 250, 475, 860),
		Timeout:   s.Duration("timeout", 0),
	}
	return o, s.Err()
}

// Addresses returns the addresses the chip can have: ADDR at ground, supply, SDA,
// SCL (table 4).
func Addresses() []uint16 { return []uint16{0x48, 0x49, 0x4A, 0x4B} }

// Registers (9.6.1) and the bits of the configuration (table 8).
const (
	regConversion = 0
	regConfig     = 1
	regLow        = 2
	regHigh       = 3

	configStart = 0x8000 // written: begin; read: no conversion is running
	configOnce  = 0x0100 // single-shot mode
	configQuiet = 0x0003 // comparator off
	resetLow    = 0x8000 // Lo_thresh after power-on (9.6.4)
	resetHigh   = 0x7FFF // Hi_thresh after power-on
	codeMost    = math.MaxInt16
	codeLeast   = math.MinInt16
	offsetCodes = 16 // how far below 0 a grounded input may read
	mostPolls   = 10
)

// inputNames returns the names of the multiplexer's settings in their order
// (table 8, MUX).
func inputNames() []string {
	return []string{"a0-a1", "a0-a3", "a1-a3", "a2-a3", "a0", "a1", "a2", "a3"}
}

// index returns where v stands in list, or -1.
func index[T comparable](list []T, v T) int {
	for i, l := range list {
		if l == v {
			return i
		}
	}
	return -1
}

// Dev is a chip. It satisfies [sensor.Sensor].
type Dev struct {
	dev      i2c.Dev
	opts     Options
	channels []sensor.Channel
	configs  []uint16 // of each channel, without configStart
	wait     time.Duration
	volt     float64 // full scale

	mu     sync.Mutex
	closed bool
}

// Open finds out whether a chip that behaves as an ADS1115 answers at addr. The
// chip has no identity: its threshold registers, which the driver does not use,
// must be as after power-on, and its configuration must hold what is written.
func Open(ctx context.Context, bus i2c.Bus, addr uint16, o Options) (*Dev, error) {
	d := &Dev{dev: i2c.Dev{Bus: bus, Addr: addr}, opts: o}
	if err := d.plan(); err != nil {
		return nil, fmt.Errorf("ads1115: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	if err := d.probe(ctx); err != nil {
		return nil, d.wrap(err)
	}
	return d, nil
}

// plan turns the options into channels and their configurations.
func (d *Dev) plan() error {
	o := &d.opts
	if len(o.Inputs) == 0 {
		o.Inputs = []string{"a0", "a1", "a2", "a3"}
	}
	if o.FullScale == 0 {
		o.FullScale = 4096
	}
	if o.Rate == 0 {
		o.Rate = 128
	}
	gain := index([]int{6144, 4096, 2048, 1024, 512, 256}, o.FullScale)
	rate := index([]int{8, 16, 32, 64, 128, 250, 475, 860}, o.Rate)
	if gain < 0 || rate < 0 {
		return fmt.Errorf("full scale %d mV, rate %d per second: the chip has no such setting", o.FullScale, o.Rate)
	}
	d.volt = float64(o.FullScale) / 1000
	for _, name := range o.Inputs {
		mux := index(inputNames(), name)
		if mux < 0 {
			return fmt.Errorf("input %q: unknown%s", name, sensor.Hint(name, inputNames()))
		}
		if index(d.names(), name) >= 0 {
			return fmt.Errorf("input %q: given twice", name)
		}
		d.channels = append(d.channels, d.channel(name, mux >= 4))
		d.configs = append(d.configs, uint16(mux)<<12|uint16(gain)<<9|configOnce|uint16(rate)<<5|configQuiet)
	}
	// The rate is exact to 10 % (7.5, data rate variation); waking up from
	// power-down takes 25 us (9.4.2.1).
	d.wait = time.Second/time.Duration(o.Rate)*11/10 + 100*time.Microsecond
	if o.Timeout <= 0 {
		o.Timeout = max(2*time.Second, 2*d.wait*time.Duration(len(o.Inputs)))
	}
	return nil
}

func (d *Dev) names() []string {
	var names []string
	for _, c := range d.channels {
		names = append(names, c.Name)
	}
	return names
}

// channel returns the range of an input: what the gain can show (9.3.3), from
// about 0 for one against ground, where negative codes come from the offset only
// (9.5.4).
func (d *Dev) channel(name string, single bool) sensor.Channel {
	step := d.volt / 32768
	c := sensor.Channel{Name: name, Unit: "V", Min: codeLeast * step, Max: codeMost * step, Resolution: step}
	if single {
		c.Min = -offsetCodes * step
	}
	return c
}

// Channels satisfies [sensor.Sensor]: voltages in V.
func (d *Dev) Channels() []sensor.Channel { return d.channels }

// String names the chip in messages.
func (d *Dev) String() string { return "ads1115 on " + d.dev.String() }

func (d *Dev) wrap(err error) error { return fmt.Errorf("%s: %w", d, err) }

func (d *Dev) probe(ctx context.Context) error {
	low, err := d.dev.ReadUint16(ctx, regLow)
	if err != nil {
		return err
	}
	high, err := d.dev.ReadUint16(ctx, regHigh)
	if err != nil {
		return err
	}
	if low != resetLow || high != resetHigh {
		return fmt.Errorf("%w: thresholds 0x%04x 0x%04x, want 0x%04x 0x%04x", sensor.ErrIdentity, low, high, resetLow, resetHigh)
	}
	if err := d.dev.WriteUint16(ctx, regConfig, d.configs[0]); err != nil {
		return err
	}
	config, err := d.dev.ReadUint16(ctx, regConfig)
	if err != nil {
		return err
	}
	if config&^configStart != d.configs[0] {
		return fmt.Errorf("%w: configuration reads 0x%04x after 0x%04x was written", sensor.ErrIdentity, config, d.configs[0])
	}
	return nil
}

// Sense satisfies [sensor.Sensor]. The channels are converted one after the
// other.
func (d *Dev) Sense(ctx context.Context) []sensor.Value {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return sensor.Failed(len(d.channels), d.wrap(sensor.ErrClosed))
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	vs := make([]sensor.Value, len(d.channels))
	for i, c := range d.channels {
		code, err := d.convert(ctx, d.configs[i])
		if err == nil {
			vs[i] = d.value(c, code)
		} else {
			vs[i].Err = err
		}
		if vs[i].Err != nil {
			vs[i].Err = d.wrap(fmt.Errorf("%s: %w", c.Name, vs[i].Err))
		}
		if errors.Is(err, i2c.ErrNACK) || ctx.Err() != nil {
			// A chip that is not there is not there for the other inputs.
			copy(vs[i:], sensor.Failed(len(vs)-i, vs[i].Err))
			break
		}
	}
	return vs
}

// value turns a code into a voltage. At the ends of the scale the output clips
// (table 5), so the last code there says only "this much or more".
func (d *Dev) value(c sensor.Channel, code int16) sensor.Value {
	v := float64(code) / 32768 * d.volt
	if code == codeMost || code == codeLeast {
		return sensor.Value{Value: v, Err: fmt.Errorf("%w: clipped at %.4g V", sensor.ErrRange, v)}
	}
	return c.Check(v)
}

// convert makes one conversion. The configuration is read back with its end, so
// that a result that belongs to another setting is noticed.
func (d *Dev) convert(ctx context.Context, config uint16) (int16, error) {
	if err := d.dev.WriteUint16(ctx, regConfig, config|configStart); err != nil {
		return 0, err
	}
	if err := sensor.Wait(ctx, d.opts.Clock, d.wait); err != nil {
		return 0, err
	}
	for range mostPolls {
		got, err := d.dev.ReadUint16(ctx, regConfig)
		switch {
		case err != nil:
			return 0, err
		case got&^configStart != config:
			return 0, fmt.Errorf("%w: configuration 0x%04x, want 0x%04x", sensor.ErrImplausible, got&^configStart, config)
		case got&configStart != 0:
			code, err := d.dev.ReadUint16(ctx, regConversion)
			return int16(code), err
		}
		if err := sensor.Wait(ctx, d.opts.Clock, d.wait/8); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%w after %v and %d polls", sensor.ErrNotReady, d.wait, mostPolls)
}

// Close satisfies [sensor.Sensor]. The chip powers down by itself after each
// conversion; the configuration is put to where it makes none.
func (d *Dev) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.Timeout)
	defer cancel()
	if err := d.dev.WriteUint16(ctx, regConfig, d.configs[0]); err != nil && !errors.Is(err, i2c.ErrClosed) {
		return d.wrap(fmt.Errorf("close: %w", err))
	}
	return nil
}

var _ sensor.Sensor = (*Dev)(nil)
