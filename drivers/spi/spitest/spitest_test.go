package spitest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"holdfast/drivers/spi"
)

// echo answers with what is sent, inverted.
func echo() spi.Conn {
	return Func("spi-test", func(w, r []byte) error {
		for i := range r {
			r[i] = ^w[i]
		}
		return nil
	})
}

func TestRecorderAndPlayback(t *testing.T) {
	rec := NewRecorder(echo())
	use := func(c spi.Conn) []byte {
		r := make([]byte, 2)
		c.Tx(t.Context(), []byte{0x9F, 0}, r)
		c.Tx(t.Context(), []byte{6}, nil)
		return r
	}
	first := use(rec)
	ops, missed := rec.Ops()
	if len(ops) != 2 || missed != 0 || ops[0].String() != "w 9f 00 r 60 ff" {
		t.Fatalf("recorded %v", ops)
	}
	p := NewPlayback(ops)
	if second := use(p); !bytes.Equal(first, second) {
		t.Errorf("played % x, recorded % x", second, first)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	for name, wrong := range map[string]func(c spi.Conn){
		"left over":    func(spi.Conn) {},
		"other bytes":  func(c spi.Conn) { c.Tx(t.Context(), []byte{1}, nil) },
		"other length": func(c spi.Conn) { c.Tx(t.Context(), []byte{0x9F, 0}, make([]byte, 1)) },
		"too many":     func(c spi.Conn) { use(c); use(c) },
	} {
		p := NewPlayback(ops)
		wrong(p)
		if p.Close() == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

func TestFaults(t *testing.T) {
	for fault, want := range map[Fault]string{
		{}:                        "\xf0\x01",
		{Kind: Stuck, Byte: 0xFF}: "\xff\xff",
		{Kind: Shift}:             "\x78\x00",
		{Kind: Slow, Delay: 1}:    "\xf0\x01",
	} {
		f := NewFaulty(echo(), 1)
		f.Set(fault)
		r := make([]byte, 2)
		if err := f.Tx(t.Context(), []byte{0x0F, 0xFE}, r); err != nil || string(r) != want {
			t.Errorf("%v: % x, %v; want % x", fault.Kind, r, err, want)
		}
	}
	f := NewFaulty(echo(), 1)
	f.Set(Fault{Kind: Flip, Every: 3})
	wrong := 0
	for range 30 {
		r := make([]byte, 2)
		f.Tx(t.Context(), []byte{0x0F, 0xFE}, r)
		if string(r) != "\xf0\x01" {
			wrong++
		}
	}
	if total, injected := f.Counts(); wrong != 10 || total != 30 || injected != 10 {
		t.Errorf("flip: %d wrong, counts %d, %d", wrong, total, injected)
	}
	f.Set(Fault{Kind: Hang})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := f.Tx(ctx, []byte{1}, nil); !errors.Is(err, spi.ErrTimeout) {
		t.Errorf("hang: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Tx(t.Context(), []byte{1}, nil) }()
	for n := 0; n < 32; n, _ = f.Counts() {
		time.Sleep(time.Millisecond)
	}
	f.Clear()
	if err := <-done; err != nil {
		t.Errorf("after Clear: %v", err)
	}
}
