package sensortest

import (
	"context"
	"fmt"
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

// A Chip is a driver of an I2C chip under test and what to test it on.
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

// Run runs the suite.
func Run(t *testing.T, c Chip) {
	s := &suite{
		want: c.Want, tolerance: c.Tolerance, transfers: c.Transfers,
		missing: i2c.ErrNACK, missingMost: 2, closes: true,
		supply: func(b *bench) { b.model.(Model).PowerCycle() },
	}
	s.set = func(t *testing.T) *bench {
		m, clk, bus := c.New(), &Clock{}, i2ctest.NewBus("i2c-test")
		m.SetTime(clk.Elapsed)
		bus.Put(c.Addr, m)
		w := &i2cWire{bus: bus, addr: c.Addr}
		w.faulty = i2ctest.NewFaulty(&nthFails{Bus: bus, wire: w}, 1)
		return &bench{t: t, suite: s, model: m, clock: clk, wire: w, start: func(ctx context.Context, timeout time.Duration) (sensor.Sensor, error) {
			return c.Open(ctx, w.faulty, c.Addr, timeout, clk)
		}}
	}
	if c.Foreign != nil {
		s.foreign = func(b *bench) { c.Foreign(b.model.(Model)) }
	}
	if c.Beyond != nil {
		s.beyond = func(b *bench) { c.Beyond(b.model.(Model)) }
	}
	s.run(t)
}

type i2cWire struct {
	bus    *i2ctest.Bus
	faulty *i2ctest.Faulty
	addr   uint16
	left   int // accesses until the one that fails; 0 = none
	done   bool
}

// nthFails is a bus one of whose transactions is not acknowledged.
type nthFails struct {
	i2c.Bus
	wire *i2cWire
}

func (f *nthFails) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	if f.wire.left > 0 {
		if f.wire.left--; f.wire.left == 0 {
			f.wire.done = true
			return fmt.Errorf("this transaction: %w", i2c.ErrNACK)
		}
	}
	return f.Bus.Tx(ctx, addr, w, r)
}

func (w *i2cWire) accesses() int {
	n, _ := w.faulty.Counts()
	return n
}

func (w *i2cWire) reached() int  { return w.bus.Transactions() }
func (w *i2cWire) failNth(n int) { w.left, w.done = n, false }
func (w *i2cWire) failed() bool  { return w.done }
func (w *i2cWire) failAll()      { w.faulty.Set(i2ctest.Fault{Kind: i2ctest.NACK}) }
func (w *i2cWire) lost() error   { return i2c.ErrNACK }
func (w *i2cWire) remove()       { w.bus.Put(w.addr, nil) }
func (w *i2cWire) hang()         { w.faulty.Set(i2ctest.Fault{Kind: i2ctest.Hang}) }
func (w *i2cWire) clear()        { w.faulty.Clear() }

func (w *i2cWire) stick(level byte) bool {
	w.faulty.Set(i2ctest.Fault{Kind: i2ctest.Stuck, Byte: level})
	return true
}

func (w *i2cWire) noises() []string {
	var kinds []string
	for kind := i2ctest.NACK; kind <= i2ctest.Arbitration; kind++ {
		if kind == i2ctest.Hang || kind == i2ctest.Frozen || kind == i2ctest.Slow {
			continue // have tests of their own, or cannot be noticed
		}
		kinds = append(kinds, kind.String())
	}
	return kinds
}

func (w *i2cWire) noise(kind string, every int) {
	k, err := i2ctest.ParseKind(kind)
	if err != nil {
		panic(err) // noises gave it
	}
	w.faulty.Set(i2ctest.Fault{Kind: k, Every: every})
}
