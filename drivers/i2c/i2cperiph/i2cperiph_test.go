package i2cperiph

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	pi2c "periph.io/x/conn/v3/i2c"
	pi2ctest "periph.io/x/conn/v3/i2c/i2ctest"
	"periph.io/x/conn/v3/physic"

	"holdfast/drivers/i2c"
)

// There and back again: a periph.io bus, wrapped as ours, wrapped as periph.io's.
func TestRoundTrip(t *testing.T) {
	playback := &pi2ctest.Playback{DontPanic: true, Ops: []pi2ctest.IO{
		{Addr: 0x76, W: []byte{0xD0}, R: []byte{0x60}},
		{Addr: 0x18, W: []byte{1, 2, 3}},
	}}
	ours := FromPeriph(playback, Options{})
	theirs := ToPeriph(t.Context(), ours, time.Minute)
	r := make([]byte, 1)
	if err := theirs.Tx(0x76, []byte{0xD0}, r); err != nil || !bytes.Equal(r, []byte{0x60}) {
		t.Errorf("read = % x, %v", r, err)
	}
	if err := (&pi2c.Dev{Bus: theirs, Addr: 0x18}).Tx([]byte{1, 2, 3}, nil); err != nil {
		t.Errorf("write: %v", err)
	}
	if err := theirs.SetSpeed(physic.MegaHertz); err == nil {
		t.Error("SetSpeed was accepted")
	}
	if err := ours.Close(); err != nil {
		t.Errorf("close, which checks that all was played: %v", err)
	}
	if err := ours.Tx(t.Context(), 0x18, []byte{1}, nil); !errors.Is(err, i2c.ErrClosed) {
		t.Errorf("Tx after Close = %v, want ErrClosed", err)
	}
}

func TestErrorLeavesBufferAlone(t *testing.T) {
	ours := FromPeriph(&pi2ctest.Playback{DontPanic: true}, Options{})
	r := []byte{1, 2}
	if err := ours.Tx(t.Context(), 0x76, []byte{0}, r); err == nil {
		t.Error("Tx on an empty playback succeeded")
	}
	if !bytes.Equal(r, []byte{1, 2}) {
		t.Errorf("buffer changed to % x", r)
	}
}

// hung is a periph.io bus that does not return until released.
type hung struct {
	pi2ctest.Playback
	release chan struct{}
}

func (h *hung) Tx(addr uint16, w, r []byte) error {
	<-h.release
	for i := range r {
		r[i] = 0xEE
	}
	return nil
}

func TestHungBusDoesNotHangItsUser(t *testing.T) {
	h := &hung{release: make(chan struct{})}
	ours := FromPeriph(h, Options{Timeout: 20 * time.Millisecond})
	r := make([]byte, 4)
	if err := ours.Tx(t.Context(), 0x76, nil, r); !errors.Is(err, i2c.ErrTimeout) {
		t.Errorf("Tx = %v, want ErrTimeout", err)
	}
	if err := ours.Tx(t.Context(), 0x76, nil, r); !errors.Is(err, i2c.ErrStuck) {
		t.Errorf("Tx = %v, want ErrStuck", err)
	}
	if err := ours.Close(); !errors.Is(err, i2c.ErrStuck) {
		t.Errorf("Close = %v, want ErrStuck", err)
	}
	close(h.release)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ours.Close() != nil && ctx.Err() == nil {
	}
	if !bytes.Equal(r, make([]byte, 4)) {
		t.Errorf("the late answer was written to the caller's buffer: % x", r)
	}
}
