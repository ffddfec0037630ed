// Package ina226 drives Texas Instruments' INA226, which measures a current by
// its voltage across a shunt, and the voltage of the bus, over I2C.
//
// Data sheet: SBOS547 (June 2011 and August 2015); registers, bits and equations
// are named as there.
//
// Each Sense is one triggered conversion. The calibration register is set to
// 2048, with which the current register counts as the shunt voltage register does
// (equation 3): nothing is lost to rounding, and of two registers that must agree on
// a bus without a checksum one checks the other.
package ina226

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
	// Shunt is the shunt's resistance in Ohm, 1e-6 to 1e3. 0 means that it is not
	// known: then only the two voltages are measured.
	Shunt float64

	// Averages is of how many conversions one measurement is the mean: 1, 4, 16,
	// 64, 128, 256, 512 or 1024 (AVG). 0 means 16.
	Averages int

	// Conversion is the time of one in microseconds: 140, 204, 332, 588, 1100,
	// 2116, 4156 or 8244 (VBUSCT, VSHCT). 0 means 1100. Longer means less noise.
	Conversion int

	// Timeout limits one Sense. 0 means 2 s, or four times what the conversions
	// take if that is more.
	Timeout time.Duration

	// Clock times the waiting; nil is the machine's own.
	Clock clock.Clock
}

func averages() []int    { return []int{1, 4, 16, 64, 128, 256, 512, 1024} }
func conversions() []int { return []int{140, 204, 332, 588, 1100, 2116, 4156, 8244} }

// ParseOptions reads the options "shunt" (Ohm), "averages", "conversion"
// (microseconds) and "timeout" from text.
func ParseOptions(text map[string]string) (Options, error) {
	s := sensor.NewSettings(text)
	o := Options{
		Shunt:      s.Float("shunt", 0, leastShunt, mostShunt),
		Averages:   s.Int("averages", 16, averages()...),
		Conversion: s.Int("conversion", 1100, conversions()...),
		Timeout:    s.Duration("timeout", 0),
	}
	return o, s.Err()
}

// Addresses returns the addresses the chip can have: A1, A0 each at ground,
// supply, SDA, SCL.
func Addresses() []uint16 {
	var all []uint16
	for a := uint16(0x40); a <= 0x4F; a++ {
		all = append(all, a)
	}
	return all
}

// Registers (register set summary).
const (
	regConfig      = 0x00
	regShunt       = 0x01
	regBus         = 0x02
	regPower       = 0x03
	regCurrent     = 0x04
	regCalibration = 0x05
	regMask        = 0x06
	regMaker       = 0xFE
	regDie         = 0xFF

	maker = 0x5449 // "TI"
	die   = 0x226  // the lowest four bits are the revision (RID)

	configFixed = 0x4000 // bit 14 always reads as 1
	configReset = 0x8000
	modeOnce    = 3 // shunt and bus, triggered (MODE)
	modeOff     = 0
	calibration = 2048 // 0 after power-on, so also the mark of a chip that has been set up
	flagReady   = 1 << 3
	flagOver    = 1 << 2

	shuntStep = 2.5e-6  // V, Shunt Voltage Register
	busStep   = 1.25e-3 // V, Bus Voltage Register

	leastShunt, mostShunt = 1e-6, 1e3
)

// mostPolls bounds how often the flag of a conversion is read again.
const mostPolls = 10

// Dev is a chip. It satisfies [sensor.Sensor].
type Dev struct {
	dev      i2c.Dev
	opts     Options
	config   uint16
	wait     time.Duration
	channels []sensor.Channel

	mu     sync.Mutex
	ready  bool // set up since the last error
	closed bool
}

// Open finds out whether an INA226 answers at addr and sets it up.
func Open(ctx context.Context, bus i2c.Bus, addr uint16, o Options) (*Dev, error) {
	d := &Dev{dev: i2c.Dev{Bus: bus, Addr: addr}, opts: o}
	if err := d.plan(); err != nil {
		return nil, fmt.Errorf("ina226: %w", err)
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
	if o.Averages == 0 {
		o.Averages = 16
	}
	if o.Conversion == 0 {
		o.Conversion = 1100
	}
	n, t := index(averages(), o.Averages), index(conversions(), o.Conversion)
	switch {
	case n < 0:
		return fmt.Errorf("%d averages: want one of %v", o.Averages, averages())
	case t < 0:
		return fmt.Errorf("conversion of %d us: want one of %v", o.Conversion, conversions())
	case o.Shunt != 0 && !(o.Shunt >= leastShunt && o.Shunt <= mostShunt):
		return fmt.Errorf("shunt of %g Ohm: want %g to %g", o.Shunt, leastShunt, mostShunt)
	}
	d.config = uint16(configFixed | n<<9 | t<<6 | t<<3)
	// The longest conversion is a tenth above the typical one (electrical
	// characteristics, ADC conversion time).
	d.wait = time.Duration(o.Averages*2*o.Conversion) * time.Microsecond * 11 / 10
	if o.Timeout <= 0 {
		o.Timeout = max(2*time.Second, 4*d.wait)
	}
	span := shuntStep * 32768
	d.channels = []sensor.Channel{
		// What may be measured (electrical characteristics, input), of a scale that
		// goes to 40.96 V.
		{Name: "bus", Unit: "V", Min: 0, Max: 36, Resolution: busStep},
		{Name: "shunt", Unit: "V", Min: -span, Max: span, Resolution: shuntStep},
	}
	if o.Shunt > 0 {
		amps := span / o.Shunt
		d.channels = append(d.channels,
			sensor.Channel{Name: "current", Unit: "A", Min: -amps, Max: amps, Resolution: shuntStep / o.Shunt},
			sensor.Channel{Name: "power", Unit: "W", Min: -36 * amps, Max: 36 * amps, Resolution: 25 * shuntStep / o.Shunt})
	}
	return nil
}

func index(list []int, v int) int {
	for i, l := range list {
		if l == v {
			return i
		}
	}
	return -1
}

// Channels satisfies [sensor.Sensor]: the voltages of bus and shunt in V and, if
// the shunt is known, current in A and power in W. Power has the sign of the
// current.
func (d *Dev) Channels() []sensor.Channel { return d.channels }

// String names the chip in messages.
func (d *Dev) String() string { return "ina226 on " + d.dev.String() }

func (d *Dev) wrap(err error) error { return fmt.Errorf("%s: %w", d, err) }

// setUp identifies the chip and resets it.
func (d *Dev) setUp(ctx context.Context) error {
	m, err := d.dev.ReadUint16(ctx, regMaker)
	if err != nil {
		return err
	}
	id, err := d.dev.ReadUint16(ctx, regDie)
	if err != nil {
		return err
	}
	if m != maker || id>>4 != die {
		return fmt.Errorf("%w: manufacturer 0x%04x die 0x%04x, want 0x%04x 0x%03xx", sensor.ErrIdentity, m, id, maker, die)
	}
	if err := d.dev.WriteUint16(ctx, regConfig, configReset); err != nil {
		return err
	}
	return d.dev.WriteUint16(ctx, regCalibration, calibration)
}

// Sense satisfies [sensor.Sensor].
func (d *Dev) Sense(ctx context.Context) []sensor.Value {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return sensor.Failed(len(d.channels), d.wrap(sensor.ErrClosed))
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	r, err := d.sense(ctx)
	d.ready = err == nil
	if err != nil {
		return sensor.Failed(len(d.channels), d.wrap(err))
	}
	return d.values(r)
}

// result is the content of the four registers of a measurement.
type result struct {
	shunt, current int16
	bus, power     uint16
}

func (d *Dev) sense(ctx context.Context) (result, error) {
	if !d.ready {
		if err := d.setUp(ctx); err != nil {
			return result{}, err
		}
	}
	if err := d.dev.WriteUint16(ctx, regConfig, d.config|modeOnce); err != nil {
		return result{}, err
	}
	if err := sensor.Wait(ctx, d.opts.Clock, d.wait); err != nil {
		return result{}, err
	}
	if err := d.await(ctx); err != nil {
		return result{}, err
	}
	var r [6]uint16
	for i, reg := range []byte{regShunt, regBus, regPower, regCurrent, regCalibration, regConfig} {
		v, err := d.dev.ReadUint16(ctx, reg)
		if err != nil {
			return result{}, err
		}
		r[i] = v
	}
	if r[4] != calibration || r[5] != d.config|modeOnce {
		return result{}, fmt.Errorf("%w: settings have been lost", sensor.ErrImplausible)
	}
	got := result{shunt: int16(r[0]), bus: r[1], power: r[2], current: int16(r[3])}
	return got, d.agree(got)
}

// await waits for the flag of a finished conversion.
func (d *Dev) await(ctx context.Context) error {
	for range mostPolls {
		flags, err := d.dev.ReadUint16(ctx, regMask)
		switch {
		case err != nil:
			return err
		case flags&^(flagReady|flagOver) != 0: // all that the driver set to 0, and the alert
			return fmt.Errorf("%w: mask/enable register 0x%04x", sensor.ErrImplausible, flags)
		case flags&flagOver != 0:
			return fmt.Errorf("%w: the calculation of current or power overflowed", sensor.ErrRange)
		case flags&flagReady != 0:
			return nil
		}
		if err := sensor.Wait(ctx, d.opts.Clock, d.wait/8); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w after %v and %d polls", sensor.ErrNotReady, d.wait, mostPolls)
}

// agree checks what the chip has computed against what it has measured
// (equations 3 and 4), to one count of rounding. The mean of products is not the
// product of means, so the power of averaged conversions cannot be checked.
func (d *Dev) agree(r result) error {
	if diff := int(r.current) - int(r.shunt); diff < -1 || diff > 1 {
		return fmt.Errorf("%w: current register %d, shunt register %d", sensor.ErrImplausible, r.current, r.shunt)
	}
	product := math.Abs(float64(r.current)) * float64(r.bus) / 20000
	if d.opts.Averages == 1 && math.Abs(float64(r.power)-product) > 1 {
		return fmt.Errorf("%w: power register %d, current times voltage %.0f", sensor.ErrImplausible, r.power, product)
	}
	return nil
}

// values converts a measurement.
func (d *Dev) values(r result) []sensor.Value {
	vs := []sensor.Value{
		d.channels[0].Check(float64(r.bus) * busStep),
		d.channels[1].Check(float64(r.shunt) * shuntStep),
	}
	if r.shunt == math.MaxInt16 || r.shunt == math.MinInt16 {
		vs[1].Err = fmt.Errorf("shunt: %w: clipped at %.5g V", sensor.ErrRange, vs[1].Value)
	}
	if d.opts.Shunt > 0 {
		watts := 25 * shuntStep / d.opts.Shunt * float64(r.power) // the unit of power is 25 of current
		if r.shunt < 0 {
			watts = -watts
		}
		vs = append(vs, d.channels[2].Check(float64(r.shunt)*shuntStep/d.opts.Shunt), d.channels[3].Check(watts))
		if vs[1].Err != nil {
			vs[2].Err, vs[3].Err = vs[1].Err, vs[1].Err
		}
		if vs[0].Err != nil {
			vs[3].Err = vs[0].Err
		}
	}
	for i := range vs {
		if vs[i].Err != nil {
			vs[i].Err = d.wrap(vs[i].Err)
		}
	}
	return vs
}

// Close satisfies [sensor.Sensor]. The chip is left powered down.
func (d *Dev) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.Timeout)
	defer cancel()
	if err := d.dev.WriteUint16(ctx, regConfig, d.config|modeOff); err != nil && !errors.Is(err, i2c.ErrClosed) {
		return d.wrap(fmt.Errorf("close: %w", err))
	}
	return nil
}

var _ sensor.Sensor = (*Dev)(nil)
