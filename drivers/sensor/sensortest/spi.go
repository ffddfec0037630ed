package sensortest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/sensor"
	"holdfast/drivers/spi"
	"holdfast/drivers/spi/spitest"
)

// An SPIModel is an emulated chip, written from the data sheet.
type SPIModel interface {
	// Transfer answers one full-duplex transfer: it fills r, as long as w.
	Transfer(w, r []byte) error
	// SetTime makes the chip time its conversions with s and begins anew.
	SetTime(s func() time.Duration)
	// PowerCycle interrupts the supply.
	PowerCycle()
}

// An SPIChip is a driver of an SPI chip under test and what to test it on. Its
// fields are as those of [Chip]. A chip that does not answer reads as a line at
// one level, which Open must call implausible.
type SPIChip struct {
	Open            func(ctx context.Context, conn spi.Conn, timeout time.Duration, c clock.Clock) (sensor.Sensor, error)
	New             func() SPIModel
	Want, Tolerance []float64
	Beyond          func(SPIModel)
	Transfers       int
}

// RunSPI runs the suite.
func RunSPI(t *testing.T, c SPIChip) {
	s := &suite{
		want: c.Want, tolerance: c.Tolerance, transfers: c.Transfers,
		missing: sensor.ErrImplausible, closes: true,
		supply: func(b *bench) { b.model.(SPIModel).PowerCycle() },
	}
	s.set = func(t *testing.T) *bench {
		m, clk := c.New(), &Clock{}
		m.SetTime(clk.Elapsed)
		w := &spiWire{model: m}
		w.faulty = spitest.NewFaulty(spitest.Func("spi-test", w.transfer), 1)
		return &bench{t: t, suite: s, model: m, clock: clk, wire: w, start: func(ctx context.Context, timeout time.Duration) (sensor.Sensor, error) {
			return c.Open(ctx, w.faulty, timeout, clk)
		}}
	}
	if c.Beyond != nil {
		s.beyond = func(b *bench) { c.Beyond(b.model.(SPIModel)) }
	}
	s.run(t)
}

type spiWire struct {
	model   SPIModel
	faulty  *spitest.Faulty
	n       int // transfers that came here
	left    int
	done    bool
	all     bool
	removed bool
}

var errSPI = errors.New("transfer failed")

func (w *spiWire) transfer(out, in []byte) error {
	w.n++
	if w.left > 0 {
		if w.left--; w.left == 0 {
			w.done = true
			return fmt.Errorf("this one: %w", errSPI)
		}
	}
	switch {
	case w.all:
		return errSPI
	case w.removed:
		for i := range in {
			in[i] = 0xFF
		}
		return nil
	}
	return w.model.Transfer(out, in)
}

func (w *spiWire) accesses() int {
	n, _ := w.faulty.Counts()
	return n
}

func (w *spiWire) reached() int  { return w.n }
func (w *spiWire) failNth(n int) { w.left, w.done = n, false }
func (w *spiWire) failed() bool  { return w.done }
func (w *spiWire) failAll()      { w.all = true }
func (w *spiWire) lost() error   { return errSPI }
func (w *spiWire) remove()       { w.removed = true }
func (w *spiWire) hang()         { w.faulty.Set(spitest.Fault{Kind: spitest.Hang}) }

func (w *spiWire) clear() {
	w.all = false
	w.faulty.Clear()
}

func (w *spiWire) stick(level byte) bool {
	w.faulty.Set(spitest.Fault{Kind: spitest.Stuck, Byte: level})
	return true
}

func (w *spiWire) noises() []string {
	var kinds []string
	for _, k := range noisesSPI() {
		kinds = append(kinds, k.String())
	}
	return kinds
}

func noisesSPI() []spitest.Kind {
	return []spitest.Kind{spitest.Stuck, spitest.Flip, spitest.Garbage, spitest.Shift}
}

func (w *spiWire) noise(kind string, every int) {
	for _, k := range noisesSPI() {
		if k.String() == kind {
			w.faulty.Set(spitest.Fault{Kind: k, Every: every})
		}
	}
}
