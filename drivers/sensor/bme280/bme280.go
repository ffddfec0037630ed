// Package bme280 drives Bosch's BME280 (temperature, pressure, humidity) and
// BMP280 (temperature, pressure) over I2C.
//
// Data sheets: BST-BME280-DS001-10 (revision 1.1) and BST-BMP280-DS001-19
// (revision 1.19). Section and table numbers below are the BME280's unless said
// otherwise.
//
// The chip sleeps between measurements: each Sense is one in forced mode (3.3.3).
package bme280

import (
	"bytes"
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
	// Oversampling of each quantity: 1, 2, 4, 8 or 16. 0 means 1, which the data
	// sheet recommends for weather monitoring (3.5.1). More means less noise, at
	// about 2 ms each.
	Temperature, Pressure, Humidity int

	// Timeout limits one Sense, set-up included. 0 means 1 s.
	Timeout time.Duration

	// Clock times the waiting; nil is the machine's own.
	Clock clock.Clock
}

// ParseOptions reads the options "temperature", "pressure", "humidity"
// (oversampling) and "timeout" from text.
func ParseOptions(text map[string]string) (Options, error) {
	s := sensor.NewSettings(text)
	o := Options{
		Temperature: s.Int("temperature", 1, 1, 2, 4, 8, 16),
		Pressure:    s.Int("pressure", 1, 1, 2, 4, 8, 16),
		Humidity:    s.Int("humidity", 1, 1, 2, 4, 8, 16),
		Timeout:     s.Duration("timeout", time.Second),
	}
	return o, s.Err()
}

// Addresses returns the addresses the chip can have: SDO low, SDO high (6.2).
func Addresses() []uint16 { return []uint16{0x76, 0x77} }

// Registers (table 18).
const (
	regTrimLow  = 0x88
	regID       = 0xD0
	regReset    = 0xE0
	regTrimHigh = 0xE1
	regCtrlHum  = 0xF2
	regStatus   = 0xF3
	regCtrlMeas = 0xF4
	regConfig   = 0xF5

	// A setting without effect in forced mode, the standby time, is set to other
	// than its reset value: when it has gone, so have the others.
	configMark = 0xA0 // t_sb 1000 ms, filter off, 4-wire SPI (5.4.6)

	idBMP280 = 0x58 // BMP280 data sheet, table 18
	idBME280 = 0x60

	resetWord       = 0xB6 // 5.4.2
	statusUpdating  = 0x01 // im_update: trimming data is being copied (5.4.4)
	statusMeasuring = 0x08
	modeSleep       = 0x00
	modeForced      = 0x01

	skipped20 = 0x80000 // result of a measurement that was skipped (5.4.7, 5.4.8)
	skipped16 = 0x8000  // (5.4.9)
)

// mostPolls bounds how often a status is read again, a millisecond apart. The
// waiting before is the data sheet's maximum, so one is enough for a sound chip.
const mostPolls = 10

// Dev is a chip. It satisfies [sensor.Sensor].
type Dev struct {
	dev      i2c.Dev
	opts     Options
	id       byte
	channels []sensor.Channel

	mu     sync.Mutex
	trim   trim
	ready  bool // set up since the last error
	closed bool
}

// Open finds out whether a BME280 or a BMP280 answers at addr and sets it up.
func Open(ctx context.Context, bus i2c.Bus, addr uint16, o Options) (*Dev, error) {
	d := &Dev{dev: i2c.Dev{Bus: bus, Addr: addr}, opts: o}
	if d.opts.Timeout <= 0 {
		d.opts.Timeout = time.Second
	}
	for _, n := range []*int{&d.opts.Temperature, &d.opts.Pressure, &d.opts.Humidity} {
		if *n == 0 {
			*n = 1
		}
		if setting(*n) == 0 {
			return nil, fmt.Errorf("bme280: oversampling %d: want 1, 2, 4, 8 or 16", *n)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	if err := d.setUp(ctx); err != nil {
		return nil, d.wrap(err)
	}
	d.channels = channels(d.id)
	return d, nil
}

// channels returns the measuring ranges: temperature and pressure of tables 2
// and 3 (operating range, full accuracy is narrower), humidity of table 1.
func channels(id byte) []sensor.Channel {
	cs := []sensor.Channel{
		{Name: "temperature", Unit: "Cel", Min: -40, Max: 85, Resolution: 0.01},
		{Name: "pressure", Unit: "Pa", Min: 30000, Max: 110000, Resolution: 0.18},
	}
	if id == idBME280 {
		cs = append(cs, sensor.Channel{Name: "humidity", Unit: "%", Min: 0, Max: 100, Resolution: 0.008})
	}
	return cs
}

// Channels satisfies [sensor.Sensor]: temperature in Cel, pressure in Pa and, of
// a BME280, relative humidity in %.
func (d *Dev) Channels() []sensor.Channel { return d.channels }

// String names the chip in messages.
func (d *Dev) String() string {
	if d.id == idBMP280 {
		return "bmp280 on " + d.dev.String()
	}
	return "bme280 on " + d.dev.String()
}

func (d *Dev) wrap(err error) error { return fmt.Errorf("%s: %w", d, err) }

// Sense satisfies [sensor.Sensor].
func (d *Dev) Sense(ctx context.Context) []sensor.Value {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return sensor.Failed(len(d.channels), d.wrap(sensor.ErrClosed))
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	vs, err := d.sense(ctx)
	if err != nil {
		vs = sensor.Failed(len(d.channels), d.wrap(err))
	}
	// After any failure the chip may be another one, or one that lost its
	// settings with its supply.
	d.ready = sensor.FirstError(vs) == nil
	return vs
}

func (d *Dev) sense(ctx context.Context) ([]sensor.Value, error) {
	if !d.ready {
		if err := d.setUp(ctx); err != nil {
			return nil, err
		}
	}
	if err := d.dev.Write(ctx, regCtrlMeas, d.ctrlMeas(modeForced)); err != nil {
		return nil, err
	}
	if err := sensor.Wait(ctx, d.opts.Clock, d.measureTime()); err != nil {
		return nil, err
	}
	if err := d.await(ctx, statusMeasuring); err != nil {
		return nil, err
	}
	// All results in one burst, so that they belong to one measurement (4.1), and
	// the settings that made them in the same one.
	var b [12]byte // status, ctrl_meas, config, reserved, results
	n := 10
	if d.id == idBME280 {
		n = 12
	}
	if err := d.dev.Read(ctx, regStatus, b[:n]); err != nil {
		return nil, err
	}
	if b[1]&^3 != d.ctrlMeas(0) || b[2] != configMark {
		return nil, fmt.Errorf("%w: settings have been lost", sensor.ErrImplausible)
	}
	return d.convert([8]byte(b[4:])), nil
}

// convert compensates the content of registers 0xF7 to 0xFE.
func (d *Dev) convert(b [8]byte) []sensor.Value {
	rawP := int32(b[0])<<12 | int32(b[1])<<4 | int32(b[2])>>4
	rawT := int32(b[3])<<12 | int32(b[4])<<4 | int32(b[5])>>4
	rawH := int32(b[6])<<8 | int32(b[7])

	vs := make([]sensor.Value, len(d.channels))
	centi, fine := d.trim.temperature(rawT)
	vs[0] = d.channels[0].Check(float64(centi) / 100)
	if rawT == skipped20 {
		vs[0].Err = notMeasured(d.channels[0])
	}
	if vs[0].Err != nil {
		// The other two are computed from the temperature.
		for i := range vs {
			vs[i].Err = d.wrap(vs[0].Err)
		}
		return vs
	}
	if p, ok := d.trim.pressure(rawP, fine); !ok || rawP == skipped20 {
		vs[1].Err = notMeasured(d.channels[1])
	} else {
		vs[1] = d.channels[1].Check(float64(p) / 256)
	}
	if d.id == idBME280 {
		if rawH == skipped16 {
			vs[2].Err = notMeasured(d.channels[2])
		} else {
			vs[2] = d.channels[2].Check(float64(d.trim.humidity(rawH, fine)) / 1024)
		}
	}
	for i := range vs {
		if vs[i].Err != nil {
			vs[i].Err = d.wrap(vs[i].Err)
		}
	}
	return vs
}

// notMeasured is the error of a result that says that the measurement was
// skipped: the chip has lost its settings.
func notMeasured(c sensor.Channel) error {
	return fmt.Errorf("%s: %w: measurement was skipped", c.Name, sensor.ErrImplausible)
}

// setUp identifies the chip, resets it, and reads its trimming data.
func (d *Dev) setUp(ctx context.Context) error {
	id, err := d.dev.ReadUint8(ctx, regID)
	switch {
	case err != nil:
		return err
	case id != idBME280 && id != idBMP280:
		return fmt.Errorf("%w: id 0x%02x, want 0x%02x (BME280) or 0x%02x (BMP280)", sensor.ErrIdentity, id, idBME280, idBMP280)
	case d.id != 0 && id != d.id:
		return fmt.Errorf("%w: id 0x%02x, it was 0x%02x", sensor.ErrIdentity, id, d.id)
	}
	d.id = id
	if err := d.dev.Write(ctx, regReset, resetWord); err != nil {
		return err
	}
	if err := sensor.Wait(ctx, d.opts.Clock, 2*time.Millisecond); err != nil { // t_startup, table 1
		return err
	}
	if err := d.await(ctx, statusUpdating); err != nil {
		return err
	}
	if err := d.readTrim(ctx); err != nil {
		return err
	}
	if d.id == idBME280 {
		// Takes effect with the next write to ctrl_meas (5.4.3).
		if err := d.dev.Write(ctx, regCtrlHum, setting(d.opts.Humidity)); err != nil {
			return err
		}
	}
	return d.dev.Write(ctx, regConfig, configMark)
}

// readTrim reads the trimming data. Everything is read twice: the bus has no
// checksum, and one wrong bit here would be in every measurement to come.
func (d *Dev) readTrim(ctx context.Context) error {
	var low [26]byte
	var high [7]byte
	if err := d.readTwice(ctx, regTrimLow, low[:]); err != nil {
		return err
	}
	if d.id == idBME280 {
		if err := d.readTwice(ctx, regTrimHigh, high[:]); err != nil {
			return err
		}
	}
	k, err := parseTrim(low, high)
	if err != nil {
		return fmt.Errorf("%w: %w", sensor.ErrImplausible, err)
	}
	d.trim = k
	return nil
}

func (d *Dev) readTwice(ctx context.Context, reg byte, b []byte) error {
	again := make([]byte, len(b))
	if err := d.dev.Read(ctx, reg, b); err != nil {
		return err
	}
	if err := d.dev.Read(ctx, reg, again); err != nil {
		return err
	}
	if !bytes.Equal(b, again) {
		return fmt.Errorf("%w: trimming data differs from one reading to the next", sensor.ErrImplausible)
	}
	return nil
}

// await reads the status until bit is clear, a bounded number of times.
func (d *Dev) await(ctx context.Context, bit byte) error {
	for range mostPolls {
		status, err := d.dev.ReadUint8(ctx, regStatus)
		switch {
		case err != nil:
			return err
		case status&^(statusMeasuring|statusUpdating) == ^byte(statusMeasuring|statusUpdating):
			return fmt.Errorf("%w: status 0x%02x", sensor.ErrImplausible, status)
		case status&bit == 0:
			return nil
		}
		if err := sensor.Wait(ctx, d.opts.Clock, time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w after %v and %d polls", sensor.ErrNotReady, d.measureTime(), mostPolls)
}

// setting returns the register value of an oversampling (tables 20, 23, 24), 0
// if there is none.
func setting(times int) byte {
	switch times {
	case 1:
		return 1
	case 2:
		return 2
	case 4:
		return 3
	case 8:
		return 4
	case 16:
		return 5
	}
	return 0
}

func (d *Dev) ctrlMeas(mode byte) byte {
	return setting(d.opts.Temperature)<<5 | setting(d.opts.Pressure)<<2 | mode
}

// measureTime is the maximum measurement time (appendix B, 9.1).
func (d *Dev) measureTime() time.Duration {
	us := 1250 + 2300*d.opts.Temperature + 2300*d.opts.Pressure + 575
	if d.id == idBME280 {
		us += 2300*d.opts.Humidity + 575
	}
	return time.Duration(us) * time.Microsecond
}

// Close satisfies [sensor.Sensor]. The chip is left in sleep mode.
func (d *Dev) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.Timeout)
	defer cancel()
	if err := d.dev.Write(ctx, regCtrlMeas, d.ctrlMeas(modeSleep)); err != nil && !errors.Is(err, i2c.ErrClosed) {
		return d.wrap(fmt.Errorf("close: %w", err))
	}
	return nil
}

var _ sensor.Sensor = (*Dev)(nil)
