// Package sensortest is the conformance suite of chip drivers: what every one
// must do on a healthy chip, on a broken one, and on a broken bus.
package sensortest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2ctest"
	"holdfast/drivers/sensor"
)

// A Model is an emulated chip, written from the data sheet.
type Model interface {
	i2ctest.Chip
	// SetTime makes the chip time its conversions with s and begins anew.
	SetTime(s i2ctest.Stopwatch)
	// PowerCycle interrupts the supply.
	PowerCycle()
}

// A Chip is a driver under test and what to test it on.
type Chip struct {
	// Open opens the driver. timeout is its limit for one Sense.
	Open func(ctx context.Context, bus i2c.Bus, addr uint16, timeout time.Duration, c clock.Clock) (sensor.Sensor, error)
	// Addr is the chip's address.
	Addr uint16
	// New returns a healthy chip that measures Want.
	New func() Model
	// Want has a value for each channel, which a Sense must hit within the same
	// place of Tolerance.
	Want, Tolerance []float64
	// Foreign turns the model into another chip. Nil if the chip has no identity.
	Foreign func(Model)
	// Beyond puts every channel outside its measuring range. Nil if the chip
	// cannot be.
	Beyond func(Model)
	// Transfers bounds the transactions of one Open or Sense. 0 means 64.
	Transfers int
}

// patience is the driver's limit where it must not matter.
const patience = time.Minute

// Run runs the suite.
func Run(t *testing.T, c Chip) {
	if c.Transfers == 0 {
		c.Transfers = 64
	}
	t.Run("channels", c.channels)
	t.Run("healthy", c.healthy)
	t.Run("missing", c.missing)
	t.Run("foreign", c.foreign)
	t.Run("beyond", c.beyond)
	t.Run("fails at each transfer", c.failsAtEach)
	t.Run("stuck", c.stuck)
	t.Run("noise", c.noise)
	t.Run("supply", c.supply)
	t.Run("hang", c.hang)
	t.Run("cancelled", c.cancelled)
	t.Run("parallel", c.parallel)
	t.Run("close", c.close)
}

// bench is a chip on a bus that can fail.
type bench struct {
	t      *testing.T
	chip   Chip
	model  Model
	clock  *Clock
	bus    *i2ctest.Bus
	faulty *i2ctest.Faulty
	sensor sensor.Sensor
}

// set returns a bench whose driver has not been opened.
func (c Chip) set(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, chip: c, model: c.New(), clock: &Clock{}, bus: i2ctest.NewBus("i2c-test")}
	b.model.SetTime(b.clock.Elapsed)
	b.bus.Put(c.Addr, b.model)
	b.faulty = i2ctest.NewFaulty(b.bus, 1)
	return b
}

func (b *bench) open(timeout time.Duration) error {
	before, _ := b.faulty.Counts()
	s, err := b.chip.Open(b.t.Context(), b.faulty, b.chip.Addr, timeout, b.clock)
	b.bounded("Open", before)
	if err == nil {
		b.sensor = s
	}
	return err
}

// opened returns a bench with a driver that works.
func (c Chip) opened(t *testing.T, timeout time.Duration) *bench {
	t.Helper()
	b := c.set(t)
	if err := b.open(timeout); err != nil {
		t.Fatalf("Open on a healthy chip: %v", err)
	}
	return b
}

// sense measures and checks what holds for every answer.
func (b *bench) sense() []sensor.Value {
	b.t.Helper()
	before, _ := b.faulty.Counts()
	vs := b.sensor.Sense(b.t.Context())
	b.bounded("Sense", before)
	cs := b.sensor.Channels()
	if len(vs) != len(cs) {
		b.t.Fatalf("Sense returned %d values for %d channels", len(vs), len(cs))
	}
	for i, v := range vs {
		if v.Err == nil && (math.IsNaN(v.Value) || v.Value < cs[i].Min || v.Value > cs[i].Max) {
			b.t.Errorf("%s = %g without an error, range %g to %g", cs[i].Name, v.Value, cs[i].Min, cs[i].Max)
		}
	}
	return vs
}

func (b *bench) bounded(what string, before int) {
	b.t.Helper()
	if after, _ := b.faulty.Counts(); after-before > b.chip.Transfers {
		b.t.Errorf("%s made %d transactions, at most %d expected", what, after-before, b.chip.Transfers)
	}
}

// wrong returns what is wrong with values of a healthy chip, nil if nothing is.
func (b *bench) wrong(vs []sensor.Value) error {
	for i, v := range vs {
		name := b.sensor.Channels()[i].Name
		switch {
		case v.Err != nil:
			return fmt.Errorf("%s: %w", name, v.Err)
		case math.Abs(v.Value-b.chip.Want[i]) > b.chip.Tolerance[i]:
			return fmt.Errorf("%s = %g, want %g within %g", name, v.Value, b.chip.Want[i], b.chip.Tolerance[i])
		}
	}
	return nil
}

// recovers checks that the driver is good again within two measurements, and
// that it says nothing wrong before.
func (b *bench) recovers() {
	b.t.Helper()
	vs := b.sense()
	if b.wrong(vs) == nil {
		return
	}
	for i, v := range vs {
		if v.Err == nil && math.Abs(v.Value-b.chip.Want[i]) > b.chip.Tolerance[i] {
			b.t.Errorf("recovering: %s = %g without an error, want %g", b.sensor.Channels()[i].Name, v.Value, b.chip.Want[i])
		}
	}
	if err := b.wrong(b.sense()); err != nil {
		b.t.Errorf("second Sense after the fault: %v", err)
	}
}

// allFailed checks that every channel has an error that is want.
func (b *bench) allFailed(vs []sensor.Value, want error) {
	b.t.Helper()
	for i, v := range vs {
		if v.Err == nil || want != nil && !errors.Is(v.Err, want) {
			b.t.Errorf("%s = %g, %v; want an error that is %v", b.sensor.Channels()[i].Name, v.Value, v.Err, want)
		}
	}
}

func (c Chip) channels(t *testing.T) {
	b := c.opened(t, patience)
	name := regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	units := map[string]bool{"Cel": true, "Pa": true, "%": true, "V": true, "A": true, "W": true, "lx": true, "m/s2": true}
	seen := map[string]bool{}
	cs := b.sensor.Channels()
	if len(cs) == 0 || len(cs) != len(c.Want) || len(cs) != len(c.Tolerance) {
		t.Fatalf("%d channels, %d wanted values, %d tolerances", len(cs), len(c.Want), len(c.Tolerance))
	}
	for _, ch := range cs {
		switch {
		case !name.MatchString(ch.Name) || seen[ch.Name]:
			t.Errorf("channel name %q is not good or not unique", ch.Name)
		case !units[ch.Unit]:
			t.Errorf("%s: unit %q is not a known UCUM code", ch.Name, ch.Unit)
		case !(ch.Min < ch.Max) || math.IsInf(ch.Min, 0) || math.IsInf(ch.Max, 0):
			t.Errorf("%s: range %g to %g", ch.Name, ch.Min, ch.Max)
		case !(ch.Resolution > 0):
			t.Errorf("%s: resolution %g", ch.Name, ch.Resolution)
		}
		seen[ch.Name] = true
	}
}

func (c Chip) healthy(t *testing.T) {
	b := c.opened(t, patience)
	for range 5 {
		if err := b.wrong(b.sense()); err != nil {
			t.Fatal(err)
		}
	}
}

func (c Chip) missing(t *testing.T) {
	b := c.set(t)
	b.bus.Put(c.Addr, nil)
	if err := b.open(patience); !errors.Is(err, i2c.ErrNACK) {
		t.Errorf("Open without a chip = %v, want ErrNACK", err)
	}
	if n := b.bus.Transactions(); n > 2 {
		t.Errorf("Open without a chip made %d transactions", n)
	}
}

func (c Chip) foreign(t *testing.T) {
	if c.Foreign == nil {
		t.Skip("the chip has no identity")
	}
	b := c.set(t)
	c.Foreign(b.model)
	if err := b.open(patience); !errors.Is(err, sensor.ErrIdentity) {
		t.Errorf("Open on another chip = %v, want ErrIdentity", err)
	}
}

func (c Chip) beyond(t *testing.T) {
	if c.Beyond == nil {
		t.Skip("the chip cannot be outside its range")
	}
	b := c.opened(t, patience)
	c.Beyond(b.model)
	b.allFailed(b.sense(), sensor.ErrRange)
}

// failsAtEach lets each single transaction of opening and measuring fail, in
// turn, until there is none left.
func (c Chip) failsAtEach(t *testing.T) {
	for n := 1; ; n++ {
		b := c.set(t)
		nth := &nthFails{Bus: b.bus, n: n}
		s, err := c.Open(t.Context(), nth, c.Addr, patience, b.clock)
		if !nth.failed {
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			b.sensor = s
			break
		}
		if !errors.Is(err, i2c.ErrNACK) {
			t.Errorf("Open with transaction %d not acknowledged = %v, want ErrNACK", n, err)
		}
		if n > c.Transfers {
			t.Fatalf("Open makes more than %d transactions", c.Transfers)
		}
	}
	for n := 1; n <= c.Transfers; n++ {
		b := c.set(t)
		nth := &nthFails{Bus: b.bus, n: math.MaxInt}
		s, err := c.Open(t.Context(), nth, c.Addr, patience, b.clock)
		if err != nil {
			t.Fatal(err)
		}
		b.sensor = s
		nth.n = nth.count + n
		vs := s.Sense(t.Context())
		if !nth.failed {
			return
		}
		if err := sensor.FirstError(vs); !errors.Is(err, i2c.ErrNACK) {
			t.Errorf("Sense with transaction %d not acknowledged = %v, want ErrNACK", n, err)
		}
		b.recovers()
	}
}

// nthFails is a bus whose nth transaction is not acknowledged.
type nthFails struct {
	i2c.Bus
	n, count int
	failed   bool
}

func (f *nthFails) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	f.count++
	if f.count == f.n {
		f.failed = true
		return fmt.Errorf("transaction %d: %w", f.n, i2c.ErrNACK)
	}
	return f.Bus.Tx(ctx, addr, w, r)
}

// stuck holds the data line at each level, before and after opening.
func (c Chip) stuck(t *testing.T) {
	for _, level := range []byte{0xFF, 0x00} {
		fault := i2ctest.Fault{Kind: i2ctest.Stuck, Byte: level}
		b := c.set(t)
		b.faulty.Set(fault)
		if err := b.open(patience); err == nil {
			t.Errorf("Open on a bus that reads 0x%02X succeeded", level)
		}
		b = c.opened(t, patience)
		b.faulty.Set(fault)
		for range 3 {
			b.allFailed(b.sense(), nil)
		}
		b.faulty.Clear()
		b.recovers()
	}
}

// noise makes one transaction in some go wrong, in every way. Chips without a
// checksum cannot notice all of it; they must stay in range and in bounds, and
// be good again afterwards.
func (c Chip) noise(t *testing.T) {
	for kind := i2ctest.NACK; kind <= i2ctest.Arbitration; kind++ {
		if kind == i2ctest.Hang || kind == i2ctest.Frozen || kind == i2ctest.Slow {
			continue // have tests of their own, or cannot be noticed
		}
		t.Run(kind.String(), func(t *testing.T) {
			b := c.opened(t, patience)
			for every := 1; every <= 12; every++ {
				b.faulty.Set(i2ctest.Fault{Kind: kind, Every: every})
				for range 10 {
					b.sense()
				}
				b.faulty.Clear()
				b.sense() // may still hold a setting that noise made
				b.sense()
				b.recovers()
			}
		})
	}
}

// supply interrupts the chip's supply between measurements.
func (c Chip) supply(t *testing.T) {
	b := c.opened(t, patience)
	for range 3 {
		b.model.PowerCycle()
		b.recovers()
	}
}

// hang checks both deadlines: the caller's and the driver's own.
func (c Chip) hang(t *testing.T) {
	b := c.opened(t, patience)
	b.faulty.Set(i2ctest.Fault{Kind: i2ctest.Hang})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	b.allFailed(b.sensor.Sense(ctx), context.DeadlineExceeded)
	b.faulty.Clear()
	b.recovers()

	b = c.set(t)
	b.faulty.Set(i2ctest.Fault{Kind: i2ctest.Hang})
	if err := b.open(20 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open on a hung bus = %v, want its own deadline", err)
	}
}

func (c Chip) cancelled(t *testing.T) {
	b := c.opened(t, patience)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := b.bus.Transactions()
	b.allFailed(b.sensor.Sense(ctx), context.Canceled)
	if n := b.bus.Transactions() - before; n > 0 {
		t.Errorf("Sense with a cancelled context made %d transactions", n)
	}
	b.recovers()
}

func (c Chip) parallel(t *testing.T) {
	b := c.opened(t, patience)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if err := b.wrong(b.sensor.Sense(t.Context())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func (c Chip) close(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	b := c.opened(t, patience)
	b.sense()
	if err := b.sensor.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := b.sensor.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	before := b.bus.Transactions()
	b.allFailed(b.sense(), sensor.ErrClosed)
	if n := b.bus.Transactions() - before; n > 0 {
		t.Errorf("%d transactions after Close", n)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before Open", n, goroutines)
	}
	b = c.opened(t, patience)
	b.faulty.Set(i2ctest.Fault{Kind: i2ctest.NACK})
	if err := b.sensor.Close(); !errors.Is(err, i2c.ErrNACK) {
		t.Errorf("Close of a chip that is gone = %v, want ErrNACK", err)
	}
	b.allFailed(b.sensor.Sense(t.Context()), sensor.ErrClosed)
}
