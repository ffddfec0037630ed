package i2csock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/i2c"
)

// memory is a bus with one chip of 256 registers at 0x50, a chip that never
// acknowledges at 0x51 and one that hangs at 0x52.
type memory struct {
	mu   sync.Mutex
	regs [256]byte
}

func (m *memory) String() string { return "memory" }

func (m *memory) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch addr {
	case 0x50:
		for i, b := range w[1:] {
			m.regs[int(w[0])+i] = b
		}
		copy(r, m.regs[w[0]:])
		return nil
	case 0x52:
		<-ctx.Done()
		return i2c.ErrTimeout
	case 0x53:
		return errors.New("something of its own")
	}
	return i2c.ErrNACK
}

func serveMemory(t *testing.T) (path string, stop func()) {
	path = filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, &memory{}) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return path, stop
}

func TestTransactions(t *testing.T) {
	path, stop := serveMemory(t)
	b := New("unix", path)
	defer b.Close()
	ctx := context.Background()
	dev := i2c.Dev{Bus: b, Addr: 0x50}
	if err := dev.WriteUint16(ctx, 4, 0xBEEF); err != nil {
		t.Fatal(err)
	}
	if v, err := dev.ReadUint16(ctx, 4); v != 0xBEEF || err != nil {
		t.Errorf("read back %04x, %v", v, err)
	}
	for addr, want := range map[uint16]error{0x51: i2c.ErrNACK, 0x53: errFailed} {
		if err := b.Tx(ctx, addr, []byte{0}, nil); !errors.Is(err, want) {
			t.Errorf("0x%02x: %v, want %v", addr, err, want)
		}
	}
	// An error of the chip leaves the connection usable, a deadline does not.
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := b.Tx(short, 0x52, []byte{0}, nil); !errors.Is(err, i2c.ErrTimeout) {
		t.Errorf("a hanging chip: %v", err)
	}
	stop()
	if err := b.Tx(ctx, 0x50, []byte{4}, make([]byte, 2)); !errors.Is(err, i2c.ErrGone) {
		t.Errorf("without a server: %v", err)
	}
	b.Close()
	if err := b.Tx(ctx, 0x50, []byte{4}, nil); !errors.Is(err, i2c.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestReconnects(t *testing.T) {
	path, stop := serveMemory(t)
	b := New("unix", path)
	defer b.Close()
	ctx := context.Background()
	if err := b.Tx(ctx, 0x50, []byte{1, 7}, nil); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := b.Tx(ctx, 0x50, []byte{1}, nil); !errors.Is(err, i2c.ErrGone) {
		t.Errorf("without a server: %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	again, cancel := context.WithCancel(ctx)
	var served sync.WaitGroup
	served.Go(func() { Serve(again, l, &memory{}) })
	defer served.Wait()
	defer cancel()
	if err := b.Tx(ctx, 0x50, []byte{1, 9}, nil); err != nil {
		t.Errorf("with a new server: %v", err)
	}
}

// FuzzServe: whatever bytes come in, serve returns, and answers nothing but
// whole answers.
func FuzzServe(f *testing.F) {
	f.Add([]byte{0x50, 0, 1, 0, 2, 0, 4})
	f.Add([]byte{0x50, 0, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(data), io.Discard}
		if err := serve(context.Background(), conn, safe{}); err == nil {
			t.Error("serve returned without an end")
		}
	})
}

// safe takes any transaction.
type safe struct{}

func (safe) String() string                                   { return "safe" }
func (safe) Tx(context.Context, uint16, []byte, []byte) error { return nil }
