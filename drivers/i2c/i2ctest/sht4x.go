package i2ctest

import (
	"math"
	"sync"
	"time"
)

// SHT4x emulates Sensirion's SHT40, SHT41 and SHT45, after the data sheet of
// version 6 (March 2023): measurements of three precisions, serial number, soft
// reset. The heater is not modelled. A read that the chip would not acknowledge,
// because it is still measuring, returns the idle level.
type SHT4x struct {
	mu       sync.Mutex
	elapsed  Stopwatch
	celsius  float64
	humidity float64
	serial   uint32

	answer []byte // waits to be read
	ready  time.Duration
}

// NewSHT4x returns a chip at 20 Cel and 50 %.
func NewSHT4x() *SHT4x {
	return &SHT4x{elapsed: realTime(), celsius: 20, humidity: 50, serial: 0x0F0E2D4C}
}

// Set changes temperature and relative humidity, in Cel and %.
func (c *SHT4x) Set(celsius, humidity float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.celsius, c.humidity = celsius, humidity
}

// SetTime makes the chip time its measurements with s. It begins anew.
func (c *SHT4x) SetTime(s Stopwatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.elapsed, c.answer = s, nil
}

// PowerCycle interrupts the supply.
func (c *SHT4x) PowerCycle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = nil
}

// Write satisfies [Chip]: one byte, a command (4.5).
func (c *SHT4x) Write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(b) != 1 {
		return errShortWrite(len(b))
	}
	now := c.elapsed()
	switch b[0] {
	case 0xFD: // typical measurement durations
		c.measure(now + 6900*time.Microsecond)
	case 0xF6:
		c.measure(now + 3700*time.Microsecond)
	case 0xE0:
		c.measure(now + 1300*time.Microsecond)
	case 0x89:
		c.answer = append(c.word(uint16(c.serial>>16)), c.word(uint16(c.serial))...)
		c.ready = now
	case 0x94:
		c.answer = nil
	default:
		c.answer = nil // unknown ones are not answered
	}
	return nil
}

func (c *SHT4x) measure(ready time.Duration) {
	code := func(part float64) uint16 { return uint16(math.Round(math.Min(1, math.Max(0, part)) * 65535)) }
	c.answer = append(c.word(code((c.celsius+45)/175)), c.word(code((c.humidity+6)/125))...) // 4.6
	c.ready = ready
}

// word is a number as it is sent: high byte, low byte, checksum.
func (c *SHT4x) word(v uint16) []byte {
	// The checksum by long division of the 24 bits, with the first eight inverted,
	// as the polynomial 0x131 and the start value 0xFF say (4.4).
	bits := uint32(v^0xFF00) << 8
	for i := 23; i >= 8; i-- {
		if bits>>i&1 == 1 {
			bits ^= 0x131 << (i - 8)
		}
	}
	return []byte{byte(v >> 8), byte(v), byte(bits)}
}

// Read satisfies [Chip]. What was read is gone.
func (c *SHT4x) Read(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range b {
		b[i] = 0xFF
	}
	if c.answer != nil && c.elapsed() >= c.ready {
		copy(b, c.answer)
		c.answer = nil
	}
}

var _ Chip = (*SHT4x)(nil)
