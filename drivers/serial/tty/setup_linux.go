package tty

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/drivers/serial"
)

// setUp takes the terminal for this program alone and applies the configuration.
func setUp(fd int, c serial.Config) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("not a serial port: %w", err)
	} else if err != nil {
		return openHint("", err)
	}
	// Two locks, because programs differ in which one they respect: flock stops
	// those that ask, TIOCEXCL those that just open (except root's).
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w: locked by another program", serial.ErrBusy)
	} else if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TIOCEXCL, 0); err != nil {
		return fmt.Errorf("take exclusive use: %w", err)
	}
	raw(t, c)
	if err := unix.IoctlSetTermios(fd, unix.TCSETS2, t); err != nil {
		return fmt.Errorf("set %v: %w", c, err)
	}
	if err := verify(fd, t, c); err != nil {
		return err
	}
	if err := setRS485(fd, c.RS485); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIOFLUSH); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// raw changes t to raw mode (termios(3)) with the configuration.
func raw(t *unix.Termios, c serial.Config) {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL |
		unix.IXON | unix.IXOFF | unix.IXANY | unix.INPCK | unix.IGNPAR
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	// HUPCL would drop DTR at each close, which resets some devices.
	t.Cflag &^= unix.CSIZE | unix.PARENB | unix.PARODD | unix.CMSPAR | unix.CSTOPB | unix.CRTSCTS | unix.CBAUD | unix.CIBAUD | unix.HUPCL
	t.Cflag |= unix.CREAD | unix.CLOCAL | unix.BOTHER
	t.Ispeed, t.Ospeed = uint32(c.Baud), uint32(c.Baud)
	t.Cflag |= [...]uint32{5: unix.CS5, 6: unix.CS6, 7: unix.CS7, 8: unix.CS8}[c.DataBits]
	if c.Parity != serial.ParityNone {
		t.Cflag |= unix.PARENB
		t.Iflag |= unix.INPCK
	}
	switch c.Parity {
	case serial.ParityOdd:
		t.Cflag |= unix.PARODD
	case serial.ParityMark:
		t.Cflag |= unix.PARODD | unix.CMSPAR
	case serial.ParitySpace:
		t.Cflag |= unix.CMSPAR
	}
	if c.StopBits == 2 {
		t.Cflag |= unix.CSTOPB
	}
	if c.RTSCTS {
		t.Cflag |= unix.CRTSCTS
	}
	// At least one character a read: with 0, a non-blocking read of nothing is
	// the same as a hang-up.
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
}

// verify reads the settings back: drivers do what they can and say nothing about
// the rest.
func verify(fd int, want *unix.Termios, c serial.Config) error {
	got, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return fmt.Errorf("read settings back: %w", err)
	}
	// Beyond about 2.5 % the last bit of a character is sampled wrongly.
	if off := int(got.Ospeed) - c.Baud; off*40 > c.Baud || -off*40 > c.Baud {
		return fmt.Errorf("the device runs at %d instead of %d baud", got.Ospeed, c.Baud)
	}
	if isPTY(fd) { // has no line: always 8 bits without parity
		return nil
	}
	const frame = unix.CSIZE | unix.PARENB | unix.PARODD | unix.CMSPAR | unix.CSTOPB | unix.CRTSCTS
	if got.Cflag&frame != want.Cflag&frame {
		return fmt.Errorf("the device cannot do %v (asked for mode 0x%x, got 0x%x)", c, want.Cflag&frame, got.Cflag&frame)
	}
	return nil
}

// isPTY reports whether the descriptor is the far side of a pseudo-terminal,
// majors 136 to 143 (Documentation/admin-guide/devices.txt).
func isPTY(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	major := unix.Major(uint64(st.Rdev))
	return major >= 136 && major <= 143
}

// rs485 is struct serial_rs485 of include/uapi/linux/serial.h.
type rs485 struct {
	flags       uint32
	delayBefore uint32 // ms
	delayAfter  uint32 // ms
	_           [5]uint32
}

// The flags of struct serial_rs485.
const (
	rs485Enabled   = 1 << 0
	rs485OnSend    = 1 << 1 // level of RTS while sending
	rs485AfterSend = 1 << 2 // level of RTS after sending
	rs485RxInTx    = 1 << 4
)

// kernelRS485 translates the setting.
func kernelRS485(c serial.RS485) rs485 {
	if !c.Enabled {
		return rs485{}
	}
	ms := func(d time.Duration) uint32 { return uint32((d + time.Millisecond - 1) / time.Millisecond) }
	k := rs485{flags: rs485Enabled | rs485OnSend, delayBefore: ms(c.DelayBefore), delayAfter: ms(c.DelayAfter)}
	if c.RTSLowOnSend {
		k.flags = rs485Enabled | rs485AfterSend
	}
	if c.ReceiveOwn {
		k.flags |= rs485RxInTx
	}
	return k
}

// setRS485 switches direction control on, or off if the driver has it and a
// program before left it on.
func setRS485(fd int, c serial.RS485) error {
	want := kernelRS485(c)
	got := want
	err := ioctlPointer(fd, unix.TIOCSRS485, unsafe.Pointer(&got))
	if !c.Enabled {
		return nil // a driver without it is as good as one with it switched off
	}
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("the driver cannot switch rs-485 direction (%w): use an adapter that switches by itself and leave rs485 off", err)
	} else if err != nil {
		return fmt.Errorf("set rs-485: %w", err)
	}
	// The kernel hands back what it has made of the wish.
	const all = rs485Enabled | rs485OnSend | rs485AfterSend | rs485RxInTx
	if got.flags&all != want.flags || got.delayBefore != want.delayBefore || got.delayAfter != want.delayAfter {
		return fmt.Errorf("the driver cannot do this rs-485 setting: asked for %+v, got %+v", want, got)
	}
	return nil
}

func ioctlPointer(fd int, request uint, p unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(p)); errno != 0 {
		return errno
	}
	return nil
}
