// Package sensor is the contract between chip drivers and those who want
// measurements.
//
// A chip driver is a folder below this one, and a line in package all. It meets
// [Sensor], and package sensortest proves it.
package sensor

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// A Sensor measures the quantities of one chip. Its methods may be called from
// many goroutines.
type Sensor interface {
	// Channels returns what the chip measures. The answer is the same for the
	// life of the sensor; the caller must not change it.
	Channels() []Channel

	// Sense measures every channel once and returns one value for each, in the
	// order of Channels, the ones that failed with their reason. It returns when
	// ctx ends, and before that when the driver's own limit is over.
	//
	// A chip that lost its supply, or was exchanged for one of the same kind, is
	// set up anew: the first or second Sense after it came back is good.
	Sense(ctx context.Context) []Value

	// Close puts the chip into its state of least consumption. An error means
	// that the chip did not hear; the sensor is closed all the same, and every
	// later Sense fails with ErrClosed. The bus stays open: it belongs to others.
	Close() error
}

// A Setter is a Sensor with outputs.
type Setter interface {
	Sensor

	// Set puts an output, a channel that is Writable, to a value of its range.
	// When it returns nil the value is at the pin. An error that wraps ErrRefused
	// means that nothing was sent; after any other the chip may have acted.
	Set(ctx context.Context, channel string, value float64) error
}

// A Channel is one quantity that a chip measures.
type Channel struct {
	// Name tells the channels of a chip apart: lower-case letters, digits,
	// hyphens, such as "temperature" or "a0-a1".
	Name string
	// Unit is the UCUM code (unitsofmeasure.org): Cel, Pa, %, V.
	Unit string
	// Min and Max bound what the chip can measure, as its data sheet says, in
	// Unit. A result outside is an error.
	Min, Max float64
	// Resolution is the step between two results, in Unit.
	Resolution float64
	// Digital says that the values are 0 and 1, which mean off and on. Unit is "1".
	Digital bool
	// Writable says that the sensor is a [Setter] for this channel.
	Writable bool
}

// A Value is the result of one channel.
type Value struct {
	Value float64 // in the channel's unit; meaningless if Err is not nil
	Err   error
}

// Errors that callers tell apart with errors.Is. Errors of the bus come through
// wrapped (i2c.ErrNACK and its siblings).
var (
	// ErrIdentity: another chip answers at the address.
	ErrIdentity = errors.New("unexpected chip")
	// ErrImplausible: the chip's answers contradict each other or the data sheet,
	// as those of a stuck bus do.
	ErrImplausible = errors.New("implausible answer")
	// ErrNotReady: the chip did not finish in the time its data sheet gives it.
	ErrNotReady = errors.New("measurement not ready")
	// ErrRange: the result lies outside what the chip can measure.
	ErrRange = errors.New("outside the measuring range")
	// ErrFault: the chip reports that what is connected to it is broken.
	ErrFault = errors.New("fault at the chip's input")
	// ErrStuck: an earlier access has not come back yet; nothing was asked.
	ErrStuck = errors.New("earlier access stuck")
	// ErrRefused: the channel or the value cannot be set.
	ErrRefused = errors.New("cannot be set")
	// ErrClosed: the sensor has been closed.
	ErrClosed = errors.New("sensor closed")
)

// Check makes the value of a channel from a result: an error that wraps ErrRange
// if it is not within Min and Max.
func (c Channel) Check(v float64) Value {
	if math.IsNaN(v) || v < c.Min || v > c.Max {
		return Value{Value: v, Err: fmt.Errorf("%s %.6g %s: %w %g to %g", c.Name, v, c.Unit, ErrRange, c.Min, c.Max)}
	}
	return Value{Value: v}
}

// Failed returns n values that failed for the same reason.
func Failed(n int, err error) []Value {
	vs := make([]Value, n)
	for i := range vs {
		vs[i].Err = err
	}
	return vs
}

// FirstError returns the error of the first value that has one.
func FirstError(vs []Value) error {
	for _, v := range vs {
		if v.Err != nil {
			return v.Err
		}
	}
	return nil
}
