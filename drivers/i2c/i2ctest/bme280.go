package i2ctest

import (
	"fmt"
	"math"
	"sync"
	"time"

	"holdfast/drivers/i2c"
)

// BME280Trim is the trimming data that a BME280 carries from the factory, as
// named in its data sheet (BST-BME280-DS001-10, table 16).
type BME280Trim struct {
	T1                             uint16
	T2, T3                         int16
	P1                             uint16
	P2, P3, P4, P5, P6, P7, P8, P9 int16
	H1                             uint8
	H2                             int16
	H3                             uint8
	H4, H5                         int16 // 12 bit
	H6                             int8
}

// TypicalBME280 returns trimming data: temperature and pressure from the worked
// example of the BMP280 data sheet (BST-BMP280-DS001-19, 3.12), humidity of the
// usual size.
func TypicalBME280() BME280Trim {
	return BME280Trim{
		T1: 27504, T2: 26435, T3: -1000,
		P1: 36477, P2: -10685, P3: 3024, P4: 2855, P5: 140, P6: -7, P7: 15500, P8: -14600, P9: 6000,
		H1: 75, H2: 366, H3: 0, H4: 309, H5: 50, H6: 30,
	}
}

// BME280 emulates Bosch's BME280 (temperature, pressure, humidity) and BMP280
// (the first two) at register level, after the data sheets BST-BME280-DS001-10
// and BST-BMP280-DS001-19. It measures what [BME280.Set] said, in forced or
// normal mode, with the resolution of the chosen oversampling and taking the
// typical time. Its filter is not modelled.
//
// The raw values are found by bisecting the data sheet's floating-point
// compensation, so that a driver that uses the integer one is checked against
// something else than itself.
type BME280 struct {
	mu      sync.Mutex
	elapsed Stopwatch
	trim    BME280Trim
	id      byte
	t, p, h float64

	reg     [256]byte
	pointer byte
	ctrlHum byte          // in force since the last write to ctrl_meas
	ready   time.Duration // when the running measurement ends
	booted  time.Duration // when the copying of trimming data ends
}

// The registers (BST-BME280-DS001-10, table 18).
const (
	bmeID       = 0xD0
	bmeReset    = 0xE0
	bmeCtrlHum  = 0xF2
	bmeStatus   = 0xF3
	bmeCtrlMeas = 0xF4
	bmeConfig   = 0xF5
	bmePress    = 0xF7
	bmeTemp     = 0xFA
	bmeHum      = 0xFD
)

// NewBME280 returns a BME280 in a room of 20 Cel, 101325 Pa and 50 %.
func NewBME280(trim BME280Trim) *BME280 { return newBosch(trim, 0x60) }

// NewBMP280 returns a BMP280, which has no humidity.
func NewBMP280(trim BME280Trim) *BME280 { return newBosch(trim, 0x58) }

func newBosch(trim BME280Trim, id byte) *BME280 {
	c := &BME280{elapsed: realTime(), trim: trim, id: id, t: 20, p: 101325, h: 50}
	c.powerUp()
	return c
}

// Set changes the surroundings: temperature in Cel, pressure in Pa, relative
// humidity in %.
func (c *BME280) Set(celsius, pascal, percent float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t, c.p, c.h = celsius, pascal, percent
}

// SetTime makes the chip time its conversions with s. It begins anew.
func (c *BME280) SetTime(s Stopwatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.elapsed = s
	c.powerUp()
}

// SetID changes what the chip says it is.
func (c *BME280) SetID(id byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reg[bmeID], c.id = id, id
}

// PowerCycle interrupts the supply: every setting is lost.
func (c *BME280) PowerCycle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.powerUp()
}

// SetRegister writes any register, read-only ones and trimming data included,
// until the next reset.
func (c *BME280) SetRegister(reg, value byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reg[reg] = value
}

// Write satisfies [Chip]: pairs of register and value, the register of the last
// one alone to set the pointer (6.2.1, 6.2.2).
func (c *BME280) Write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	for ; len(b) >= 2; b = b[2:] {
		c.write(b[0], b[1])
	}
	if len(b) == 1 {
		c.pointer = b[0]
	}
	return nil
}

// Read satisfies [Chip]. The register moves on with each byte.
func (c *BME280) Read(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	for i := range b {
		b[i] = c.reg[c.pointer]
		c.pointer++
	}
}

func (c *BME280) write(reg, v byte) {
	switch reg {
	case bmeReset:
		if v == 0xB6 {
			c.powerUp()
		}
	case bmeCtrlHum:
		if c.id == 0x60 {
			c.reg[bmeCtrlHum] = v & 0x07
		}
	case bmeConfig:
		c.reg[bmeConfig] = v &^ 0x02
	case bmeCtrlMeas:
		// Changes to ctrl_hum only become effective after a write to ctrl_meas
		// (5.4.3).
		c.ctrlHum = c.reg[bmeCtrlHum]
		c.reg[bmeCtrlMeas] = v
		if v&3 != 0 {
			c.ready = c.elapsed() + c.measureTime()
		}
	}
}

// powerUp is the state after power-on and soft reset (5.3).
func (c *BME280) powerUp() {
	c.reg = [256]byte{}
	c.reg[bmeID] = c.id
	c.storeTrim()
	c.result(bmePress, 3, 0x80000<<4)
	c.result(bmeTemp, 3, 0x80000<<4)
	if c.id == 0x60 {
		c.result(bmeHum, 2, 0x8000)
	}
	c.pointer, c.ctrlHum, c.ready = 0, 0, 0
	c.booted = c.elapsed() + 2*time.Millisecond // t_startup, table 1
}

// settle brings the registers to the present time.
func (c *BME280) settle() {
	now := c.elapsed()
	c.reg[bmeStatus] = 0
	if now < c.booted {
		c.reg[bmeStatus] |= 0x01 // im_update
	}
	mode := c.reg[bmeCtrlMeas] & 3
	switch {
	case mode == 0:
	case now < c.ready:
		c.reg[bmeStatus] |= 0x08 // measuring
	default:
		c.measure()
		if mode != 3 { // forced mode falls back to sleep (3.3.3)
			c.reg[bmeCtrlMeas] &^= 3
		}
	}
}

// oversampling returns the factor of a 3-bit setting (tables 20, 23, 24).
func oversampling(bits byte) int {
	if bits &= 7; bits == 0 {
		return 0
	} else if bits > 5 {
		bits = 5
	}
	return 1 << (bits - 1)
}

// measureTime is the typical measurement time (appendix B, 9.1).
func (c *BME280) measureTime() time.Duration {
	us := 1000 + 2000*oversampling(c.reg[bmeCtrlMeas]>>5)
	if o := oversampling(c.reg[bmeCtrlMeas] >> 2); o > 0 {
		us += 2000*o + 500
	}
	if o := oversampling(c.ctrlHum); o > 0 {
		us += 2000*o + 500
	}
	return time.Duration(us) * time.Microsecond
}

// measure fills the result registers.
func (c *BME280) measure() {
	meas := c.reg[bmeCtrlMeas]
	t, p, h := uint32(0x80000), uint32(0x80000), uint32(0x8000) // skipped
	var fine float64
	if meas>>5 != 0 {
		t = coarse(bisect(20, func(raw float64) bool { return c.trim.temperature(raw)/5120 >= c.t }), meas>>5)
		fine = c.trim.temperature(float64(t))
	}
	if meas>>2&7 != 0 {
		// A higher pressure makes a lower raw value.
		p = coarse(bisect(20, func(raw float64) bool { return c.trim.pressure(raw, fine) <= c.p }), meas>>2)
	}
	if c.ctrlHum != 0 {
		h = bisect(16, func(raw float64) bool { return c.trim.humidity(raw, fine) >= c.h })
	}
	c.result(bmeTemp, 3, t<<4)
	c.result(bmePress, 3, p<<4)
	if c.id == 0x60 {
		c.result(bmeHum, 2, h)
	}
}

// coarse drops the bits that a setting of oversampling does not give: 16 bit at
// once, 20 bit at sixteen times (3.4.2, 3.4.3, filter off).
func coarse(raw uint32, setting byte) uint32 {
	bits := min(int(setting&7), 5) + 15
	return raw >> (20 - bits) << (20 - bits)
}

func (c *BME280) result(reg byte, n int, v uint32) {
	for i := n - 1; i >= 0; i-- {
		c.reg[reg+byte(i)] = byte(v)
		v >>= 8
	}
}

// bisect returns the least raw value of so many bits for which over holds, or
// the greatest value.
func bisect(bits int, over func(raw float64) bool) uint32 {
	lo, hi := uint32(0), uint32(1)<<bits-1
	for lo < hi {
		if mid := (lo + hi) / 2; over(float64(mid)) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// temperature returns t_fine; 5120 of it are 1 Cel (appendix A, 8.1).
func (k BME280Trim) temperature(raw float64) float64 {
	d := raw/131072 - float64(k.T1)/8192
	return (raw/16384-float64(k.T1)/1024)*float64(k.T2) + d*d*float64(k.T3)
}

// pressure returns Pa (appendix A, 8.1).
func (k BME280Trim) pressure(raw, fine float64) float64 {
	x := fine/2 - 64000
	y := x*x*float64(k.P6)/32768 + x*float64(k.P5)*2
	y = y/4 + float64(k.P4)*65536
	x = (float64(k.P3)*x*x/524288 + float64(k.P2)*x) / 524288
	x = (1 + x/32768) * float64(k.P1)
	if x == 0 {
		return 0
	}
	p := (1048576 - raw - y/4096) * 6250 / x
	return p + (float64(k.P9)*p*p/2147483648+p*float64(k.P8)/32768+float64(k.P7))/16
}

// humidity returns % (appendix A, 8.1).
func (k BME280Trim) humidity(raw, fine float64) float64 {
	x := fine - 76800
	h := (raw - (float64(k.H4)*64 + float64(k.H5)/16384*x)) *
		(float64(k.H2) / 65536 * (1 + float64(k.H6)/67108864*x*(1+float64(k.H3)/67108864*x)))
	h *= 1 - float64(k.H1)*h/524288
	return math.Min(100, math.Max(0, h))
}

// storeTrim puts the trimming data where table 16 has it, low byte first.
func (c *BME280) storeTrim() {
	k := c.trim
	at := byte(0x88)
	for _, v := range []uint16{k.T1, uint16(k.T2), uint16(k.T3), k.P1, uint16(k.P2), uint16(k.P3), uint16(k.P4),
		uint16(k.P5), uint16(k.P6), uint16(k.P7), uint16(k.P8), uint16(k.P9)} {
		c.reg[at], c.reg[at+1] = byte(v), byte(v>>8)
		at += 2
	}
	if c.id != 0x60 {
		return
	}
	c.reg[0xA1] = k.H1
	c.reg[0xE1], c.reg[0xE2] = byte(k.H2), byte(uint16(k.H2)>>8)
	c.reg[0xE3] = k.H3
	c.reg[0xE4] = byte(k.H4 >> 4)
	c.reg[0xE5] = byte(k.H4)&0x0F | byte(k.H5)<<4
	c.reg[0xE6] = byte(k.H5 >> 4)
	c.reg[0xE7] = byte(k.H6)
}

// errShortWrite is what the two-byte registers of the simpler chips answer to a
// message of another length.
func errShortWrite(n int) error {
	return fmt.Errorf("%w: message of %d bytes", i2c.ErrNACK, n)
}

var _ Chip = (*BME280)(nil)
