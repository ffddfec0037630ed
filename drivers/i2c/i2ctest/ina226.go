package i2ctest

import (
	"math"
	"sync"
	"time"
)

// INA226 emulates Texas Instruments' INA226 at register level, after the data
// sheet SBOS547: triggered and continuous conversions of shunt and bus voltage,
// averaging as far as it takes time, the calculation of current and power, the
// flags of the mask/enable register that do not need the alert pin.
type INA226 struct {
	mu         sync.Mutex
	elapsed    Stopwatch
	shunt, bus float64 // V
	maker, die uint16

	pointer byte
	reg     [8]uint16
	begun   bool // a conversion runs
	ends    time.Duration
}

// NewINA226 returns a chip without voltage at its inputs.
func NewINA226() *INA226 {
	c := &INA226{elapsed: realTime(), maker: 0x5449, die: 0x2260}
	c.powerUp()
	return c
}

// Set changes the voltages across the shunt and at the bus, in V.
func (c *INA226) Set(shunt, bus float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shunt, c.bus = shunt, bus
}

// SetIdentity changes the two identity registers.
func (c *INA226) SetIdentity(maker, die uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.maker, c.die = maker, die
}

// SetTime makes the chip time its conversions with s. It begins anew.
func (c *INA226) SetTime(s Stopwatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.elapsed = s
	c.powerUp()
}

// PowerCycle interrupts the supply.
func (c *INA226) PowerCycle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.powerUp()
}

func (c *INA226) powerUp() {
	c.pointer = 0
	c.reg = [8]uint16{0: 0x4127} // register set summary
	c.begin()
}

// begin starts a conversion as the Configuration Register says: the average of so
// many, of the shunt, the bus, or both.
func (c *INA226) begin() {
	config := c.reg[0]
	times := [8]int{1, 4, 16, 64, 128, 256, 512, 1024}[config>>9&7]
	us := func(n uint16) int { return [8]int{140, 204, 332, 588, 1100, 2116, 4156, 8244}[n&7] }
	sum := 0
	if config&1 != 0 {
		sum += us(config >> 3)
	}
	if config&2 != 0 {
		sum += us(config >> 6)
	}
	c.begun = sum > 0
	c.ends = c.elapsed() + time.Duration(times*sum)*time.Microsecond
}

// settle ends a conversion whose time has come.
func (c *INA226) settle() {
	if !c.begun || c.elapsed() < c.ends {
		return
	}
	clip := func(v, low, high float64) uint16 { return uint16(int32(math.Max(low, math.Min(high, math.Round(v))))) }
	config := c.reg[0]
	if config&1 != 0 {
		c.reg[1] = clip(c.shunt/2.5e-6, -32768, 32767)
	}
	if config&2 != 0 {
		c.reg[2] = clip(c.bus/1.25e-3, 0, 32767)
	}
	// Equations 3 and 4.
	current := int64(int16(c.reg[1])) * int64(c.reg[5]) / 2048
	power := current * int64(c.reg[2]) / 20000
	if power < 0 {
		power = -power
	}
	flags := uint16(1 << 3) // conversion ready
	if current > math.MaxInt16 || current < math.MinInt16 || power > math.MaxUint16 {
		flags |= 1 << 2 // overflow
	}
	c.reg[4], c.reg[3] = uint16(current), uint16(power)
	c.reg[6] = c.reg[6]&^(1<<2) | flags
	c.begun = config&4 != 0
	if c.begun {
		c.begin()
	}
}

// Write satisfies [Chip].
func (c *INA226) Write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	c.pointer = b[0]
	if len(b) == 1 {
		return nil
	}
	if len(b) != 3 {
		return errShortWrite(len(b))
	}
	v := uint16(b[1])<<8 | uint16(b[2])
	switch c.pointer {
	case 0:
		if v&0x8000 != 0 {
			c.powerUp()
			return nil
		}
		c.reg[0] = v&0x0FFF | 0x4000
		c.reg[6] &^= 1 << 3
		c.begin()
	case 5:
		c.reg[5] = v & 0x7FFF
	case 6:
		c.reg[6] = v&0xFC03 | c.reg[6]&0x001C
	case 7:
		c.reg[7] = v
	}
	return nil
}

// Read satisfies [Chip]. Reading the mask/enable register clears the flag of a
// conversion.
func (c *INA226) Read(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	var v uint16
	switch {
	case c.pointer < 8:
		v = c.reg[c.pointer]
	case c.pointer == 0xFE:
		v = c.maker
	case c.pointer == 0xFF:
		v = c.die
	}
	if c.pointer == 6 {
		c.reg[6] &^= 1 << 3
	}
	for i := range b {
		b[i] = byte(v >> (8 * (1 - i%2)))
	}
}

var _ Chip = (*INA226)(nil)
