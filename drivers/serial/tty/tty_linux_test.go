package tty

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/drivers/serial"
	"holdfast/drivers/serial/serialtest"
)

const patience = 20 * time.Second

func newPTY(t *testing.T) *serialtest.PTY {
	t.Helper()
	p, err := serialtest.NewPTY()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func openPort(t *testing.T, path string, c serial.Config) *Port {
	t.Helper()
	p, err := Device{Path: path, Config: c}.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p.(*Port)
}

// Every byte value both ways: nothing on the way may take one for a command.
func TestEveryByteBothWays(t *testing.T) {
	pty := newPTY(t)
	port := openPort(t, pty.Path, serial.Config{})
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	ends := map[string]struct {
		w io.Writer
		r io.Reader
	}{"out": {port, pty.File}, "in": {pty.File, port}}
	port.SetReadDeadline(time.Now().Add(patience))
	pty.File.SetReadDeadline(time.Now().Add(patience))
	for name, e := range ends {
		if _, err := e.w.Write(all); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(all))
		if _, err := io.ReadFull(e.r, got); err != nil || !bytes.Equal(got, all) {
			t.Errorf("%s: % x, %v", name, got, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := port.WaitSent(ctx); err != nil {
		t.Errorf("WaitSent: %v", err)
	}
}

func TestReadDeadline(t *testing.T) {
	port := openPort(t, newPTY(t).Path, serial.Config{})
	began := time.Now()
	port.SetReadDeadline(began.Add(20 * time.Millisecond))
	_, err := port.Read(make([]byte, 1))
	if !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, serial.ErrGone) || time.Since(began) < 20*time.Millisecond {
		t.Errorf("Read = %v after %v, want a deadline error", err, time.Since(began))
	}
	if _, err := port.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("second Read = %v", err)
	}
	if n, err := port.Read(nil); n != 0 || err != nil {
		t.Errorf("Read of nothing = %d, %v", n, err)
	}
}

// A far end that does not read fills the buffers; then a write must end with its
// deadline, and Close must not wait for what nobody takes.
func TestWriteDeadline(t *testing.T) {
	port := openPort(t, newPTY(t).Path, serial.Config{})
	port.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := port.Write(make([]byte, 1<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 1<<20 {
		t.Errorf("Write = %d, %v, want a deadline error", n, err)
	}
	done := make(chan error, 1)
	go func() { done <- port.Close() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Close: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Close waited for output that nobody takes")
	}
}

func TestHangUpIsGone(t *testing.T) {
	for _, waiting := range []bool{false, true} {
		pty := newPTY(t)
		port := openPort(t, pty.Path, serial.Config{})
		port.SetReadDeadline(time.Now().Add(patience))
		read := make(chan error, 1)
		start := func() {
			go func() { _, err := port.Read(make([]byte, 1)); read <- err }()
		}
		if waiting {
			start()
			time.Sleep(10 * time.Millisecond) // most likely in Read by now; correct either way
			pty.Close()
		} else {
			pty.Close()
			start()
		}
		if err := <-read; !errors.Is(err, serial.ErrGone) {
			t.Errorf("waiting %v: Read after hang-up = %v, want ErrGone", waiting, err)
		}
		if _, err := port.Write([]byte{1}); !errors.Is(err, serial.ErrGone) {
			t.Errorf("Write after hang-up = %v, want ErrGone", err)
		}
		if err := port.Discard(); !errors.Is(err, serial.ErrGone) {
			t.Errorf("Discard after hang-up = %v, want ErrGone", err)
		}
		if err := port.Close(); err != nil {
			t.Errorf("Close after hang-up = %v", err)
		}
	}
}

func TestReopen(t *testing.T) {
	pty := newPTY(t)
	for i := range byte(3) {
		port := openPort(t, pty.Path, serial.Config{})
		port.SetReadDeadline(time.Now().Add(patience))
		pty.File.Write([]byte{i})
		b := make([]byte, 1)
		if _, err := port.Read(b); err != nil || b[0] != i {
			t.Errorf("round %d: %v, %v", i, b, err)
		}
		if err := port.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

func TestCloseWakesReader(t *testing.T) {
	port := openPort(t, newPTY(t).Path, serial.Config{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := port.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) || errors.Is(err, serial.ErrGone) {
			t.Errorf("Read = %v, want closed", err)
		}
	})
	time.Sleep(5 * time.Millisecond) // most likely in Read by now; correct either way
	if err := port.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := port.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Close = %v", err)
	}
	if err := port.WaitSent(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("WaitSent after Close = %v", err)
	}
	if err := port.Discard(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Discard after Close = %v", err)
	}
}

// What arrived before must not be taken for an answer: neither what arrived
// before the port was opened, nor what is discarded.
func TestStaleInput(t *testing.T) {
	pty := newPTY(t)
	pty.File.Write([]byte("before opening"))
	settle(t, pty.Path)
	port := openPort(t, pty.Path, serial.Config{})
	fresh := func(what string) {
		t.Helper()
		pty.File.Write([]byte("!"))
		port.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, 64)
		if n, err := port.Read(b); err != nil || string(b[:n]) != "!" {
			t.Errorf("%s: read %q, %v", what, b[:n], err)
		}
	}
	fresh("after opening")
	pty.File.Write(bytes.Repeat([]byte{0xAA}, 3000))
	settle(t, pty.Path)
	if err := port.Discard(); err != nil {
		t.Errorf("Discard: %v", err)
	}
	fresh("after Discard")
	if err := port.Discard(); err != nil {
		t.Errorf("Discard of nothing: %v", err)
	}
}

// settle waits until what was written to a pseudo-terminal has arrived at its
// port, which the kernel does on a thread of its own.
func settle(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for last, end := -1, time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 && n == last {
			return
		}
		last = n
	}
	t.Fatal("nothing arrived")
}

func TestExclusive(t *testing.T) {
	pty := newPTY(t)
	port := openPort(t, pty.Path, serial.Config{})
	if _, err := (Device{Path: pty.Path}).Open(t.Context()); !errors.Is(err, serial.ErrBusy) {
		t.Errorf("second Open = %v, want ErrBusy", err)
	}
	exclusive := func(fd int) (n int, err error) { return unix.IoctlGetInt(fd, unix.TIOCGEXCL) }
	if err := port.ioctl(func(fd int) error {
		n, err := exclusive(fd)
		if n == 0 {
			t.Error("exclusive mode is off while the port is open")
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	port.Close()
	f, err := os.OpenFile(pty.Path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := exclusive(int(f.Fd())); err != nil || n != 0 {
		t.Errorf("exclusive mode %d, %v after Close, want off", n, err)
	}
}

func TestOddBaudRates(t *testing.T) {
	pty := newPTY(t)
	for _, baud := range []int{0, 50, 9600, 19200, 31250, 76800, 250000, 4000000} {
		port := openPort(t, pty.Path, serial.Config{Baud: baud, Parity: serial.ParityNone, StopBits: 2})
		var got *unix.Termios
		if err := port.ioctl(func(fd int) (err error) { got, err = unix.IoctlGetTermios(fd, unix.TCGETS2); return err }); err != nil {
			t.Fatal(err)
		}
		if baud == 0 {
			baud = 19200
		}
		if int(got.Ospeed) != baud || got.Cflag&unix.CSTOPB == 0 || got.Lflag&(unix.ECHO|unix.ICANON) != 0 {
			t.Errorf("baud %d: speed %d, mode 0x%x", baud, got.Ospeed, got.Cflag)
		}
		port.Close()
	}
}

func TestRawFlags(t *testing.T) {
	tests := []struct {
		setting string
		want    uint32
	}{
		{"9600 8N1", unix.CS8},
		{"9600 8E1", unix.CS8 | unix.PARENB},
		{"9600 8O1", unix.CS8 | unix.PARENB | unix.PARODD},
		{"9600 7E2", unix.CS7 | unix.PARENB | unix.CSTOPB},
		{"9600 8M1", unix.CS8 | unix.PARENB | unix.PARODD | unix.CMSPAR},
		{"9600 8S1", unix.CS8 | unix.PARENB | unix.CMSPAR},
		{"9600 5N1", unix.CS5},
		{"9600 6N1", unix.CS6},
	}
	for _, tt := range tests {
		c, err := serial.ParseConfig(tt.setting)
		if err != nil {
			t.Fatal(err)
		}
		before := unix.Termios{Cflag: 0xFFFFFFFF, Iflag: 0xFFFFFFFF, Lflag: 0xFFFFFFFF, Oflag: 0xFFFFFFFF}
		raw(&before, c)
		const frame = unix.CSIZE | unix.PARENB | unix.PARODD | unix.CMSPAR | unix.CSTOPB | unix.CRTSCTS
		if got := before.Cflag & frame; got != tt.want {
			t.Errorf("%s: mode 0x%x, want 0x%x", tt.setting, got, tt.want)
		}
		if before.Cc[unix.VMIN] != 1 || before.Oflag&unix.OPOST != 0 || before.Iflag&(unix.IXON|unix.ICRNL|unix.ISTRIP) != 0 {
			t.Errorf("%s: not raw: %+v", tt.setting, before)
		}
		if parity := before.Iflag&unix.INPCK != 0; parity != (c.Parity != serial.ParityNone) {
			t.Errorf("%s: input parity check %v", tt.setting, parity)
		}
	}
}

func TestRS485(t *testing.T) {
	if n := unsafe.Sizeof(rs485{}); n != 32 {
		t.Errorf("size of serial_rs485 = %d, want 32", n)
	}
	tests := []struct {
		c    serial.RS485
		want rs485
	}{
		{serial.RS485{}, rs485{}},
		{serial.RS485{DelayBefore: time.Second}, rs485{}},
		{serial.RS485{Enabled: true}, rs485{flags: 0x03}},
		{serial.RS485{Enabled: true, RTSLowOnSend: true}, rs485{flags: 0x05}},
		{serial.RS485{Enabled: true, ReceiveOwn: true, DelayBefore: time.Millisecond, DelayAfter: 1001 * time.Microsecond}, rs485{flags: 0x13, delayBefore: 1, delayAfter: 2}},
	}
	for _, tt := range tests {
		if got := kernelRS485(tt.c); got != tt.want {
			t.Errorf("%+v: %+v, want %+v", tt.c, got, tt.want)
		}
	}
	// A pseudo-terminal has no direction to switch, and the error must say so.
	_, err := Device{Path: newPTY(t).Path, Config: serial.Config{RS485: serial.RS485{Enabled: true}}}.Open(t.Context())
	if err == nil || !strings.Contains(err.Error(), "cannot switch rs-485 direction") {
		t.Errorf("Open with rs-485 = %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		d    Device
		want string
	}{
		{Device{Path: "/dev/ttyHoldfast9"}, `open serial port "/dev/ttyHoldfast9": no such file or directory`},
		{Device{Path: plain}, "not a serial port"},
		{Device{Path: "/dev/null"}, "not a serial port"},
		{Device{Path: plain, Config: serial.Config{Baud: 7}}, "baud 7: want 50 to 4000000"},
	}
	for _, tt := range tests {
		if p, err := tt.d.Open(t.Context()); p != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open(%+v) = %v, %v; want %q", tt.d, p, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Device{Path: newPTY(t).Path}).Open(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Open with a cancelled context = %v", err)
	}
}
