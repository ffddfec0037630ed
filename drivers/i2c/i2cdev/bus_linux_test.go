package i2cdev

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"holdfast/drivers/i2c"
)

// script is an adapter that does what the test says.
type script struct {
	funcs    uint64
	funcsErr error
	answer   func(msgs []message) (int, error)

	mu     sync.Mutex
	sets   map[uint]int
	closed bool
}

func (s *script) functions() (uint64, error) { return s.funcs, s.funcsErr }

func (s *script) set(request uint, value int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sets == nil {
		s.sets = map[uint]int{}
	}
	s.sets[request] = value
	return nil
}

func (s *script) transfer(msgs []message) (int, error) { return s.answer(msgs) }

func (s *script) close() error { s.closed = true; return nil }

func open(t *testing.T, s *script, o Options) *Bus {
	t.Helper()
	if s.funcs == 0 {
		s.funcs = funcI2C
	}
	b, err := newBus(t.Context(), "/dev/i2c-7", s, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The sizes and offsets of include/uapi/linux/i2c.h and i2c-dev.h.
func TestKernelStructures(t *testing.T) {
	p := unsafe.Sizeof(uintptr(0))
	if got, want := unsafe.Offsetof(kernelMsg{}.buf), uintptr(8); got != want {
		t.Errorf("offset of i2c_msg.buf = %d, want %d", got, want)
	}
	if got, want := unsafe.Sizeof(kernelMsg{}), 8+p; got != want {
		t.Errorf("size of i2c_msg = %d, want %d", got, want)
	}
	if got, want := unsafe.Sizeof(kernelRdwr{}), 2*p; got != want {
		t.Errorf("size of i2c_rdwr_ioctl_data = %d, want %d", got, want)
	}
}

func TestKernelMessages(t *testing.T) {
	b := make([]byte, 8192)
	if k := (message{addr: 0x76, buf: b[:3]}).kernel(); k != (kernelMsg{0x76, 0, 3, unsafe.Pointer(&b[0])}) {
		t.Errorf("write: %+v", k)
	}
	if k := (message{addr: 0x48, read: true, buf: b}).kernel(); k != (kernelMsg{0x48, 0x0001, 8192, unsafe.Pointer(&b[0])}) {
		t.Errorf("read: %+v", k)
	}
	// The real ioctl, on a device that is none: the request must get that far.
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	d := device{f}
	if _, err := d.transfer([]message{{addr: 0x48, buf: b[:1]}, {addr: 0x48, read: true, buf: b[1:3]}}); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("transfer on %s = %v, want ENOTTY", os.DevNull, err)
	}
	if _, err := d.transfer(make([]message, 3)); err == nil {
		t.Error("three messages were accepted")
	}
	d.close()
	if _, err := d.transfer([]message{{addr: 0x48, buf: b[:1]}}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("transfer after close = %v", err)
	}
}

func TestTransaction(t *testing.T) {
	s := &script{answer: func(msgs []message) (int, error) {
		if len(msgs) != 2 || msgs[0].read || !msgs[1].read || msgs[0].addr != 0x76 || msgs[1].addr != 0x76 {
			t.Errorf("messages %+v", msgs)
		}
		if !bytes.Equal(msgs[0].buf, []byte{0xD0}) {
			t.Errorf("wrote % x", msgs[0].buf)
		}
		copy(msgs[1].buf, []byte{0x60, 0x61})
		return len(msgs), nil
	}}
	b := open(t, s, Options{})
	r := make([]byte, 2)
	if err := b.Tx(t.Context(), 0x76, []byte{0xD0}, r); err != nil || !bytes.Equal(r, []byte{0x60, 0x61}) {
		t.Errorf("Tx read % x, %v", r, err)
	}
}

func TestOneWay(t *testing.T) {
	var got []message
	s := &script{answer: func(msgs []message) (int, error) { got = msgs; return len(msgs), nil }}
	b := open(t, s, Options{})
	if err := b.Tx(t.Context(), 0x20, []byte{1, 2}, nil); err != nil || len(got) != 1 || got[0].read {
		t.Errorf("write only: %+v, %v", got, err)
	}
	if err := b.Tx(t.Context(), 0x20, nil, make([]byte, 3)); err != nil || len(got) != 1 || !got[0].read || len(got[0].buf) != 3 {
		t.Errorf("read only: %+v, %v", got, err)
	}
}

// An adapter that transfers fewer messages than it was given, without an error,
// is a chip that did not answer. The buffer must stay as it was.
func TestMessageCountIsChecked(t *testing.T) {
	for n := range 2 {
		s := &script{answer: func(msgs []message) (int, error) {
			copy(msgs[1].buf, "stale")
			return n, nil
		}}
		b := open(t, s, Options{})
		r := []byte{7, 7, 7, 7, 7}
		err := b.Tx(t.Context(), 0x76, []byte{0xF7}, r)
		if !errors.Is(err, i2c.ErrNACK) {
			t.Errorf("%d of 2 messages: %v, want ErrNACK", n, err)
		}
		if !bytes.Equal(r, []byte{7, 7, 7, 7, 7}) {
			t.Errorf("%d of 2 messages: buffer changed to %q", n, r)
		}
	}
}

func TestKernelErrors(t *testing.T) {
	tests := []struct {
		errno unix.Errno
		want  error
	}{
		{unix.ENXIO, i2c.ErrNACK},
		{unix.EREMOTEIO, i2c.ErrNACK},
		{unix.ETIMEDOUT, i2c.ErrTimeout},
		{unix.EAGAIN, i2c.ErrArbitration},
		{unix.ENODEV, i2c.ErrGone},
		{unix.EIO, unix.EIO},
		{unix.EBUSY, unix.EBUSY},
	}
	for _, tt := range tests {
		b := open(t, &script{answer: func([]message) (int, error) { return 0, tt.errno }}, Options{})
		err := b.Tx(t.Context(), 0x48, []byte{0}, make([]byte, 2))
		if !errors.Is(err, tt.want) || !errors.Is(err, tt.errno) {
			t.Errorf("%v: got %v, want %v and the errno itself", tt.errno, err, tt.want)
		}
		if !strings.Contains(err.Error(), "/dev/i2c-7 0x48") {
			t.Errorf("%v: %q does not name bus and address", tt.errno, err)
		}
	}
}

func TestHungIoctl(t *testing.T) {
	gate := make(chan struct{})
	var calls int
	s := &script{answer: func(msgs []message) (int, error) {
		calls++
		if calls == 1 {
			<-gate
			copy(msgs[1].buf, "late")
		}
		return len(msgs), nil
	}}
	b := open(t, s, Options{Timeout: 10 * time.Millisecond})
	r := make([]byte, 4)
	if err := b.Tx(t.Context(), 0x76, []byte{0}, r); !errors.Is(err, i2c.ErrTimeout) {
		t.Fatalf("Tx = %v, want ErrTimeout", err)
	}
	for range 100 {
		if err := b.Tx(t.Context(), 0x18, []byte{0}, r); !errors.Is(err, i2c.ErrStuck) {
			t.Fatalf("Tx on a stuck bus = %v, want ErrStuck", err)
		}
	}
	close(gate)
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := b.Tx(t.Context(), 0x18, []byte{0}, r[:1])
		if err == nil {
			break
		}
		if !errors.Is(err, i2c.ErrStuck) || time.Now().After(deadline) {
			t.Fatalf("bus did not recover: %v", err)
		}
	}
	if calls != 2 {
		t.Errorf("adapter was called %d times, want 2: one hung, one good", calls)
	}
	if string(r[1:]) != "\x00\x00\x00" {
		t.Errorf("the late answer reached the caller's buffer: %q", r)
	}
}

// A transaction that was left behind must not see what its caller does with the
// buffer afterwards.
func TestLateTransactionHasItsOwnBytes(t *testing.T) {
	gate, seen := make(chan struct{}), make(chan byte, 1)
	b := open(t, &script{answer: func(m []message) (int, error) {
		<-gate
		seen <- m[0].buf[0]
		return len(m), nil
	}}, Options{Timeout: time.Millisecond})
	w := []byte{1}
	if err := b.Tx(t.Context(), 0x20, w, nil); !errors.Is(err, i2c.ErrTimeout) {
		t.Fatalf("Tx = %v, want ErrTimeout", err)
	}
	w[0] = 2
	close(gate)
	if got := <-seen; got != 1 {
		t.Errorf("the late transaction wrote %d, want 1", got)
	}
}

func TestCancelledContext(t *testing.T) {
	b := open(t, &script{answer: func(m []message) (int, error) { return len(m), nil }}, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Tx(ctx, 0x76, []byte{0}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Tx = %v, want canceled", err)
	}
}

func TestBadTransactions(t *testing.T) {
	b := open(t, &script{answer: func(m []message) (int, error) { t.Error("reached the adapter"); return len(m), nil }}, Options{})
	for name, err := range map[string]error{
		"general call": b.Tx(t.Context(), 0, []byte{6}, nil),
		"10 bit":       b.Tx(t.Context(), 0x78, []byte{6}, nil),
		"empty":        b.Tx(t.Context(), 0x40, nil, nil),
		"too long":     b.Tx(t.Context(), 0x40, nil, make([]byte, 8193)),
	} {
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestSettings(t *testing.T) {
	tests := []struct {
		o     Options
		ticks int
	}{
		{Options{}, 100},
		{Options{Timeout: 200 * time.Millisecond, Retries: 3}, 20},
		{Options{Timeout: 201 * time.Millisecond}, 21},
		{Options{Timeout: time.Millisecond}, 1},
	}
	for _, tt := range tests {
		s := &script{}
		open(t, s, tt.o)
		if s.sets[ioctlTimeout] != tt.ticks || s.sets[ioctlRetries] != tt.o.Retries {
			t.Errorf("%+v: set %v, want timeout %d, retries %d", tt.o, s.sets, tt.ticks, tt.o.Retries)
		}
	}
}

func TestUnusableAdapters(t *testing.T) {
	for name, s := range map[string]*script{
		"smbus only":  {funcs: 0x0EFF0008},
		"not i2c":     {funcsErr: unix.ENOTTY},
		"other error": {funcsErr: unix.EIO},
	} {
		if _, err := newBus(t.Context(), "/dev/i2c-7", s, Options{}); err == nil || !s.closed {
			t.Errorf("%s: err %v, closed %v; want an error and no leaked descriptor", name, err, s.closed)
		}
	}
	s := &script{funcs: funcI2C}
	if _, err := newBus(t.Context(), "/dev/i2c-7", s, Options{Timeout: -1}); err == nil || !s.closed {
		t.Errorf("negative timeout: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, want string }{
		{"/dev/i2c-99999", "/dev/i2c-99999"},
		{"99999", "/dev/i2c-99999"},
		{"i2c-99999", "/dev/i2c-99999"},
		{"", "want /dev/i2c-N"},
		{"i2c-x", "want /dev/i2c-N"},
		{plain, "not an i2c adapter"},
	}
	for _, tt := range tests {
		_, err := Open(t.Context(), tt.name, Options{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open(%q) = %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

func TestClose(t *testing.T) {
	s := &script{answer: func(m []message) (int, error) { return len(m), nil }}
	b := open(t, s, Options{})
	if err := b.Close(); err != nil || !s.closed {
		t.Errorf("Close = %v, closed %v", err, s.closed)
	}
	if err := b.Tx(t.Context(), 0x40, []byte{0}, nil); !errors.Is(err, i2c.ErrClosed) {
		t.Errorf("Tx after Close = %v, want ErrClosed", err)
	}
}
