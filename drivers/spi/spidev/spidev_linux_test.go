package spidev

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"periph.io/x/conn/v3"
	"periph.io/x/conn/v3/physic"
	pspi "periph.io/x/conn/v3/spi"

	"holdfast/drivers/spi"
)

// port is a port of periph.io that a test watches.
type port struct {
	mode   pspi.Mode
	bits   int
	speed  physic.Frequency
	closed int
	err    error
	tx     func(w, r []byte) error
}

func (p *port) String() string                    { return "port" }
func (p *port) LimitSpeed(physic.Frequency) error { return nil }
func (p *port) Duplex() conn.Duplex               { return conn.Full }
func (p *port) TxPackets([]pspi.Packet) error     { return errors.New("not used") }
func (p *port) Tx(w, r []byte) error              { return p.tx(w, r) }
func (p *port) Close() error                      { p.closed++; return nil }

func (p *port) Connect(f physic.Frequency, mode pspi.Mode, bits int) (pspi.Conn, error) {
	p.speed, p.mode, p.bits = f, mode, bits
	return p, p.err
}

func open(t *testing.T, p *port, c spi.Config, o Options) *Conn {
	t.Helper()
	d, err := newConn(t.Context(), "/dev/spidev9.0", p, c.WithDefaults(), o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTransfer(t *testing.T) {
	p := &port{tx: func(w, r []byte) error {
		for i := range r {
			r[i] = ^w[i]
		}
		return nil
	}}
	d := open(t, p, spi.Config{Hertz: 5_000_000, Mode: 3, LSBFirst: true}, Options{})
	if p.speed != 5*physic.MegaHertz || p.mode != pspi.Mode3|pspi.LSBFirst || p.bits != 8 {
		t.Errorf("connected with %v, %v, %d", p.speed, p.mode, p.bits)
	}
	r := make([]byte, 2)
	if err := d.Tx(t.Context(), []byte{0x0F, 1}, r); err != nil || !bytes.Equal(r, []byte{0xF0, 0xFE}) {
		t.Errorf("Tx read % x, %v", r, err)
	}
	if err := d.Close(); err != nil || p.closed != 1 {
		t.Errorf("Close: %v, port closed %d times", err, p.closed)
	}
	if err := d.Tx(t.Context(), []byte{1}, nil); !errors.Is(err, spi.ErrClosed) {
		t.Errorf("Tx after Close: %v", err)
	}
}

func TestModes(t *testing.T) {
	for c, want := range map[spi.Config]pspi.Mode{
		{}:                          pspi.Mode0,
		{Mode: 1}:                   pspi.Mode1,
		{Mode: 2, HalfDuplex: true}: pspi.Mode2 | pspi.HalfDuplex,
		{NoSelect: true}:            pspi.NoCS,
		{LSBFirst: true, Mode: 3}:   pspi.Mode3 | pspi.LSBFirst,
	} {
		if got := mode(c); got != want {
			t.Errorf("%+v: %v, want %v", c, got, want)
		}
	}
}

func TestErrorLeavesBufferAlone(t *testing.T) {
	want := errors.New("no clock")
	p := &port{tx: func(w, r []byte) error { r[0] = 9; return want }}
	d := open(t, p, spi.Config{}, Options{})
	r := []byte{7}
	if err := d.Tx(t.Context(), []byte{1}, r); !errors.Is(err, want) || r[0] != 7 {
		t.Errorf("Tx = %v, buffer % x", err, r)
	}
}

func TestHungTransfer(t *testing.T) {
	gate := make(chan struct{})
	p := &port{tx: func(w, r []byte) error { <-gate; return nil }}
	d := open(t, p, spi.Config{}, Options{Timeout: 10 * time.Millisecond})
	if err := d.Tx(t.Context(), []byte{1}, nil); !errors.Is(err, spi.ErrTimeout) {
		t.Errorf("Tx = %v, want ErrTimeout", err)
	}
	if err := d.Tx(t.Context(), []byte{1}, nil); !errors.Is(err, spi.ErrStuck) {
		t.Errorf("second Tx = %v, want ErrStuck", err)
	}
	close(gate)
	for end := time.Now().Add(20 * time.Second); ; {
		if err := d.Tx(t.Context(), []byte{1}, nil); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("did not recover: %v", err)
		}
	}
	if err := d.Close(); err != nil || p.closed != 1 {
		t.Errorf("Close: %v, port closed %d times", err, p.closed)
	}
}

func TestLimits(t *testing.T) {
	d := open(t, &port{tx: func(w, r []byte) error { t.Error("reached the port"); return nil }}, spi.Config{Hertz: 100}, Options{})
	if err := d.Tx(t.Context(), make([]byte, defaultLargest+1), nil); err == nil || !strings.Contains(err.Error(), "at most 4096") {
		t.Errorf("too long: %v", err)
	}
	if err := d.Tx(t.Context(), make([]byte, 2), make([]byte, 3)); err == nil {
		t.Error("different lengths were accepted")
	}
	if got := d.limit(100); got != 32*time.Second {
		t.Errorf("limit of 100 bytes at 100 Hz = %v, want four times 8 s", got)
	}
	bufsiz := filepath.Join(t.TempDir(), "bufsiz")
	os.WriteFile(bufsiz, []byte("65536\n"), 0o600)
	if n := largest(bufsiz); n != 65536 {
		t.Errorf("largest = %d", n)
	}
	if n := largest(bufsiz + "x"); n != defaultLargest {
		t.Errorf("largest without the file = %d", n)
	}
}

func TestOpenErrors(t *testing.T) {
	for name, want := range map[string]string{
		"/dev/spidev250.1": `open spi device "/dev/spidev250.1"`,
		"250.1":            `open spi device "/dev/spidev250.1"`,
		"spi0":             "want /dev/spidevB.C",
		"0":                "want /dev/spidevB.C",
		"0.300":            "want /dev/spidevB.C",
	} {
		if _, err := Open(t.Context(), name, spi.Config{}, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q) = %v, want %q", name, err, want)
		}
	}
	if _, err := Open(t.Context(), "0.0", spi.Config{Mode: 4}, Options{}); err == nil || !strings.Contains(err.Error(), "mode 4") {
		t.Errorf("mode 4: %v", err)
	}
	p := &port{err: errors.New("bits not supported")}
	if _, err := newConn(t.Context(), "x", p, spi.Config{}, Options{}); !errors.Is(err, p.err) || p.closed != 1 {
		t.Errorf("Connect failed: %v, port closed %d times", err, p.closed)
	}
}
