package modbus

import (
	"io"
	"time"
)

// A Port is an open serial line in raw mode: the part of one that RTU needs.
type Port interface {
	io.ReadWriteCloser
	// SetReadDeadline makes reads that have not got a byte by t fail with an
	// error whose Timeout method returns true.
	SetReadDeadline(t time.Time) error
	// Discard throws away what has been received and not read.
	Discard() error
}

// SerialConfig is how a line is set. Characters have eight data bits (SL 2.5.1).
type SerialConfig struct {
	Baud      int
	Parity    Parity
	StopBits  int
	RS485     bool          // let the kernel switch the transmitter by RTS
	RTSBefore time.Duration // RTS raised this long before sending
	RTSAfter  time.Duration // and held this long after
}

// Parity of a character.
type Parity uint8

// The parities. Even is the default that the specification asks for (SL 2.5.1).
const (
	ParityEven Parity = iota
	ParityNone
	ParityOdd
)

var parityNames = []string{"even", "none", "odd"}

// String returns even, none or odd.
func (p Parity) String() string { return parityNames[p%3] }

// character is the time that one character takes: a start bit, eight data bits,
// parity and stop bits.
func (c SerialConfig) character() time.Duration {
	bits := 9 + c.StopBits
	if c.Parity != ParityNone {
		bits++
	}
	return time.Duration(bits) * time.Second / time.Duration(c.Baud)
}

// silence is the pause that ends a frame: 3.5 characters, and 1.75 ms above
// 19200 baud (SL 2.5.1.1).
func (c SerialConfig) silence() time.Duration {
	if c.Baud > 19200 {
		return 1750 * time.Microsecond
	}
	return c.character() * 7 / 2
}
