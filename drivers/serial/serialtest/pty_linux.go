package serialtest

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A PTY is a pseudo-terminal: a path that programs open as a serial port, and the
// far end of its line in this program. It has no baud rate, no parity and no
// gaps.
type PTY struct {
	// File is the far end. Deadlines work on it.
	File *os.File
	// Path is the serial port.
	Path string

	hold  *os.File
	close sync.Once
}

// NewPTY makes a pseudo-terminal in raw mode. While it lives, the path can be
// opened and closed over and over; bytes written to File while nobody has the
// path open wait there.
func NewPTY() (*PTY, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	p := &PTY{File: os.NewFile(uintptr(fd), "/dev/ptmx")}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		p.Close()
		return nil, fmt.Errorf("unlock pseudo-terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("number of pseudo-terminal: %w", err)
	}
	p.Path = fmt.Sprintf("/dev/pts/%d", n)
	// Held open, or the far end would see an error whenever the port is closed;
	// and put into raw mode, or it would echo what arrives before it is opened.
	if p.hold, err = os.OpenFile(p.Path, os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		p.Close()
		return nil, fmt.Errorf("open pseudo-terminal: %w", err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
		err = unix.IoctlSetTermios(fd, unix.TCSETS, t)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("set pseudo-terminal to raw: %w", err)
	}
	return p, nil
}

// Close hangs up: whoever has the path open sees it gone.
func (p *PTY) Close() error {
	var err error
	p.close.Do(func() {
		if p.hold != nil {
			p.hold.Close()
		}
		err = p.File.Close()
	})
	return err
}
