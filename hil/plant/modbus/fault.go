package modbus

import (
	"encoding/binary"
	"time"
)

// Kind is what goes wrong.
type Kind uint8

// The kinds of fault.
const (
	Late             Kind = iota // the answer comes Delay later than it would
	Silence                      // no answer; the request is not executed
	Deaf                         // the request is executed, but its answer is lost
	Exception                    // exception Code instead of an answer, after Delay
	Short                        // the last N bytes of the answer are missing
	Noise                        // N random bytes come before the answer
	BadCRC                       // RTU only: the CRC is wrong
	WrongUnit                    // the answer is from another unit id (plus N, or 1)
	WrongTransaction             // TCP only: the answer has another transaction id
	WrongFunction                // the answer is to another function
	WrongCount                   // the answer is well formed but has one register less
	Twice                        // the answer comes twice
	Close                        // the connection is closed in order (FIN)
	Reset                        // the connection is reset (RST)
	BlackHole                    // from now on nothing is answered on this connection
)

// A Fault picks requests and says what goes wrong with them. The zero values of
// its conditions pick every request.
type Fault struct {
	Kind     Kind
	Units    []byte  // unit ids, nil for all
	Function byte    // function code, 0 for all
	From, To int     // touches an item in From to To, excluded; To 0 for all
	Skip     int     // lets this many matching requests pass first
	Every    int     // then takes each nth matching one; 0 as 1
	Times    int     // stops after so many; 0 for never
	Chance   float64 // probability for each one; 0 as 1

	Delay time.Duration
	Code  byte
	N     int
}

// injected is a fault in force with its counts.
type injected struct {
	Fault
	seen, done int
}

// Inject puts a fault into force; the function returned takes it back. Of
// several that match a request the first one injected acts.
func (p *Plant) Inject(f Fault) (remove func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	in := &injected{Fault: f}
	p.faults = append(p.faults, in)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, x := range p.faults {
			if x == in {
				p.faults = append(p.faults[:i:i], p.faults[i+1:]...)
				return
			}
		}
	}
}

// pick returns the fault that acts on a request, or nil.
func (p *Plant) pick(unit byte, pdu []byte) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[unit]++
	for _, in := range p.faults {
		if !in.matches(unit, pdu) {
			continue
		}
		in.seen++
		if in.seen <= in.Skip || (in.seen-in.Skip)%max(in.Every, 1) != 0 || in.Times > 0 && in.done >= in.Times {
			continue
		}
		if in.Chance > 0 && p.rng.Float64() >= in.Chance {
			continue
		}
		in.done++
		p.acted++
		f := in.Fault
		return &f
	}
	return nil
}

func (in *injected) matches(unit byte, pdu []byte) bool {
	if in.Function != 0 && in.Function != pdu[0] {
		return false
	}
	if len(in.Units) > 0 {
		found := false
		for _, u := range in.Units {
			found = found || u == unit
		}
		if !found {
			return false
		}
	}
	if in.To == 0 || len(pdu) < 3 {
		return true
	}
	from := int(binary.BigEndian.Uint16(pdu[1:]))
	n := 1
	if pdu[0] != 5 && pdu[0] != 6 && pdu[0] != 22 && len(pdu) >= 5 {
		n = int(binary.BigEndian.Uint16(pdu[3:]))
	}
	return from < in.To && in.From < from+n
}

// distort changes an answer as its fault says, before framing.
func (f *Fault) distort(unit byte, pdu []byte) (byte, []byte) {
	switch f.Kind {
	case Exception:
		return unit, []byte{pdu[0] | 0x80, f.Code}
	case WrongUnit:
		return unit + byte(max(f.N, 1)), pdu
	case WrongFunction:
		return unit, append([]byte{pdu[0] ^ 7}, pdu[1:]...)
	case WrongCount:
		if len(pdu) > 4 && int(pdu[1]) == len(pdu)-2 {
			cut := append([]byte(nil), pdu[:len(pdu)-2]...)
			cut[1] -= 2
			return unit, cut
		}
	}
	return unit, pdu
}

// damage changes a framed answer as its fault says.
func (p *Plant) damage(f *Fault, frame []byte) []byte {
	switch f.Kind {
	case Short:
		return frame[:max(0, len(frame)-max(f.N, 1))]
	case Noise:
		noise := make([]byte, max(f.N, 1))
		p.mu.Lock()
		for i := range noise {
			noise[i] = byte(p.rng.Uint32())
		}
		p.mu.Unlock()
		return append(noise, frame...)
	case BadCRC:
		frame[len(frame)-1] ^= 0x55
	case WrongTransaction:
		frame[1] ^= 0x80
	case Twice:
		return append(append([]byte(nil), frame...), frame...)
	}
	return frame
}
