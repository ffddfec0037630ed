package i2ctest

import (
	"sync"
)

// MCP23017 emulates Microchip's MCP23017 at register level, after the data sheet
// DS20001952C: both register layouts, sequential access, directions, polarity,
// pull-ups and latches. Interrupts are not modelled; their registers hold what is
// written.
type MCP23017 struct {
	mu       sync.Mutex
	outside  uint16 // what drives the pins from outside, where something does
	driven   uint16 // pins that something drives
	pointer  byte
	register [22]byte // as numbered with BANK = 0 (table 3-1)
}

// Registers as numbered with BANK = 0; each pair is port A and port B.
const (
	mcpDirection = 0x00
	mcpPolarity  = 0x02
	mcpIOCON     = 0x0A
	mcpPullUp    = 0x0C
	mcpFlags     = 0x0E // what interrupted, and the pins at that time: read only
	mcpPort      = 0x12
	mcpLatch     = 0x14
)

// NewMCP23017 returns a chip whose pins nothing drives: they read low but for
// pull-ups.
func NewMCP23017() *MCP23017 {
	c := &MCP23017{}
	c.powerUp()
	return c
}

// Drive puts a level on a pin from outside: 0 to 7 are A0 to A7, 8 to 15 B0 to
// B7.
func (c *MCP23017) Drive(pin int, high bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.driven |= 1 << pin
	c.outside &^= 1 << pin
	if high {
		c.outside |= 1 << pin
	}
}

// Release lets go of a pin.
func (c *MCP23017) Release(pin int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.driven &^= 1 << pin
}

// At returns the level at a pin.
func (c *MCP23017) At(pin int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pins()>>pin&1 == 1
}

// SetTime satisfies the models' interface; the chip has no time of its own.
func (c *MCP23017) SetTime(Stopwatch) { c.PowerCycle() }

// PowerCycle interrupts the supply: all pins are inputs.
func (c *MCP23017) PowerCycle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.powerUp()
}

func (c *MCP23017) powerUp() {
	c.pointer = 0
	c.register = [22]byte{0: 0xFF, 1: 0xFF}
}

func (c *MCP23017) pair(reg int) uint16 {
	return uint16(c.register[reg]) | uint16(c.register[reg+1])<<8
}

// pins returns the levels at the pins.
func (c *MCP23017) pins() uint16 {
	in := c.pair(mcpDirection)
	free := in &^ c.driven
	return c.pair(mcpLatch)&^in | c.outside&in&c.driven | c.pair(mcpPullUp)&free
}

// place returns the register of an address in the present layout (table 3-1 and
// 3.2.1), -1 if there is none.
func (c *MCP23017) place(addr byte) int {
	if c.register[mcpIOCON]&0x80 == 0 {
		if int(addr) < len(c.register) {
			return int(addr)
		}
		return -1
	}
	if addr&0x0F > 0x0A || addr > 0x1A {
		return -1
	}
	return int(addr&0x0F)*2 + int(addr>>4)
}

// step moves the pointer on, unless sequential access is off (SEQOP).
func (c *MCP23017) step() {
	if c.register[mcpIOCON]&0x20 != 0 {
		return
	}
	c.pointer++
	if c.register[mcpIOCON]&0x80 == 0 {
		c.pointer %= byte(len(c.register))
	}
}

// Write satisfies [Chip].
func (c *MCP23017) Write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pointer = b[0]
	for _, v := range b[1:] {
		at := c.place(c.pointer)
		switch {
		case at < 0 || at >= mcpFlags && at < mcpPort:
		case at&^1 == mcpIOCON: // one register at two addresses
			c.register[mcpIOCON], c.register[mcpIOCON+1] = v&^1, v&^1
		case at&^1 == mcpPort: // writing the port writes the latch (3.5.10)
			c.register[at+2] = v
		default:
			c.register[at] = v
		}
		c.step()
	}
	return nil
}

// Read satisfies [Chip].
func (c *MCP23017) Read(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range b {
		at := c.place(c.pointer)
		switch {
		case at < 0:
			b[i] = 0
		case at&^1 == mcpPort:
			b[i] = byte((c.pins() ^ c.pair(mcpPolarity)) >> (8 * (at & 1)))
		default:
			b[i] = c.register[at]
		}
		c.step()
	}
}

var _ Chip = (*MCP23017)(nil)
