package i2c_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2ctest"
)

func TestDev(t *testing.T) {
	bus := i2ctest.NewPlayback([]i2ctest.Op{
		{Addr: 0x18, W: []byte{0x06}, R: []byte{0x00, 0x54}},
		{Addr: 0x18, W: []byte{0x08}, R: []byte{0x03}},
		{Addr: 0x18, W: []byte{0x02, 0x07, 0xD8}},
		{Addr: 0x18, W: []byte{0x05}, Err: i2c.ErrNACK},
	})
	d := i2c.Dev{Bus: bus, Addr: 0x18}
	if v, err := d.ReadUint16(t.Context(), 0x06); v != 0x0054 || err != nil {
		t.Errorf("ReadUint16 = 0x%04x, %v", v, err)
	}
	if v, err := d.ReadUint8(t.Context(), 0x08); v != 3 || err != nil {
		t.Errorf("ReadUint8 = 0x%02x, %v", v, err)
	}
	if err := d.WriteUint16(t.Context(), 0x02, 0x07D8); err != nil {
		t.Error(err)
	}
	if _, err := d.ReadUint16(t.Context(), 0x05); !errors.Is(err, i2c.ErrNACK) || !strings.Contains(err.Error(), "read register 0x05") {
		t.Errorf("error %v", err)
	}
	if err := bus.Close(); err != nil {
		t.Error(err)
	}
	if d.String() != "playback 0x18" {
		t.Errorf("String = %q", d)
	}
}

func TestCheckTx(t *testing.T) {
	for _, addr := range []uint16{0x08, 0x77} {
		if err := i2c.CheckTx(addr, []byte{0}, nil); err != nil {
			t.Error(err)
		}
	}
	for _, addr := range []uint16{0, 0x07, 0x78, 0x3FF} {
		if err := i2c.CheckTx(addr, []byte{0}, nil); err == nil {
			t.Errorf("address 0x%02x was accepted", addr)
		}
	}
	if i2c.CheckTx(0x20, nil, nil) == nil || i2c.CheckTx(0x20, bytes.Repeat([]byte{1}, 8193), nil) == nil {
		t.Error("an impossible transaction was accepted")
	}
}
