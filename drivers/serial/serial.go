// Package serial is the contract between protocols and serial ports.
//
//   - Package tty is the implementation on Linux terminals, RS-485 included.
//   - Package serialtest has fakes: a pair of ports in memory, recorder,
//     playback, faults, and pseudo-terminals.
package serial

import (
	"context"
	"errors"
	"io"
	"time"
)

// A Port is an open serial port. Read and Write may be called from two
// goroutines, and Close from a third.
//
// It has more than three methods because it is a net.Conn without addresses and
// with a line: a protocol that runs over both needs the same deadlines.
type Port interface {
	// Read waits for at least one byte. It returns an error that wraps
	// os.ErrDeadlineExceeded when the deadline has passed, and one that wraps
	// ErrGone when the adapter has been unplugged or the far side has hung up.
	// io.EOF is not used.
	io.Reader
	// Write returns when the driver has taken all bytes, which is before they
	// are on the line; see WaitSent. Errors are those of Read.
	io.Writer
	// Close releases the port and makes waiting calls fail with an error that
	// wraps os.ErrClosed.
	io.Closer

	// SetReadDeadline and SetWriteDeadline bound present and later calls. The
	// zero time means no limit.
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error

	// Discard throws away what has been received and not been read. What is on
	// the line at this moment may still arrive after it.
	Discard() error

	// WaitSent waits until the last bit has left the machine, or until ctx ends.
	WaitSent(ctx context.Context) error

	// String names the port in messages, such as "/dev/ttyUSB0".
	String() string
}

// An Opener opens a port, over and over: after ErrGone the owner closes the port
// and opens it again when it pleases, since an adapter that is plugged in again
// is another file.
type Opener interface {
	// Open opens the port. ctx bounds the opening only.
	Open(ctx context.Context) (Port, error)
	// String names the port in messages.
	String() string
}

// Errors that callers tell apart with errors.Is.
var (
	// ErrGone: the adapter has been unplugged, or the far side has hung up. Only
	// opening the port anew helps.
	ErrGone = errors.New("serial port gone")
	// ErrBusy: another program has the port.
	ErrBusy = errors.New("serial port in use")
)
