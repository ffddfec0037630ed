package plant

import (
	"math"
	"sync"

	"holdfast/hil/plant/modbus"
)

// Unit ids of the factory's Modbus devices.
const (
	PLCUnit   = 1
	DriveUnit = 3
)

// PLC returns the controller of the tank. Floats are big endian, high word
// first, and take two registers.
//
//	input   0 level m    2 temperature Cel   4 pressure kPa   6 inflow L/min   8 outflow L/min
//	       10 volume L, uint32
//	holding 0 pump speed 1/min   2 outlet valve %   4 heater %
//	coil    0 pump runs
//	discrete 0 high level   1 low level
func PLC(p *Process) *modbus.Device {
	d := modbus.NewDevice(64)
	d.Source(modbus.Input, 0, 12, func(w []uint16) {
		s, _ := p.Read()
		putFloats(w, s.Level, s.Temperature, s.Pressure, s.Inflow, s.Outflow)
		v := uint32(s.Volume)
		w[10], w[11] = uint16(v>>16), uint16(v)
	})
	d.Source(modbus.Holding, 0, 6, func(w []uint16) {
		_, set := p.Read()
		putFloats(w, set.Speed, set.Valve, set.Heater)
	})
	d.Source(modbus.Coil, 0, 1, func(w []uint16) {
		_, set := p.Read()
		w[0] = bit(set.Run)
	})
	d.Source(modbus.Discrete, 0, 2, func(w []uint16) {
		s, _ := p.Read()
		w[0], w[1] = bit(s.HighLevel), bit(s.LowLevel)
	})
	d.OnWrite(setpointWriter(p))
	return d
}

// setpointWriter turns writes into set points. It remembers both words of each
// float, because a client may write them one by one.
func setpointWriter(p *Process) func(t modbus.Table, item int, words []uint16) {
	var mu sync.Mutex
	var shadow [6]uint16
	_, set := p.Read()
	putFloats(shadow[:], set.Speed, set.Valve, set.Heater)
	return func(t modbus.Table, item int, words []uint16) {
		mu.Lock()
		defer mu.Unlock()
		if t == modbus.Coil && item == 0 {
			p.Set(func(s *Setpoints) { s.Run = words[0] != 0 })
		}
		if t != modbus.Holding || item >= len(shadow) {
			return
		}
		copy(shadow[item:], words)
		p.Set(func(s *Setpoints) {
			for i, x := range []*float64{&s.Speed, &s.Valve, &s.Heater} {
				first := 2 * i
				if first+1 >= item && first < item+len(words) {
					if f := float(shadow[first], shadow[first+1]); !math.IsNaN(f) {
						*x = f
					}
				}
			}
		})
	}
}

// Drive returns the frequency converter of the pump's motor, as scaled
// integers.
//
//	input 0 speed 1/min   1 current 0.01 A   2 vibration 0.01 mm/s
func Drive(p *Process) *modbus.Device {
	d := modbus.NewDevice(16)
	d.Source(modbus.Input, 0, 3, func(w []uint16) {
		s, _ := p.Read()
		w[0] = uint16(math.Round(s.Speed))
		w[1] = uint16(math.Round(max(0, s.Current) * 100))
		w[2] = uint16(math.Round(s.Vibration * 100))
	})
	return d
}

func putFloats(w []uint16, values ...float64) {
	for i, v := range values {
		b := math.Float32bits(float32(v))
		w[2*i], w[2*i+1] = uint16(b>>16), uint16(b)
	}
}

func float(high, low uint16) float64 {
	return float64(math.Float32frombits(uint32(high)<<16 | uint32(low)))
}

func bit(b bool) uint16 {
	if b {
		return 1
	}
	return 0
}
