package modbus

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// A Table is one of the four tables of the data model.
type Table uint8

// The tables.
const (
	Coil Table = iota
	Discrete
	Input
	Holding
)

// A Device is the memory of one unit. Items from 0 to its size exist in every
// table unless denied; requests for others are answered with exception 2.
type Device struct {
	mu      sync.Mutex
	tables  [4][]uint16 // bits as 0 and 1
	sources []source
	denied  []denied
	onWrite func(t Table, item int, words []uint16)
	maxRead int
	noFunc  map[byte]bool
}

type source struct {
	table   Table
	item, n int
	fill    func(words []uint16)
}

type denied struct {
	table    Table
	from, to int
}

// NewDevice returns a device with size items in each table, all zero. size is 1
// to 65536.
func NewDevice(size int) *Device {
	d := &Device{maxRead: 2000, noFunc: map[byte]bool{}}
	for t := range d.tables {
		d.tables[t] = make([]uint16, min(max(size, 1), 65536))
	}
	return d
}

// Set stores words from item on; in the tables of bits every word is one bit. It
// panics when they do not fit.
func (d *Device) Set(t Table, item int, words ...uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if item+len(words) > len(d.tables[t]) {
		panic(fmt.Sprintf("item %d of a table of %d", item+len(words)-1, len(d.tables[t])))
	}
	copy(d.tables[t][item:], words)
}

// Get returns n words from item on.
func (d *Device) Get(t Table, item, n int) []uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]uint16(nil), d.tables[t][item:item+n]...)
}

// Source makes fill produce n words from item on, once for every request that
// touches one of them, so that a value of several words is never torn. fill must
// not call the device.
func (d *Device) Source(t Table, item, n int, fill func(words []uint16)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sources = append(d.sources, source{t, item, n, fill})
}

// OnWrite makes f see every write of a client after it is done. f must not call
// the device.
func (d *Device) OnWrite(f func(t Table, item int, words []uint16)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onWrite = f
}

// Deny makes every request that touches an item from from to to, excluded, be
// answered with exception 2.
func (d *Device) Deny(t Table, from, to int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.denied = append(d.denied, denied{t, from, to})
}

// LimitRead makes requests for more than n items be answered with exception 3.
func (d *Device) LimitRead(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.maxRead = n
}

// DenyFunction makes a function be answered with exception 1.
func (d *Device) DenyFunction(code byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noFunc[code] = true
}

// answer executes a request's PDU and returns the PDU of the answer.
func (d *Device) answer(pdu []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	out, exception := d.execute(pdu)
	if exception != 0 {
		return []byte{pdu[0] | 0x80, exception}
	}
	return out
}

func (d *Device) execute(pdu []byte) (out []byte, exception byte) {
	if len(pdu) == 0 || d.noFunc[pdu[0]] {
		return nil, 1
	}
	n := len(pdu)
	arg := func(at int) int { return int(binary.BigEndian.Uint16(pdu[at:])) }
	switch code := pdu[0]; {
	case code >= 1 && code <= 4 && n == 5:
		return d.read(code, [...]Table{1: Coil, 2: Discrete, 3: Holding, 4: Input}[code], arg(1), arg(3))
	case code == 5 && n == 5:
		if arg(3) != 0 && arg(3) != 0xff00 {
			return nil, 3
		}
		return pdu, d.write(Coil, arg(1), []uint16{uint16(arg(3) >> 15)})
	case code == 6 && n == 5:
		return pdu, d.write(Holding, arg(1), []uint16{uint16(arg(3))})
	case code == 15 && n >= 6:
		count := arg(3)
		if count < 1 || count > 1968 || int(pdu[5]) != (count+7)/8 || n != 6+int(pdu[5]) {
			return nil, 3
		}
		words := make([]uint16, count)
		for i := range words {
			words[i] = uint16(pdu[6+i/8] >> (i % 8) & 1)
		}
		return pdu[:5], d.write(Coil, arg(1), words)
	case code == 16 && n >= 6:
		if arg(3) < 1 || arg(3) > 123 || int(pdu[5]) != 2*arg(3) || n != 6+int(pdu[5]) {
			return nil, 3
		}
		return pdu[:5], d.write(Holding, arg(1), toWords(pdu[6:]))
	case code == 22 && n == 7:
		at := arg(1)
		if x := d.reach(Holding, at, 1); x != 0 {
			return nil, x
		}
		and, or := uint16(arg(3)), uint16(arg(5))
		return pdu, d.write(Holding, at, []uint16{d.tables[Holding][at]&and | or&^and})
	case code == 23 && n >= 10:
		if arg(7) < 1 || arg(7) > 121 || int(pdu[9]) != 2*arg(7) || n != 10+int(pdu[9]) {
			return nil, 3
		}
		if x := d.reach(Holding, arg(1), arg(3)); x != 0 {
			return nil, x
		}
		if x := d.write(Holding, arg(5), toWords(pdu[10:])); x != 0 {
			return nil, x
		}
		return d.read(23, Holding, arg(1), arg(3))
	case code >= 1 && code <= 6, code == 15, code == 16, code == 22, code == 23:
		return nil, 3
	}
	return nil, 1
}

func toWords(b []byte) []uint16 {
	words := make([]uint16, len(b)/2)
	for i := range words {
		words[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	return words
}

// reach returns the exception for items that are not there.
func (d *Device) reach(t Table, at, n int) byte {
	if at+n > len(d.tables[t]) {
		return 2
	}
	for _, x := range d.denied {
		if x.table == t && at < x.to && x.from < at+n {
			return 2
		}
	}
	return 0
}

func (d *Device) read(code byte, t Table, at, n int) ([]byte, byte) {
	most := 125
	if t <= Discrete {
		most = 2000
	}
	if n < 1 || n > min(most, d.maxRead) {
		return nil, 3
	}
	if x := d.reach(t, at, n); x != 0 {
		return nil, x
	}
	for _, s := range d.sources {
		if s.table == t && at < s.item+s.n && s.item < at+n {
			s.fill(d.tables[t][s.item : s.item+s.n])
		}
	}
	words := d.tables[t][at : at+n]
	if t > Discrete {
		out := append(make([]byte, 0, 2+2*n), code, byte(2*n))
		for _, w := range words {
			out = binary.BigEndian.AppendUint16(out, w)
		}
		return out, 0
	}
	out := make([]byte, 2+(n+7)/8)
	out[0], out[1] = code, byte((n+7)/8)
	for i, w := range words {
		out[2+i/8] |= byte(w&1) << (i % 8)
	}
	return out, 0
}

func (d *Device) write(t Table, at int, words []uint16) byte {
	if x := d.reach(t, at, len(words)); x != 0 {
		return x
	}
	copy(d.tables[t][at:], words)
	if d.onWrite != nil {
		d.onWrite(t, at, words)
	}
	return 0
}
