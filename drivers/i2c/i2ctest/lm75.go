package i2ctest

import (
	"math"
	"sync"
	"time"
)

// LM75 emulates the LM75, the LM75B and the TMP102 at register level, after the
// data sheets SNOS808P, LM75B Rev. 6.1 and SBOS397: temperature, configuration,
// two limits. The thermostat output is not modelled.
type LM75 struct {
	mu      sync.Mutex
	elapsed Stopwatch
	celsius float64
	kind    lm75Kind

	pointer byte
	temp    uint16
	config  uint16
	limits  [2]uint16 // hysteresis or low, overtemperature or high
	next    time.Duration
}

type lm75Kind struct {
	bits       int // of the temperature
	wide       bool
	conversion time.Duration
}

// NewLM75 returns the original, with 9 bits of temperature, at 20 Cel. Its
// temperature reads 0 for up to 300 ms after power-on (typical conversion time
// 100 ms).
func NewLM75() *LM75 { return newLM75(lm75Kind{bits: 9, conversion: 100 * time.Millisecond}) }

// NewLM75B returns NXP's successor, with 11 bits.
func NewLM75B() *LM75 { return newLM75(lm75Kind{bits: 11, conversion: 100 * time.Millisecond}) }

// NewTMP102 returns Texas Instruments' TMP102, with 12 bits and a wider
// configuration register.
func NewTMP102() *LM75 {
	return newLM75(lm75Kind{bits: 12, wide: true, conversion: 26 * time.Millisecond})
}

func newLM75(k lm75Kind) *LM75 {
	c := &LM75{elapsed: realTime(), celsius: 20, kind: k}
	c.powerUp()
	return c
}

// Set changes the temperature, in Cel.
func (c *LM75) Set(celsius float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.celsius = celsius
}

// SetTime makes the chip time its conversions with s. It begins anew.
func (c *LM75) SetTime(s Stopwatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.elapsed = s
	c.powerUp()
}

// PowerCycle interrupts the supply.
func (c *LM75) PowerCycle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.powerUp()
}

func (c *LM75) powerUp() {
	c.pointer, c.temp = 0, 0
	c.limits = [2]uint16{75 << 8, 80 << 8}
	c.config = 0
	if c.kind.wide {
		c.config = 0x60A0 // SBOS397, table 7: 12 bit, 4 Hz, alert inactive
	}
	c.next = c.elapsed() + c.kind.conversion
}

// Write satisfies [Chip].
func (c *LM75) Write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	c.pointer = b[0] & 3
	if len(b) == 1 {
		return nil
	}
	if c.pointer == 1 {
		return c.configure(b[1:])
	}
	if len(b) != 3 {
		return errShortWrite(len(b))
	}
	if c.pointer >= 2 {
		c.limits[c.pointer-2] = (uint16(b[1])<<8 | uint16(b[2])) & c.mask(c.limitBits())
	}
	return nil
}

func (c *LM75) configure(b []byte) error {
	switch {
	case c.kind.wide && len(b) <= 2:
		// OS reads as written 0 in continuous mode; R1 R0 and AL are read-only.
		c.config = c.config&0x6020 | uint16(b[0])<<8&0x1F00 | c.config&0x00D0
		if len(b) == 2 {
			c.config = c.config&0xFF20 | uint16(b[1])&0xD0
		}
	case !c.kind.wide && len(b) == 1:
		c.config = uint16(b[0]&0x1F) << 8
	default:
		return errShortWrite(1 + len(b))
	}
	return nil
}

// Read satisfies [Chip].
func (c *LM75) Read(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	var v uint16
	switch c.pointer {
	case 0:
		v = c.temp
	case 1:
		v = c.config
		if !c.kind.wide { // one byte, repeated
			v |= v >> 8
		}
	default:
		v = c.limits[c.pointer-2]
	}
	for i := range b {
		b[i] = byte(v >> (8 * (1 - i%2)))
	}
}

// settle converts when it is time.
func (c *LM75) settle() {
	now := c.elapsed()
	if c.config&0x0100 != 0 || now < c.next { // shut down, or not yet
		return
	}
	steps := math.Pow(2, float64(c.kind.bits-8)) // per Cel
	code := math.Round(c.celsius * steps)
	limit := math.Pow(2, float64(c.kind.bits-1))
	code = math.Min(limit-1, math.Max(-limit, code))
	c.temp = uint16(int16(code)) << (16 - c.kind.bits)
	c.next = now
}

func (c *LM75) limitBits() int {
	if c.kind.wide {
		return c.kind.bits
	}
	return 9
}

func (c *LM75) mask(bits int) uint16 { return 0xFFFF << (16 - bits) }

var _ Chip = (*LM75)(nil)
