package i2ctest

import (
	"math"
	"sync"
	"time"
)

// MCP9808 emulates Microchip's MCP9808 at register level, after the data sheet
// DS25095A: temperature with the flags of its three limits, resolution,
// shutdown, conversion time. Locks and the alert output are not modelled.
type MCP9808 struct {
	mu      sync.Mutex
	elapsed Stopwatch
	celsius float64

	pointer byte
	reg     [9]uint16 // as numbered in register 5-1
	ta      int       // sixteenths of 1 Cel, converted last
	next    time.Duration
}

// NewMCP9808 returns an MCP9808 at 20 Cel.
func NewMCP9808() *MCP9808 {
	c := &MCP9808{elapsed: realTime(), celsius: 20}
	c.powerUp()
	return c
}

// Set changes the temperature, in Cel.
func (c *MCP9808) Set(celsius float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.celsius = celsius
}

// SetTime makes the chip time its conversions with s. It begins anew.
func (c *MCP9808) SetTime(s Stopwatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.elapsed = s
	c.powerUp()
}

// SetRegister writes any register, the identity included, until the supply is
// interrupted. That of the temperature is computed and cannot be set.
func (c *MCP9808) SetRegister(reg byte, v uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reg[reg] = v
}

// PowerCycle interrupts the supply. The temperature reads 0 until the first
// conversion has ended.
func (c *MCP9808) PowerCycle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.powerUp()
}

func (c *MCP9808) powerUp() {
	c.pointer, c.ta = 0, 0
	// Manufacturer, device and revision, resolution 0.0625 (table 5-3).
	c.reg = [9]uint16{0, 0, 0, 0, 0, 0, 0x0054, 0x0400, 0x03}
	c.next = c.elapsed() + c.period()
}

// Write satisfies [Chip].
func (c *MCP9808) Write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	c.pointer = b[0] & 0x0F
	size := 2
	if c.pointer == 8 {
		size = 1
	}
	switch {
	case len(b) == 1:
		return nil
	case len(b) != 1+size || c.pointer > 8:
		return errShortWrite(len(b))
	}
	switch p := c.pointer; p {
	case 1:
		c.reg[p] = (uint16(b[1])<<8 | uint16(b[2])) & 0x07FF
	case 2, 3, 4: // limits have no bits below 0.25 (5.1.2)
		c.reg[p] = (uint16(b[1])<<8 | uint16(b[2])) & 0x1FFC
	case 8:
		c.reg[p] = uint16(b[1]) & 3
		c.next = c.elapsed() + c.period()
	}
	return nil
}

// Read satisfies [Chip].
func (c *MCP9808) Read(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	var v uint16
	switch {
	case c.pointer == 5:
		v = c.temperature()
	case c.pointer == 8:
		v = c.reg[8] << 8
	case c.pointer < 9:
		v = c.reg[c.pointer]
	}
	for i := range b {
		b[i] = byte(v >> (8 * (1 - i%2)))
	}
}

// settle converts when it is time.
func (c *MCP9808) settle() {
	now := c.elapsed()
	if c.reg[1]&0x0100 != 0 || now < c.next { // shut down, or not yet
		return
	}
	step := float64(int(8) >> c.reg[8]) // sixteenths per unit: 8, 4, 2, 1
	code := math.Round(c.celsius*16/step) * step
	c.ta = int(math.Min(4095, math.Max(-4096, code)))
	c.next = now
}

// period is the typical conversion time (table 5-2).
func (c *MCP9808) period() time.Duration {
	return [4]time.Duration{30, 65, 130, 250}[c.reg[8]&3] * time.Millisecond
}

// temperature returns register T_A (register 5-4).
func (c *MCP9808) temperature() uint16 {
	limit := func(reg int) int { return int(int16(c.reg[reg]<<3)) >> 3 }
	v := uint16(c.ta) & 0x1FFF
	if c.ta >= limit(4) {
		v |= 0x8000
	}
	if c.ta > limit(2) {
		v |= 0x4000
	}
	if c.ta < limit(3) {
		v |= 0x2000
	}
	return v
}

var _ Chip = (*MCP9808)(nil)
