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

	"holdfast/drivers/sensor"
)

// A suite is a driver under test, on whatever way to its chip.
type suite struct {
	// set returns a bench with a healthy chip whose driver has not been opened.
	set             func(t *testing.T) *bench
	want, tolerance []float64
	foreign, beyond func(*bench) // nil if the chip cannot be
	supply          func(*bench) // interrupts it; nil if that is the kernel's to notice
	transfers       int          // most accesses of one Open or Sense
	missing         error        // what Open is without a chip,
	missingMost     int          // after so many accesses
	closes          bool         // Close tells the chip, and whether it heard
}

// patience is the driver's limit where it must not matter.
const patience = time.Minute

func (s *suite) run(t *testing.T) {
	if s.transfers == 0 {
		s.transfers = 64
	}
	t.Run("channels", s.channels)
	t.Run("healthy", s.healthy)
	t.Run("missing", s.gone)
	t.Run("foreign", s.isForeign)
	t.Run("beyond", s.isBeyond)
	t.Run("fails at each transfer", s.failsAtEach)
	t.Run("stuck", s.stuck)
	t.Run("noise", s.noise)
	t.Run("supply", s.supplyLost)
	t.Run("hang", s.hang)
	t.Run("cancelled", s.cancelled)
	t.Run("parallel", s.parallel)
	t.Run("set", s.sets)
	t.Run("close", s.close)
}

// A wire is the way to the chip, which can fail. Faults last until clear.
type wire interface {
	accesses() int // that the driver made
	reached() int  // of them those that came to the chip
	failNth(n int) // counted from now, once, with lost
	failed() bool  // it has
	failAll()      // with lost
	lost() error
	remove()               // the chip
	stick(level byte) bool // every byte reads so; false if that cannot be
	noises() []string      // the ways in which answers go wrong
	noise(kind string, every int)
	hang()
	clear()
}

// bench is a chip behind a wire.
type bench struct {
	t      *testing.T
	suite  *suite
	model  any
	clock  *Clock
	wire   wire
	start  func(ctx context.Context, timeout time.Duration) (sensor.Sensor, error)
	sensor sensor.Sensor
}

func (b *bench) open(timeout time.Duration) error {
	before := b.wire.accesses()
	s, err := b.start(b.t.Context(), timeout)
	b.bounded("Open", before)
	if err == nil {
		b.sensor = s
	}
	return err
}

// opened returns a bench with a driver that works.
func (s *suite) opened(t *testing.T, timeout time.Duration) *bench {
	t.Helper()
	b := s.set(t)
	if err := b.open(timeout); err != nil {
		t.Fatalf("Open on a healthy chip: %v", err)
	}
	return b
}

// sense measures and checks what holds for every answer.
func (b *bench) sense() []sensor.Value {
	b.t.Helper()
	before := b.wire.accesses()
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
	if n := b.wire.accesses() - before; n > b.suite.transfers {
		b.t.Errorf("%s made %d accesses, at most %d expected", what, n, b.suite.transfers)
	}
}

// wrong returns what is wrong with values of a healthy chip, nil if nothing is.
func (b *bench) wrong(vs []sensor.Value) error {
	for i, v := range vs {
		name := b.sensor.Channels()[i].Name
		switch {
		case v.Err != nil:
			return fmt.Errorf("%s: %w", name, v.Err)
		case math.Abs(v.Value-b.suite.want[i]) > b.suite.tolerance[i]:
			return fmt.Errorf("%s = %g, want %g within %g", name, v.Value, b.suite.want[i], b.suite.tolerance[i])
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
		if v.Err == nil && math.Abs(v.Value-b.suite.want[i]) > b.suite.tolerance[i] {
			b.t.Errorf("recovering: %s = %g without an error, want %g", b.sensor.Channels()[i].Name, v.Value, b.suite.want[i])
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

func (s *suite) channels(t *testing.T) {
	b := s.opened(t, patience)
	name := regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	units := map[string]bool{
		"1": true, "Cel": true, "Pa": true, "%": true, "V": true, "A": true, "W": true, "J": true, "Ohm": true, "lx": true,
		"m/s2": true, "/min": true, "Hz": true,
	}
	seen := map[string]bool{}
	cs := b.sensor.Channels()
	if len(cs) == 0 || len(cs) != len(s.want) || len(cs) != len(s.tolerance) {
		t.Fatalf("%d channels, %d wanted values, %d tolerances", len(cs), len(s.want), len(s.tolerance))
	}
	_, setter := b.sensor.(sensor.Setter)
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
		case ch.Digital && (ch.Unit != "1" || ch.Min != 0 || ch.Max != 1):
			t.Errorf("%s: a digital channel in %q from %g to %g", ch.Name, ch.Unit, ch.Min, ch.Max)
		case ch.Writable && !setter:
			t.Errorf("%s is writable and the sensor no Setter", ch.Name)
		}
		seen[ch.Name] = true
	}
}

func (s *suite) healthy(t *testing.T) {
	b := s.opened(t, patience)
	for range 5 {
		if err := b.wrong(b.sense()); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *suite) gone(t *testing.T) {
	b := s.set(t)
	b.wire.remove()
	if err := b.open(patience); !errors.Is(err, s.missing) {
		t.Errorf("Open without a chip = %v, want %v", err, s.missing)
	}
	if n := b.wire.accesses(); s.missingMost > 0 && n > s.missingMost {
		t.Errorf("Open without a chip made %d accesses", n)
	}
}

func (s *suite) isForeign(t *testing.T) {
	if s.foreign == nil {
		t.Skip("the chip has no identity")
	}
	b := s.set(t)
	s.foreign(b)
	if err := b.open(patience); !errors.Is(err, sensor.ErrIdentity) {
		t.Errorf("Open on another chip = %v, want ErrIdentity", err)
	}
}

func (s *suite) isBeyond(t *testing.T) {
	if s.beyond == nil {
		t.Skip("the chip cannot be outside its range")
	}
	b := s.opened(t, patience)
	s.beyond(b)
	b.allFailed(b.sense(), sensor.ErrRange)
}

// failsAtEach lets each single access of opening and measuring fail, in turn,
// until there is none left.
func (s *suite) failsAtEach(t *testing.T) {
	for n := 1; ; n++ {
		b := s.set(t)
		b.wire.failNth(n)
		_, err := b.start(t.Context(), patience)
		if !b.wire.failed() {
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			break
		}
		if !errors.Is(err, b.wire.lost()) {
			t.Errorf("Open with access %d lost = %v, want %v", n, err, b.wire.lost())
		}
		if n > s.transfers {
			t.Fatalf("Open makes more than %d accesses", s.transfers)
		}
	}
	for n := 1; n <= s.transfers; n++ {
		b := s.opened(t, patience)
		b.wire.failNth(n)
		vs := b.sensor.Sense(t.Context())
		if !b.wire.failed() {
			return
		}
		if err := sensor.FirstError(vs); !errors.Is(err, b.wire.lost()) {
			t.Errorf("Sense with access %d lost = %v, want %v", n, err, b.wire.lost())
		}
		b.recovers()
	}
}

// stuck holds the data line at each level, before and after opening.
func (s *suite) stuck(t *testing.T) {
	for _, level := range []byte{0xFF, 0x00} {
		b := s.set(t)
		if !b.wire.stick(level) {
			t.Skip("there is no line that could be stuck")
		}
		if err := b.open(patience); err == nil {
			t.Errorf("Open on a wire that reads 0x%02X succeeded", level)
		}
		b = s.opened(t, patience)
		b.wire.stick(level)
		for range 3 {
			b.allFailed(b.sense(), nil)
		}
		b.wire.clear()
		b.recovers()
	}
}

// noise makes one access in some go wrong, in every way. Chips without a
// checksum cannot notice all of it; they must stay in range and in bounds, and
// be good again afterwards.
func (s *suite) noise(t *testing.T) {
	for _, kind := range s.set(t).wire.noises() {
		t.Run(kind, func(t *testing.T) {
			b := s.opened(t, patience)
			for every := 1; every <= 12; every++ {
				b.wire.noise(kind, every)
				for range 10 {
					b.sense()
				}
				b.wire.clear()
				b.sense() // may still hold a setting that noise made
				b.sense()
				b.recovers()
			}
		})
	}
}

// supplyLost interrupts the chip's supply between measurements.
func (s *suite) supplyLost(t *testing.T) {
	if s.supply == nil {
		t.Skip("that is the kernel's to notice")
	}
	b := s.opened(t, patience)
	for range 3 {
		s.supply(b)
		b.recovers()
	}
}

// hang checks both deadlines: the caller's and the driver's own.
func (s *suite) hang(t *testing.T) {
	b := s.opened(t, patience)
	b.wire.hang()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	b.allFailed(b.sensor.Sense(ctx), context.DeadlineExceeded)
	b.wire.clear()
	// What hung may take a moment to come back.
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && errors.Is(sensor.FirstError(b.sense()), sensor.ErrStuck); {
		time.Sleep(time.Millisecond)
	}
	b.recovers()

	b = s.set(t)
	b.wire.hang()
	if err := b.open(20 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open on a hung wire = %v, want its own deadline", err)
	}
	b.wire.clear()
}

func (s *suite) cancelled(t *testing.T) {
	b := s.opened(t, patience)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := b.wire.reached()
	b.allFailed(b.sensor.Sense(ctx), context.Canceled)
	if n := b.wire.reached() - before; n > 0 {
		t.Errorf("Sense with a cancelled context made %d accesses", n)
	}
	b.recovers()
}

func (s *suite) parallel(t *testing.T) {
	b := s.opened(t, patience)
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

// sets drives every output both ways and checks what cannot be set.
func (s *suite) sets(t *testing.T) {
	b := s.opened(t, patience)
	set, ok := b.sensor.(sensor.Setter)
	if !ok {
		t.Skip("the chip has no outputs")
	}
	for i, c := range set.Channels() {
		if !c.Writable {
			if err := set.Set(t.Context(), c.Name, c.Max); !errors.Is(err, sensor.ErrRefused) {
				t.Errorf("Set of the input %s = %v, want ErrRefused", c.Name, err)
			}
			continue
		}
		for _, v := range []float64{c.Max, c.Min, c.Max, s.want[i]} {
			if err := set.Set(t.Context(), c.Name, v); err != nil {
				t.Errorf("Set %s to %g: %v", c.Name, v, err)
			}
			if got := b.sense()[i]; got.Err != nil || math.Abs(got.Value-v) > max(c.Resolution, s.tolerance[i]) {
				t.Errorf("%s reads %g, %v after it was set to %g", c.Name, got.Value, got.Err, v)
			}
		}
		if err := set.Set(t.Context(), c.Name, c.Max+1); !errors.Is(err, sensor.ErrRefused) {
			t.Errorf("Set %s beyond its range = %v, want ErrRefused", c.Name, err)
		}
		b.wire.failAll()
		if err := set.Set(t.Context(), c.Name, s.want[i]); !errors.Is(err, b.wire.lost()) {
			t.Errorf("Set of a chip that is gone = %v, want %v", err, b.wire.lost())
		}
		b.wire.clear()
		b.recovers()
	}
	if err := set.Set(t.Context(), "no-such-channel", 0); !errors.Is(err, sensor.ErrRefused) {
		t.Errorf("Set of a channel that there is not = %v, want ErrRefused", err)
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
	for _, c := range set.Channels() {
		if err := set.Set(t.Context(), c.Name, c.Min); c.Writable && !errors.Is(err, sensor.ErrClosed) {
			t.Errorf("Set after Close = %v, want ErrClosed", err)
		}
	}
}

func (s *suite) close(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	b := s.opened(t, patience)
	b.sense()
	if err := b.sensor.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := b.sensor.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	before := b.wire.reached()
	b.allFailed(b.sense(), sensor.ErrClosed)
	if n := b.wire.reached() - before; n > 0 {
		t.Errorf("%d accesses after Close", n)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before Open", n, goroutines)
	}
	b = s.opened(t, patience)
	b.wire.failAll()
	err := b.sensor.Close()
	if s.closes && !errors.Is(err, b.wire.lost()) || !s.closes && err != nil {
		t.Errorf("Close of a chip that is gone = %v, want %v", err, b.wire.lost())
	}
	b.allFailed(b.sensor.Sense(t.Context()), sensor.ErrClosed)
}
