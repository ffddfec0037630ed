// Package serialtest has serial ports for tests and for the bench.
//
//   - [Pipe] makes two ports in memory, joined by a line that takes no time.
//   - [PTY] is a pseudo-terminal, for programs that open a path.
//   - [Recorder] wraps a port and keeps its traffic; [Playback] gives recorded
//     traffic back and fails when the traffic differs or is left over.
//   - [Faulty] wraps a port and injects faults, seeded.
//   - [Dialer] is an opener that fails as told.
//
// None of it needs the testing package, so that a simulated plant can use it.
package serialtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"holdfast/drivers/serial"
)

// roomPerWay is how many bytes wait in each direction of a pipe. A writer that
// finds no room waits, as with flow control, until its deadline.
const roomPerWay = 4096

// Pipe returns the two ends of a line. Closing one end is a hang-up for the
// other: it reads what is still there, and then ErrGone.
func Pipe() (a, b serial.Port) {
	ab, ba := newWay(), newWay()
	return &end{name: "pipe-a", in: ba, out: ab}, &end{name: "pipe-b", in: ab, out: ba}
}

// way is one direction of a pipe.
type way struct {
	mu      sync.Mutex
	buf     []byte
	gone    bool          // the writer has closed
	refused bool          // the reader has closed
	change  chan struct{} // closed and replaced on each change
}

func newWay() *way { return &way{change: make(chan struct{})} }

// announce wakes everybody who waits. w.mu is held.
func (w *way) announce() {
	close(w.change)
	w.change = make(chan struct{})
}

// end is one port of a pipe.
type end struct {
	name    string
	in, out *way

	mu          sync.Mutex
	closed      bool
	read, write time.Time // deadlines
}

func (e *end) String() string { return e.name }

// state returns what a waiting call needs to know. It is called with the way's
// lock held: whoever changes the state announces it on the way afterwards, so
// that either the state or the announcement is seen.
func (e *end) state(deadline *time.Time) (closed bool, t time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed, *deadline
}

func (e *end) Read(b []byte) (int, error) {
	for {
		w := e.in
		w.mu.Lock()
		closed, deadline := e.state(&e.read)
		switch {
		case closed:
			w.mu.Unlock()
			return 0, e.fault("read", os.ErrClosed)
		case len(b) == 0:
			w.mu.Unlock()
			return 0, nil
		case len(w.buf) > 0:
			n := copy(b, w.buf)
			w.buf = w.buf[n:]
			w.announce()
			w.mu.Unlock()
			return n, nil
		case w.gone:
			w.mu.Unlock()
			return 0, e.fault("read", serial.ErrGone)
		}
		change := w.change
		w.mu.Unlock()
		if err := wait(change, deadline); err != nil {
			return 0, e.fault("read", err)
		}
	}
}

func (e *end) Write(b []byte) (int, error) {
	total := 0
	for {
		w := e.out
		w.mu.Lock()
		closed, deadline := e.state(&e.write)
		switch {
		case closed:
			w.mu.Unlock()
			return total, e.fault("write", os.ErrClosed)
		case w.refused:
			w.mu.Unlock()
			return total, e.fault("write", serial.ErrGone)
		}
		if n := min(len(b), roomPerWay-len(w.buf)); n > 0 {
			w.buf = append(w.buf, b[:n]...)
			b, total = b[n:], total+n
			w.announce()
		}
		change := w.change
		w.mu.Unlock()
		if len(b) == 0 {
			return total, nil
		}
		if err := wait(change, deadline); err != nil {
			return total, e.fault("write", err)
		}
	}
}

// wait waits for a change until the deadline.
func wait(change <-chan struct{}, deadline time.Time) error {
	if deadline.IsZero() {
		<-change
		return nil
	}
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case <-change:
		return nil
	case <-t.C:
		return os.ErrDeadlineExceeded
	}
}

func (e *end) SetReadDeadline(t time.Time) error  { return e.setDeadline(&e.read, e.in, t) }
func (e *end) SetWriteDeadline(t time.Time) error { return e.setDeadline(&e.write, e.out, t) }

func (e *end) setDeadline(field *time.Time, w *way, t time.Time) error {
	e.mu.Lock()
	*field = t
	closed := e.closed
	e.mu.Unlock()
	if closed {
		return e.fault("deadline", os.ErrClosed)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.announce() // those who wait look at the deadline anew
	return nil
}

func (e *end) Discard() error {
	if closed, _ := e.state(&e.read); closed {
		return e.fault("discard input", os.ErrClosed)
	}
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	gone := e.in.gone && len(e.in.buf) == 0
	e.in.buf = nil
	e.in.announce()
	if gone {
		return e.fault("discard input", serial.ErrGone)
	}
	return nil
}

// WaitSent returns at once: what has been written is at the far end.
func (e *end) WaitSent(ctx context.Context) error {
	if closed, _ := e.state(&e.write); closed {
		return e.fault("wait until sent", os.ErrClosed)
	}
	return ctx.Err()
}

func (e *end) Close() error {
	e.mu.Lock()
	was := e.closed
	e.closed = true
	e.mu.Unlock()
	if was {
		return e.fault("close", os.ErrClosed)
	}
	e.out.mu.Lock()
	e.out.gone = true
	e.out.announce()
	e.out.mu.Unlock()
	e.in.mu.Lock()
	e.in.refused = true
	e.in.announce()
	e.in.mu.Unlock()
	return nil
}

func (e *end) fault(action string, err error) error {
	return fmt.Errorf("serial port %q: %s: %w", e.name, action, err)
}

// Dialer is an opener whose ports come from a function, and which fails while
// told to. It may be used from many goroutines.
type Dialer struct {
	name string
	dial func() (serial.Port, error)

	mu    sync.Mutex
	err   error
	opens int
}

// NewDialer returns an opener that calls dial for each port.
func NewDialer(name string, dial func() (serial.Port, error)) *Dialer {
	return &Dialer{name: name, dial: dial}
}

// Fail makes Open return err from now on, or succeed again if it is nil.
func (d *Dialer) Fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// Opens returns how often Open has been called.
func (d *Dialer) Opens() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opens
}

// String returns the name given to NewDialer.
func (d *Dialer) String() string { return d.name }

// Open satisfies [serial.Opener].
func (d *Dialer) Open(ctx context.Context) (serial.Port, error) {
	d.mu.Lock()
	d.opens++
	err := d.err
	d.mu.Unlock()
	if err = errors.Join(ctx.Err(), err); err != nil {
		return nil, fmt.Errorf("open serial port %q: %w", d.name, err)
	}
	return d.dial()
}

var (
	_ serial.Port   = (*end)(nil)
	_ serial.Opener = (*Dialer)(nil)
)
