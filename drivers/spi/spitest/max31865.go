package spitest

import (
	"fmt"
	"sync"
	"time"
)

// MAX31865 emulates Maxim's MAX31865 at register level, after the data sheet
// 19-6478 Rev 3: single conversions and the automatic fault detection cycle with
// the time they take, bias, thresholds, the faults of a broken or shorted sensor.
// Automatic conversion is not modelled.
type MAX31865 struct {
	mu        sync.Mutex
	elapsed   func() time.Duration
	ratio     float64 // of the sensor's resistance to the reference
	broken    byte    // faults that a detection cycle finds
	reference float64

	register   [8]byte
	biased     time.Duration // since when
	converted  time.Duration // when the running conversion ends; 0 = none runs
	detected   time.Duration // when the running detection cycle ends; 0 = none runs
	sawNothing bool          // the conversion began before the bias had settled
}

// Registers (table 1) and the bits of the configuration (table 2).
const (
	maxConfig, maxRTD, maxHigh, maxLow, maxFault = 0, 1, 3, 5, 7

	maxBias, maxAuto, maxOnce, maxCycle, maxClear, maxMains = 0x80, 0x40, 0x20, 0x0C, 0x02, 0x01
)

// NewMAX31865 returns a chip with a reference resistor, in Ohm, and a sensor of
// the same resistance in four wires.
func NewMAX31865(reference float64) *MAX31865 {
	start := time.Now()
	c := &MAX31865{elapsed: func() time.Duration { return time.Since(start) }, reference: reference, ratio: 1}
	c.powerUp()
	return c
}

// Set changes the sensor's resistance, in Ohm.
func (c *MAX31865) Set(ohms float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ratio = ohms / c.reference
}

// SetCode makes the next conversions give a 15-bit code.
func (c *MAX31865) SetCode(code uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ratio = (float64(code) + 0.5) / 32768
}

// Break makes detection cycles find these bits of the fault status (table 7):
// 0x20, 0x10, 0x08 for broken wires, 0x04 for a voltage beyond the limits.
func (c *MAX31865) Break(faults byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = faults
}

// SetTime makes the chip time its conversions with s. It begins anew.
func (c *MAX31865) SetTime(s func() time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.elapsed = s
	c.powerUp()
}

// PowerCycle interrupts the supply.
func (c *MAX31865) PowerCycle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.powerUp()
}

func (c *MAX31865) powerUp() {
	c.register = [8]byte{maxHigh: 0xFF, maxHigh + 1: 0xFF} // table 1
	c.converted, c.detected = 0, 0
}

// Transfer answers one transfer: an address, whose highest bit says that it is
// written to, and the bytes of consecutive registers.
func (c *MAX31865) Transfer(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(w) < 2 || len(r) != 0 && len(r) != len(w) {
		return fmt.Errorf("transfer of %d and %d bytes", len(w), len(r))
	}
	c.settle()
	reg := int(w[0] & 0x7F)
	for i := 1; i < len(w); i++ {
		at := reg + i - 1
		switch {
		case w[0]&0x80 != 0:
			c.write(at, w[i])
		case len(r) > 0 && at < len(c.register):
			r[i] = c.register[at]
		case len(r) > 0:
			r[i] = 0
		}
	}
	if len(r) > 0 {
		r[0] = 0
	}
	return nil
}

func (c *MAX31865) write(reg int, v byte) {
	if reg >= maxHigh && reg < maxFault {
		c.register[reg] = v
		return
	}
	if reg != maxConfig {
		return // read only
	}
	now := c.elapsed()
	if v&maxClear != 0 && v&(maxOnce|maxCycle) == 0 {
		c.register[maxFault] = 0
	}
	if v&maxBias != 0 && c.register[maxConfig]&maxBias == 0 {
		c.biased = now
	}
	c.register[maxConfig] = v &^ maxClear
	if v&maxCycle == 0x04 && v&maxBias != 0 { // automatic cycle
		c.detected = now + 600*time.Microsecond
	}
	if v&maxOnce != 0 && v&maxAuto == 0 {
		// The bias needs 10.5 time constants of the input and 1 ms.
		c.sawNothing = v&maxBias == 0 || now-c.biased < 2*time.Millisecond
		c.converted = now + 52*time.Millisecond
		if v&maxMains != 0 {
			c.converted = now + 62500*time.Microsecond
		}
	}
}

// settle ends what has run long enough.
func (c *MAX31865) settle() {
	now := c.elapsed()
	if c.detected != 0 && now >= c.detected {
		c.detected = 0
		c.register[maxConfig] &^= maxCycle
		c.register[maxFault] |= c.broken
	}
	if c.converted == 0 || now < c.converted {
		return
	}
	c.converted = 0
	c.register[maxConfig] &^= maxOnce
	code := int(c.ratio * 32768)
	if c.sawNothing {
		code = 0
	}
	code = max(0, min(32767, code))
	high := int(c.register[maxHigh])<<8 | int(c.register[maxHigh+1])
	low := int(c.register[maxLow])<<8 | int(c.register[maxLow+1])
	if code > high>>1 || high>>1 == 32767 && code == 32767 {
		c.register[maxFault] |= 0x80
	}
	if code < low>>1 {
		c.register[maxFault] |= 0x40
	}
	c.register[maxRTD], c.register[maxRTD+1] = byte(code>>7), byte(code<<1)
	if c.register[maxFault] != 0 {
		c.register[maxRTD+1] |= 1
	}
}
