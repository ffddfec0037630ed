package plant

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Pty is a serial line without a wire: what is written to Line comes out of
// the device file at Path, which a gateway opens like any serial port, and the
// other way round.
type Pty struct {
	Line *os.File // the field device's end; reads and writes obey deadlines
	Path string   // the gateway's end, such as /dev/pts/3

	hold *os.File // keeps the other end open, so that Line never sees a hang-up
}

// OpenPty makes one. It is in raw mode from the start: no echo, no line
// editing, no translation of bytes.
func OpenPty() (*Pty, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	line := os.NewFile(uintptr(fd), "/dev/ptmx")
	p, err := openOther(fd, line)
	if err != nil {
		line.Close()
		return nil, err
	}
	return p, nil
}

func openOther(fd int, line *os.File) (*Pty, error) {
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("unlock a pseudo terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, fmt.Errorf("number of a pseudo terminal: %w", err)
	}
	path := fmt.Sprintf("/dev/pts/%d", n)
	hold, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := raw(int(hold.Fd())); err != nil {
		hold.Close()
		return nil, fmt.Errorf("set %s to raw: %w", path, err)
	}
	return &Pty{Line: line, Path: path, hold: hold}, nil
}

// raw is cfmakeraw(3).
func raw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// Close ends both ends.
func (p *Pty) Close() error {
	p.hold.Close()
	return p.Line.Close()
}
