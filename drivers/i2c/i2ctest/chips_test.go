package i2ctest

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"
	"time"

	"holdfast/drivers/i2c"
)

// hand is a stopwatch that a test moves.
type hand struct{ now time.Duration }

func (h *hand) elapsed() time.Duration { return h.now }

func get16(t *testing.T, c Chip, reg byte) uint16 {
	t.Helper()
	if err := c.Write([]byte{reg}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2)
	c.Read(b)
	return binary.BigEndian.Uint16(b)
}

// The worked example of BST-BMP280-DS001-19, 3.12, the other way round: 25.08 Cel
// and 100653.27 Pa are the raw values 519888 and 415148, within what the rounding
// of the example leaves open.
func TestBME280Example(t *testing.T) {
	h := &hand{}
	c := NewBME280(TypicalBME280())
	c.SetTime(h.elapsed)
	c.Set(25.0825, 100653.27, 50)
	c.Write([]byte{0xF2, 1, 0xF4, 5<<5 | 5<<2 | 1})
	h.now += 200 * time.Millisecond
	c.Write([]byte{0xF7})
	var b [8]byte
	c.Read(b[:])
	p := int(b[0])<<12 | int(b[1])<<4 | int(b[2])>>4
	temp := int(b[3])<<12 | int(b[4])<<4 | int(b[5])>>4
	if math.Abs(float64(temp-519888)) > 10 || math.Abs(float64(p-415148)) > 10 {
		t.Errorf("raw %d, %d, want 519888, 415148", temp, p)
	}
}

func TestBME280Life(t *testing.T) {
	h := &hand{}
	c := NewBME280(TypicalBME280())
	c.SetTime(h.elapsed)
	status := func() byte {
		c.Write([]byte{0xF3})
		b := make([]byte, 2)
		c.Read(b)
		return b[0]
	}
	if status() != 0x01 {
		t.Error("trimming data is not being copied after power-on")
	}
	h.now += 3 * time.Millisecond
	if status() != 0 {
		t.Error("trimming data is still being copied after 3 ms")
	}
	c.Write([]byte{0xF2, 1}) // takes effect with ctrl_meas
	c.Write([]byte{0xF4, 1<<5 | 1<<2 | 1})
	h.now += 7 * time.Millisecond
	if status() != 0x08 {
		t.Error("not measuring after 7 of 8 ms")
	}
	h.now += 2 * time.Millisecond
	if status() != 0 {
		t.Error("still measuring after 9 ms")
	}
	c.Write([]byte{0xF4})
	b := make([]byte, 1)
	c.Read(b)
	if b[0] != 1<<5|1<<2 {
		t.Errorf("ctrl_meas 0x%02x after a forced measurement, want sleep mode", b[0])
	}
	if v := get16(t, c, 0xFD); v == 0x8000 {
		t.Error("humidity was skipped")
	}
	c.Write([]byte{0xE0, 0xB6})
	if v := get16(t, c, 0xFD); v != 0x8000 {
		t.Errorf("humidity reads 0x%04x after reset", v)
	}
}

func TestADS1115(t *testing.T) {
	h := &hand{}
	c := NewADS1115()
	c.SetTime(h.elapsed)
	if v := get16(t, c, 1); v != 0x8583 {
		t.Errorf("configuration 0x%04x after power-on, want 0x8583 (table 8)", v)
	}
	c.Set(0, 3)
	c.Set(1, 1)
	tests := []struct {
		config uint16
		want   uint16
	}{
		{0x8583, 0x7D00},              // a0-a1 at 2.048 V: 2/2.048*32768 = 32000
		{0x8983, 0x7FFF},              // a0-a1 at 0.512 V: clips
		{0x8383, 0x3E80},              // a0-a1 at 4.096 V: 2/4.096*32768 = 16000
		{0xC183, 0x3E80},              // a0 at 6.144 V: 3/6.144*32768 = 16000
		{0xF583, 0x0000},              // a3
		{0xD383, 0x1F40},              // a1 at 4.096 V: 8000
		{0xA383, 0x1F40},              // a1-a3
		{0x8383 &^ 0x8000, 0x1F40},    // not begun: the old result
		{0x8383 &^ 0x8100, 0x3E80},    // continuous
		{0x8383 | 3<<12 | 1<<12, 0x0}, // a2-a3
	}
	for _, tt := range tests {
		c.Write([]byte{1, byte(tt.config >> 8), byte(tt.config)})
		if tt.config&0x8100 == 0x8100 && get16(t, c, 1)&0x8000 != 0 {
			t.Errorf("0x%04x: ready at once", tt.config)
		}
		h.now += 8 * time.Millisecond
		if got := get16(t, c, 0); got != tt.want {
			t.Errorf("0x%04x: 0x%04x, want 0x%04x", tt.config, got, tt.want)
		}
	}
}

func TestMCP9808(t *testing.T) {
	h := &hand{}
	c := NewMCP9808()
	c.SetTime(h.elapsed)
	if m, d := get16(t, c, 6), get16(t, c, 7); m != 0x0054 || d != 0x0400 {
		t.Errorf("identity 0x%04x 0x%04x", m, d)
	}
	c.Set(25.25)
	if v := get16(t, c, 5) & 0x1FFF; v != 0 {
		t.Errorf("0x%04x before the first conversion, want 0 (table 5-3)", v)
	}
	h.now += 251 * time.Millisecond
	// The limits are all 0 after power-on: above the upper, at or above the
	// critical one. 0x0194 is figure 5-5.
	if v := get16(t, c, 5); v != 0xC194 {
		t.Errorf("25.25 Cel = 0x%04x, want 0xC194", v)
	}
	c.Set(-10)
	if v := get16(t, c, 5); v != 0x3F60 {
		t.Errorf("-10 Cel = 0x%04x, want 0x3F60", v)
	}
	c.Write([]byte{1, 0x01, 0x00}) // shut down
	c.Set(30)
	if v := get16(t, c, 5); v != 0x3F60 {
		t.Errorf("0x%04x while shut down, want the last result", v)
	}
	if err := c.Write([]byte{2, 0}); !errors.Is(err, i2c.ErrNACK) {
		t.Errorf("half a register: %v", err)
	}
}

// LM75B Rev. 6.1 table 10, SBOS397 table 5, and the first nine bits of them.
func TestLM75(t *testing.T) {
	for _, tt := range []struct {
		c       *LM75
		celsius float64
		want    uint16
	}{
		{NewLM75(), 125, 0x0FA << 7}, {NewLM75(), -0.5, 0x1FF << 7}, {NewLM75(), -55, 0x192 << 7},
		{NewLM75B(), 126.875, 0x3F7 << 5}, {NewLM75B(), -25, 0x738 << 5}, {NewLM75B(), -0.125, 0x7FF << 5},
		{NewTMP102(), 100, 0x640 << 4}, {NewTMP102(), 130, 0x7FF << 4}, {NewTMP102(), -0.25, 0xFFC << 4}, {NewTMP102(), -55, 0xC90 << 4},
	} {
		h := &hand{}
		tt.c.SetTime(h.elapsed)
		tt.c.Set(tt.celsius)
		if v := get16(t, tt.c, 0); v != 0 {
			t.Errorf("0x%04x before the first conversion", v)
		}
		h.now += time.Second
		if v := get16(t, tt.c, 0); v != tt.want {
			t.Errorf("%g Cel = 0x%04x, want 0x%04x", tt.celsius, v, tt.want)
		}
		if low, high := get16(t, tt.c, 2), get16(t, tt.c, 3); low != 0x4B00 || high != 0x5000 {
			t.Errorf("limits 0x%04x, 0x%04x, want 75 and 80 Cel", low, high)
		}
	}
	c := NewTMP102()
	if v := get16(t, c, 1); v != 0x60A0 {
		t.Errorf("TMP102 configuration 0x%04x after power-on, want 0x60A0", v)
	}
	c.Write([]byte{1, 0x9F, 0xFF})
	if v := get16(t, c, 1); v != 0x7FF0 {
		t.Errorf("TMP102 configuration 0x%04x, want what can be written and no more", v)
	}
}

func TestRegisters(t *testing.T) {
	var c Registers
	ops := []Op{{Addr: 1, W: []byte{0x10}, R: []byte{1, 2, 3}}, {Addr: 1, W: []byte{0x20, 9}}, {Addr: 1, W: []byte{0xFF}, R: []byte{7, 8}}}
	if err := c.StoreOps(ops); err != nil {
		t.Fatal(err)
	}
	if v := get16(t, &c, 0x11); v != 0x0203 {
		t.Errorf("0x%04x, want 0x0203", v)
	}
	if v := get16(t, &c, 0xFF); v != 0x0708 {
		t.Errorf("0x%04x, want the wrap to register 0", v)
	}
	c.Write([]byte{0x10, 5, 0x11, 6})
	if v := get16(t, &c, 0x10); v != 0x0506 {
		t.Errorf("0x%04x after a write of pairs", v)
	}
	if err := c.StoreOps([]Op{{Addr: 1, R: []byte{1}}}); err == nil {
		t.Error("a read without a register was accepted")
	}
}
