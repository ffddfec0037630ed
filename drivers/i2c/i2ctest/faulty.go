package i2ctest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"holdfast/drivers/i2c"
)

// A Kind is a way in which a bus fails.
type Kind int

// The kinds of fault.
const (
	None        Kind = iota
	NACK             // the chip does not acknowledge
	Stuck            // every byte read is Fault.Byte: 0xFF is a line held high, 0x00 one held low
	Flip             // one bit of the bytes read is inverted
	Garbage          // the bytes read are random
	Short            // the second half of the bytes read is 0xFF: the chip let go of the line
	Frozen           // the same request is answered as it was the first time
	Slow             // the transaction takes Fault.Delay longer
	Hang             // the transaction does not end before its context does
	Arbitration      // another controller took the bus
	Gone             // the adapter has been removed
)

var kindNames = [...]string{"none", "nack", "stuck", "flip", "garbage", "short", "frozen", "slow", "hang", "arbitration", "gone"}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return kindNames[k]
}

// ParseKind returns the kind of a name.
func ParseKind(name string) (Kind, error) {
	for k, n := range kindNames {
		if n == name {
			return Kind(k), nil
		}
	}
	return None, fmt.Errorf("i2c fault %q: want one of %v", name, kindNames)
}

// A Fault says what goes wrong and how often.
type Fault struct {
	Kind  Kind
	Addr  uint16        // only this chip; 0 means every chip
	Every int           // each nth transaction of those; 0 and 1 mean all
	Rate  float64       // a share of them, 0 to 1, drawn at random; 0 means all
	Delay time.Duration // of Slow
	Byte  byte          // of Stuck
}

// Faulty is a bus in front of another that injects one fault at a time. It may
// be used from many goroutines.
type Faulty struct {
	bus i2c.Bus

	mu       sync.Mutex
	rand     *rand.Rand
	fault    Fault
	cleared  chan struct{} // closed when the present fault is replaced
	matching int           // transactions since the fault was set that Addr fits
	total    int
	injected int
	frozen   map[string][]byte
}

// NewFaulty returns a bus that passes everything on until a fault is set. Equal
// seeds and transactions make equal faults.
func NewFaulty(bus i2c.Bus, seed uint64) *Faulty {
	return &Faulty{bus: bus, rand: rand.New(rand.NewPCG(seed, 0x12C)), cleared: make(chan struct{})}
}

// Set replaces the present fault. A transaction that hangs because of the old
// one goes on.
func (f *Faulty) Set(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.matching, f.frozen = fault, 0, nil
	close(f.cleared)
	f.cleared = make(chan struct{})
}

// Clear removes the present fault.
func (f *Faulty) Clear() { f.Set(Fault{}) }

// Counts returns how many transactions there have been, and how many of them
// were made to fail.
func (f *Faulty) Counts() (total, injected int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total, f.injected
}

// String returns the name of the bus behind.
func (f *Faulty) String() string { return f.bus.String() }

// Tx satisfies [i2c.Bus].
func (f *Faulty) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	fault, cleared := f.draw(addr)
	switch fault.Kind {
	case NACK:
		return fmt.Errorf("i2c %s 0x%02x: %w", f.bus, addr, i2c.ErrNACK)
	case Arbitration:
		return fmt.Errorf("i2c %s 0x%02x: %w", f.bus, addr, i2c.ErrArbitration)
	case Gone:
		return fmt.Errorf("i2c %s 0x%02x: %w", f.bus, addr, i2c.ErrGone)
	case Hang:
		select {
		case <-cleared:
		case <-ctx.Done():
			return fmt.Errorf("i2c %s 0x%02x: %w: %w", f.bus, addr, i2c.ErrTimeout, ctx.Err())
		}
	case Slow:
		t := time.NewTimer(fault.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("i2c %s 0x%02x: %w: %w", f.bus, addr, i2c.ErrTimeout, ctx.Err())
		}
	}
	if err := f.bus.Tx(ctx, addr, w, r); err != nil {
		return err
	}
	if len(r) > 0 {
		f.spoil(fault, addr, w, r)
	}
	return nil
}

// draw decides whether the next transaction fails, and how.
func (f *Faulty) draw(addr uint16) (Fault, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total++
	fault := f.fault
	if fault.Kind == None || fault.Addr != 0 && fault.Addr != addr {
		return Fault{}, f.cleared
	}
	f.matching++
	if fault.Every > 1 && f.matching%fault.Every != 0 {
		return Fault{}, f.cleared
	}
	if fault.Rate > 0 && f.rand.Float64() >= fault.Rate {
		return Fault{}, f.cleared
	}
	f.injected++
	return fault, f.cleared
}

// spoil changes the bytes that the chip sent.
func (f *Faulty) spoil(fault Fault, addr uint16, w, r []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch fault.Kind {
	case Stuck:
		for i := range r {
			r[i] = fault.Byte
		}
	case Flip:
		bit := f.rand.IntN(8 * len(r))
		r[bit/8] ^= 1 << (bit % 8)
	case Garbage:
		for i := range r {
			r[i] = byte(f.rand.Uint32())
		}
	case Short:
		for i := len(r) / 2; i < len(r); i++ {
			r[i] = 0xFF
		}
	case Frozen:
		key := fmt.Sprintf("%d %x %d", addr, w, len(r))
		if first, ok := f.frozen[key]; ok {
			copy(r, first)
		} else {
			if f.frozen == nil {
				f.frozen = map[string][]byte{}
			}
			f.frozen[key] = append([]byte(nil), r...)
		}
	}
}

var _ i2c.Bus = (*Faulty)(nil)
