// Package tty is the serial port of Linux: a terminal device in raw mode.
//
// It adds to the usual packages what a field bus needs: deadlines, exclusive use,
// any baud rate, RS-485 direction by the kernel, what was on the line before
// thrown away at opening, settings that the driver ignored reported as errors, and an
// error of its own for an adapter that has been unplugged, after which the port
// can be opened again.
package tty

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/drivers/internal/lane"
	"holdfast/drivers/serial"
)

// A Device is a serial port that can be opened. It satisfies [serial.Opener].
type Device struct {
	// Path is the device file. USB adapters change their number when they are
	// plugged in again: use their link in /dev/serial/by-id.
	Path   string
	Config serial.Config
}

// String returns the path.
func (d Device) String() string { return d.Path }

// Open opens the port for exclusive use and sets it up. What was received or to
// be sent before is thrown away. Errors name the path and the setting; one that
// wraps serial.ErrBusy means that another program has the port, serial.ErrGone
// that the device file is there and the adapter is not.
func (d Device) Open(ctx context.Context) (serial.Port, error) {
	if err := d.Config.Check(); err != nil {
		return nil, fmt.Errorf("serial port %q: %w", d.Path, err)
	}
	p := &Port{path: d.Path}
	_, err := p.control.Do(ctx, func() error {
		f, err := open(d.Path, d.Config.WithDefaults())
		if err != nil {
			return err
		}
		if ctx.Err() != nil { // nobody waits for it any more
			f.Close()
			return ctx.Err()
		}
		p.f = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open serial port %q: %w", d.Path, err)
	}
	return p, nil
}

func open(path string, c serial.Config) (*os.File, error) {
	// Non-blocking, so that open does not wait for a carrier and the runtime can
	// wait for input with deadlines.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, openHint(path, err)
	}
	if err := setUp(fd, c); err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, fmt.Errorf("device cannot be waited for: %w", err)
	}
	return f, nil
}

// openHint adds what a person can do about an error of opening.
func openHint(path string, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", serial.ErrBusy, err)
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EIO):
		return fmt.Errorf("%w: %w", serial.ErrGone, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: add the user to the group that owns the device (often dialout)", err)
	case errors.Is(err, fs.ErrNotExist):
		if there := ports(); len(there) > 0 {
			return fmt.Errorf("%w: there are %s", err, strings.Join(there, ", "))
		}
		return fmt.Errorf("%w: this machine has no serial ports", err)
	}
	return err
}

// ports returns the serial ports that have hardware behind them.
func ports() []string {
	var found []string
	links, _ := filepath.Glob("/dev/serial/by-id/*")
	found = append(found, links...)
	drivers, _ := filepath.Glob("/sys/class/tty/*/device/driver")
	for _, d := range drivers {
		found = append(found, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(d))))
	}
	slices.Sort(found)
	return found
}

// Port is an open terminal. It satisfies [serial.Port].
type Port struct {
	path    string
	f       *os.File
	control lane.Lane // the calls that the runtime cannot wait for
}

// String returns the path.
func (p *Port) String() string { return p.path }

// Read satisfies [serial.Port]. A character that was received with wrong parity
// reads as 0, a break too: checksums above find it.
func (p *Port) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := p.f.Read(b)
	if err != nil && n == 0 {
		return 0, p.fault("read", err)
	}
	return n, nil
}

// Write satisfies [serial.Port].
func (p *Port) Write(b []byte) (int, error) {
	n, err := p.f.Write(b)
	if err != nil {
		return n, p.fault("write", err)
	}
	return n, nil
}

// SetReadDeadline satisfies [serial.Port].
func (p *Port) SetReadDeadline(t time.Time) error { return p.fault("deadline", p.f.SetReadDeadline(t)) }

// SetWriteDeadline satisfies [serial.Port].
func (p *Port) SetWriteDeadline(t time.Time) error {
	return p.fault("deadline", p.f.SetWriteDeadline(t))
}

// mostDiscarded bounds how much Discard reads, so that a line that never falls
// silent does not hold it.
const mostDiscarded = 1 << 16

// Discard satisfies [serial.Port].
func (p *Port) Discard() error {
	err := p.ioctl(func(fd int) error {
		if err := unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH); err != nil {
			return err
		}
		// The flush empties the line discipline only. What the hardware has
		// handed over since, or holds in a buffer before it, is read.
		b := make([]byte, 4096)
		for total := 0; total < mostDiscarded; {
			n, err := unix.Read(fd, b)
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return nil
			case err != nil:
				return err
			case n == 0:
				return io.EOF
			}
			total += max(n, 0)
		}
		return nil
	})
	return p.fault("discard input", err)
}

// WaitSent satisfies [serial.Port].
func (p *Port) WaitSent(ctx context.Context) error {
	_, err := p.control.Do(ctx, func() error {
		return p.ioctl(func(fd int) error { return unix.IoctlSetInt(fd, unix.TCSBRK, 1) }) // tcdrain
	})
	if errors.Is(err, lane.ErrClosed) {
		err = os.ErrClosed
	}
	return p.fault("wait until sent", err)
}

// ioctl runs f on the descriptor, which stays open meanwhile.
func (p *Port) ioctl(f func(fd int) error) error {
	conn, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) {
		for {
			if inner = f(int(fd)); !errors.Is(inner, unix.EINTR) {
				return
			}
		}
	}); err != nil {
		return os.ErrClosed // the only reason, for which the runtime has an error of its own
	}
	return inner
}

// closing is how long Close waits for a WaitSent that it interrupts.
const closing = time.Second

// Close satisfies [serial.Port]. What has not been sent is thrown away: the
// kernel would wait for it up to half a minute.
func (p *Port) Close() error {
	err := p.ioctl(func(fd int) error {
		unix.IoctlSetInt(fd, unix.TIOCNXCL, 0)
		unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCOFLUSH)
		return nil // neither matters on a port that is gone
	})
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	stuck := p.control.Close(ctx)
	if cerr := p.f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = stuck
	}
	if errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close serial port %q: %w", p.path, os.ErrClosed)
	}
	return p.fault("close", err)
}

// fault names port and action in an error, and tells an adapter that has been
// unplugged (EIO, ENODEV, ENXIO) and a line that has been hung up (end of file)
// from other errors.
func (p *Port) fault(action string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("serial port %q: %s: %w: hung up", p.path, action, serial.ErrGone)
	case errors.Is(err, unix.EIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("serial port %q: %s: %w: %w", p.path, action, serial.ErrGone, err)
	}
	return fmt.Errorf("serial port %q: %s: %w", p.path, action, err)
}

var (
	_ serial.Opener = Device{}
	_ serial.Port   = (*Port)(nil)
)
