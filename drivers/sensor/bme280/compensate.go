package bme280

import "errors"

// trim is the trimming data of one chip, table 16 of the BME280 data sheet
// (BST-BME280-DS001-10, 4.2.2) and table 17 of the BMP280's.
type trim struct {
	t1                             uint16
	t2, t3                         int16
	p1                             uint16
	p2, p3, p4, p5, p6, p7, p8, p9 int16
	h1                             uint8
	h2                             int16
	h3                             uint8
	h4, h5                         int16
	h6                             int8
}

// parseTrim reads registers 0x88 to 0xA1 and, of a BME280, 0xE1 to 0xE7.
func parseTrim(low [26]byte, high [7]byte) (trim, error) {
	u := func(i int) uint16 { return uint16(low[i]) | uint16(low[i+1])<<8 }
	s := func(i int) int16 { return int16(u(i)) }
	k := trim{
		t1: u(0), t2: s(2), t3: s(4),
		p1: u(6), p2: s(8), p3: s(10), p4: s(12), p5: s(14), p6: s(16), p7: s(18), p8: s(20), p9: s(22),
		h1: low[25],
		h2: int16(uint16(high[0]) | uint16(high[1])<<8),
		h3: high[2],
		// Two signed 12-bit numbers share the byte at 0xE5: the low half belongs
		// to h4, the high one to h5.
		h4: int16(int8(high[3]))<<4 | int16(high[4]&0x0F),
		h5: int16(int8(high[5]))<<4 | int16(high[4]>>4),
		h6: int8(high[6]),
	}
	if k.t1 == 0 || k.p1 == 0 || k.t1 == 0xFFFF && k.t2 == -1 {
		return trim{}, errors.New("trimming data is empty")
	}
	return k, nil
}

// temperature returns hundredths of 1 Cel and the fine temperature that the
// other two need. It is the data sheet's 32-bit compensation (4.2.3); raw has
// 20 bits.
func (k *trim) temperature(raw int32) (centi, fine int32) {
	x := ((raw>>3 - int32(k.t1)<<1) * int32(k.t2)) >> 11
	d := raw>>4 - int32(k.t1)
	y := ((d * d >> 12) * int32(k.t3)) >> 14
	fine = x + y
	return (fine*5 + 128) >> 8, fine
}

// pressure returns Pa in Q24.8: 24674867 is 24674867/256 = 96386.2 Pa. It is the
// data sheet's 64-bit compensation (4.2.3); raw has 20 bits.
func (k *trim) pressure(raw, fine int32) (int64, bool) {
	x := int64(fine) - 128000
	y := x * x * int64(k.p6)
	y += x * int64(k.p5) << 17
	y += int64(k.p4) << 35
	x = x*x*int64(k.p3)>>8 + x*int64(k.p2)<<12
	x = (1<<47 + x) * int64(k.p1) >> 33
	if x == 0 {
		return 0, false
	}
	p := ((1048576-int64(raw))<<31 - y) * 3125 / x
	x = int64(k.p9) * (p >> 13) * (p >> 13) >> 25
	y = int64(k.p8) * p >> 19
	return (p+x+y)>>8 + int64(k.p7)<<4, true
}

// humidity returns % in Q22.10: 47445 is 47445/1024 = 46.333 %. It is the data
// sheet's 32-bit compensation (4.2.3); raw has 16 bits. The data sheet limits the
// result to 0 to 100 %, because condensation drives the raw value beyond.
func (k *trim) humidity(raw, fine int32) int32 {
	x := fine - 76800
	a := (raw<<14 - int32(k.h4)<<20 - int32(k.h5)*x + 16384) >> 15
	b := ((x*int32(k.h6))>>10*((x*int32(k.h3))>>11+32768))>>10 + 2097152
	h := a * ((b*int32(k.h2) + 8192) >> 14)
	h -= ((h >> 15) * (h >> 15) >> 7 * int32(k.h1)) >> 4
	return min(max(h, 0), 419430400) >> 12
}
