// Package spi is the contract between chip drivers and SPI.
//
// It exists beside periph.io's interface of the same purpose because that one
// has no context, so a hung controller hangs its reader.
//
//   - Package spidev is the implementation on Linux's /dev/spidevB.C.
//   - Package spiperiph lets periph.io's chip drivers run on a connection of ours.
//   - Package spitest has fakes: recorder, playback, faults.
package spi

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// A Conn is the connection to one chip: a controller, a chip select and the
// chip's settings. All methods may be called from many goroutines; a transfer is
// never interleaved with another one.
type Conn interface {
	// Tx selects the chip, transfers, and releases it.
	//
	// Full duplex: w and r have the same length, or one is empty; without w zeros
	// are sent. Half duplex: w is sent and then r received. Both empty is an
	// error.
	//
	// SPI has no acknowledgement: nil means that the controller clocked all bits,
	// not that a chip was there. On an error r holds nothing that may be used. Tx
	// returns when ctx ends, whatever the hardware does, and before that when the
	// implementation's own limit for one transfer is over.
	Tx(ctx context.Context, w, r []byte) error

	// String names the connection in messages, such as "/dev/spidev0.1".
	String() string
}

// A ConnCloser is a connection in the hands of whoever opened it.
type ConnCloser interface {
	Conn
	io.Closer
}

// Config says how to talk to a chip. The zero value means mode 0, 8 bits, 1 MHz.
type Config struct {
	// Hertz is the highest clock rate, 1 to 1,000,000,000; 0 means 1,000,000. The
	// controller takes the nearest rate below that it can make.
	Hertz int
	// Mode is 0 to 3: bit 1 is the idle level of the clock (CPOL), bit 0 says that
	// data is taken at the second edge (CPHA).
	Mode int
	// Bits in a word, 1 to 32; 0 means 8.
	Bits int
	// LSBFirst sends the lowest bit of a word first.
	LSBFirst bool
	// HalfDuplex uses one line for both directions.
	HalfDuplex bool
	// NoSelect leaves the chip select alone.
	NoSelect bool
}

// WithDefaults returns the configuration with its zero fields filled in.
func (c Config) WithDefaults() Config {
	if c.Hertz == 0 {
		c.Hertz = 1_000_000
	}
	if c.Bits == 0 {
		c.Bits = 8
	}
	return c
}

// Check returns an error that names the first field that is out of range.
func (c Config) Check() error {
	c = c.WithDefaults()
	switch {
	case c.Hertz < 1 || c.Hertz > 1_000_000_000:
		return fmt.Errorf("spi clock %d Hz: want 1 to 1000000000", c.Hertz)
	case c.Mode < 0 || c.Mode > 3:
		return fmt.Errorf("spi mode %d: want 0 to 3", c.Mode)
	case c.Bits < 1 || c.Bits > 32:
		return fmt.Errorf("spi word of %d bits: want 1 to 32", c.Bits)
	}
	return nil
}

// CheckTx reports whether a transfer makes sense. largest is the controller's
// limit in bytes, 0 if it has none.
func CheckTx(c Config, largest int, w, r []byte) error {
	longest := max(len(w), len(r))
	if c.HalfDuplex {
		longest = len(w) + len(r)
	}
	switch {
	case longest == 0:
		return errors.New("empty transfer")
	case !c.HalfDuplex && len(w) > 0 && len(r) > 0 && len(w) != len(r):
		return fmt.Errorf("%d bytes to send and %d to receive at once: want as many", len(w), len(r))
	case largest > 0 && longest > largest:
		return fmt.Errorf("transfer of %d bytes: at most %d", longest, largest)
	}
	return nil
}

// Errors that callers tell apart with errors.Is.
var (
	// ErrTimeout: the transfer did not end in time.
	ErrTimeout = errors.New("timed out")
	// ErrStuck: an earlier transfer has not come back yet; nothing was sent.
	ErrStuck = errors.New("spi stuck")
	// ErrClosed: the connection has been closed by its owner.
	ErrClosed = errors.New("spi closed")
)
