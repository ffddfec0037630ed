package i2ctest

import (
	"math"
	"sync"
	"time"
)

// ADS1115 emulates Texas Instruments' ADS1115 at register level, after the data
// sheet SBAS444D: four inputs, multiplexer, gain, single conversions that take
// their time, continuous conversions, clipping. The comparator is not modelled.
type ADS1115 struct {
	mu      sync.Mutex
	elapsed Stopwatch
	volts   [4]float64

	pointer    byte
	conversion uint16
	config     uint16 // without the OS bit
	thresholds [2]uint16
	ready      time.Duration
	pending    bool
}

// NewADS1115 returns an ADS1115 with all inputs at 0 V.
func NewADS1115() *ADS1115 {
	c := &ADS1115{elapsed: realTime()}
	c.powerUp()
	return c
}

// Set puts a voltage, in V against ground, on an input, 0 to 3.
func (c *ADS1115) Set(input int, volts float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.volts[input] = volts
}

// SetTime makes the chip time its conversions with s. It begins anew.
func (c *ADS1115) SetTime(s Stopwatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.elapsed = s
	c.powerUp()
}

// PowerCycle interrupts the supply.
func (c *ADS1115) PowerCycle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.powerUp()
}

func (c *ADS1115) powerUp() {
	c.pointer, c.conversion, c.pending = 0, 0, false
	c.config = 0x0583 // table 8, without OS
	c.thresholds = [2]uint16{0x8000, 0x7FFF}
}

// Write satisfies [Chip]: the pointer, and the register's two bytes (9.5.3).
func (c *ADS1115) Write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	c.pointer = b[0] & 3
	if len(b) == 1 {
		return nil
	}
	if len(b) != 3 {
		return errShortWrite(len(b))
	}
	v := uint16(b[1])<<8 | uint16(b[2])
	switch c.pointer {
	case 1:
		c.config = v &^ 0x8000
		if v&0x8000 != 0 && v&0x0100 != 0 { // begin a single conversion
			c.pending = true
			c.ready = c.elapsed() + c.period()
		}
	case 2, 3:
		c.thresholds[c.pointer-2] = v
	}
	return nil
}

// Read satisfies [Chip]. A register longer read than it is repeats itself.
func (c *ADS1115) Read(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	var v uint16
	switch c.pointer {
	case 0:
		v = c.conversion
	case 1:
		v = c.config
		if !c.pending && v&0x0100 != 0 {
			v |= 0x8000 // no conversion is running
		}
	default:
		v = c.thresholds[c.pointer-2]
	}
	for i := range b {
		b[i] = byte(v >> (8 * (1 - i%2)))
	}
}

// settle ends a conversion whose time has come.
func (c *ADS1115) settle() {
	continuous := c.config&0x0100 == 0
	if continuous || c.pending && c.elapsed() >= c.ready {
		c.conversion = c.code()
		c.pending = false
	}
}

// period is the time of one conversion (table 8, DR).
func (c *ADS1115) period() time.Duration {
	perSecond := [8]time.Duration{8, 16, 32, 64, 128, 250, 475, 860}
	return time.Second / perSecond[c.config>>5&7]
}

// code returns the result for the present voltages (table 8, MUX and PGA; table
// 5).
func (c *ADS1115) code() uint16 {
	pairs := [8][2]int{{0, 1}, {0, 3}, {1, 3}, {2, 3}, {0, -1}, {1, -1}, {2, -1}, {3, -1}}
	pair := pairs[c.config>>12&7]
	v := c.volts[pair[0]]
	if pair[1] >= 0 {
		v -= c.volts[pair[1]]
	}
	scale := [8]float64{6.144, 4.096, 2.048, 1.024, 0.512, 0.256, 0.256, 0.256}[c.config>>9&7]
	code := math.Round(v / scale * 32768)
	return uint16(int16(math.Min(32767, math.Max(-32768, code))))
}

var _ Chip = (*ADS1115)(nil)
