// Package i2c is the contract between chip drivers and I2C buses.
//
// It exists beside periph.io's interface of the same purpose because that one
// has no context, so a hung bus hangs its reader, and no way to tell a chip that
// did not answer from one that did. Package i2cperiph adapts in both directions.
//
//   - Package i2cdev is the implementation on Linux's /dev/i2c-N.
//   - Package i2cperiph is the implementation on any bus that periph.io knows,
//     and lets periph.io's chip drivers run on a bus of ours.
//   - Package i2ctest has fakes: recorder, playback, faults, emulated chips.
package i2c

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// A Bus carries transactions to the chips on it. All methods may be called from
// many goroutines; a transaction is never interleaved with another one.
type Bus interface {
	// Tx writes w to the chip at addr and then reads len(r) bytes into r, with a
	// repeated start between the two (UM10204 Rev. 7.0, 3.1.10). Either may be
	// empty; both empty is an error.
	//
	// It returns nil only if every byte was acknowledged and r is filled to its
	// end. On an error r holds nothing that may be used. It returns when ctx
	// ends, whatever the hardware does, and before that when the implementation's
	// own limit for one transaction is over.
	//
	// addr is the chip's 7-bit address, 0x08 to 0x77 (UM10204 3.1.12 reserves the
	// others).
	Tx(ctx context.Context, addr uint16, w, r []byte) error

	// String names the bus in messages, such as "/dev/i2c-1".
	String() string
}

// A BusCloser is a bus in the hands of whoever opened it. Chip drivers get a
// Bus: they share it with others and must not be able to close it.
type BusCloser interface {
	Bus
	io.Closer
}

// Errors that callers tell apart with errors.Is.
var (
	// ErrNACK: no chip acknowledged the address, or one stopped acknowledging.
	ErrNACK = errors.New("not acknowledged")
	// ErrTimeout: the transaction did not end in time.
	ErrTimeout = errors.New("timed out")
	// ErrStuck: an earlier transaction has not come back yet; nothing was sent.
	ErrStuck = errors.New("bus stuck")
	// ErrArbitration: another controller took the bus. Trying again helps.
	ErrArbitration = errors.New("arbitration lost")
	// ErrGone: the adapter has been removed. Only opening it anew helps.
	ErrGone = errors.New("adapter gone")
	// ErrClosed: the bus has been closed by its owner.
	ErrClosed = errors.New("bus closed")
)

// CheckTx reports whether a transaction may be put on a bus: a usable address,
// something to do, and messages no longer than Linux takes (8192 bytes,
// drivers/i2c/i2c-dev.c).
func CheckTx(addr uint16, w, r []byte) error {
	const longest = 8192
	switch {
	case addr < 0x08 || addr > 0x77:
		return fmt.Errorf("address 0x%02x: outside 0x08 to 0x77", addr)
	case len(w) == 0 && len(r) == 0:
		return fmt.Errorf("address 0x%02x: empty transaction", addr)
	case len(w) > longest || len(r) > longest:
		return fmt.Errorf("address 0x%02x: message longer than %d bytes", addr, longest)
	}
	return nil
}

// A Dev is one chip on a bus.
type Dev struct {
	Bus  Bus
	Addr uint16
}

// String names the chip in messages, such as "/dev/i2c-1 0x76".
func (d Dev) String() string { return fmt.Sprintf("%s 0x%02x", d.Bus, d.Addr) }

// Tx is Bus.Tx with the chip's address.
func (d Dev) Tx(ctx context.Context, w, r []byte) error {
	return d.Bus.Tx(ctx, d.Addr, w, r)
}

// Read fills r from consecutive registers, the first of which is reg. An error
// names the register.
func (d Dev) Read(ctx context.Context, reg byte, r []byte) error {
	if err := d.Bus.Tx(ctx, d.Addr, []byte{reg}, r); err != nil {
		return fmt.Errorf("read register 0x%02x: %w", reg, err)
	}
	return nil
}

// ReadUint8 returns the content of an 8-bit register.
func (d Dev) ReadUint8(ctx context.Context, reg byte) (byte, error) {
	var r [1]byte
	err := d.Read(ctx, reg, r[:])
	return r[0], err
}

// ReadUint16 returns the content of a 16-bit register that is sent high byte
// first.
func (d Dev) ReadUint16(ctx context.Context, reg byte) (uint16, error) {
	var r [2]byte
	err := d.Read(ctx, reg, r[:])
	return uint16(r[0])<<8 | uint16(r[1]), err
}

// Write writes bytes to a register. An error names the register.
func (d Dev) Write(ctx context.Context, reg byte, b ...byte) error {
	if err := d.Bus.Tx(ctx, d.Addr, append([]byte{reg}, b...), nil); err != nil {
		return fmt.Errorf("write register 0x%02x: %w", reg, err)
	}
	return nil
}

// WriteUint16 writes a 16-bit register, high byte first.
func (d Dev) WriteUint16(ctx context.Context, reg byte, v uint16) error {
	return d.Write(ctx, reg, byte(v>>8), byte(v))
}
