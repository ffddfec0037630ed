package serialtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"holdfast/drivers/serial"
)

// A Kind is a way in which a line fails.
type Kind int

// The kinds of fault. Those of reading change what arrives, byte by byte at the
// given rate or call by call; those of writing what is sent.
const (
	None  Kind = iota
	Flip       // a received byte has one bit inverted
	Drop       // a received byte is lost
	Noise      // a random byte is received before a good one
	Short      // a Read returns one byte at a time
	Late       // a Read returns Fault.Delay after the bytes came
	Mute       // nothing that is written is sent: a cut wire
	Echo       // what is written is received too, before anything else: a two-wire adapter
	Hang       // a Write does not return before its deadline
	Gone       // the adapter has been unplugged
)

var kindNames = [...]string{"none", "flip", "drop", "noise", "short", "late", "mute", "echo", "hang", "gone"}

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
	return None, fmt.Errorf("serial fault %q: want one of %v", name, kindNames)
}

// A Fault says what goes wrong and how often.
type Fault struct {
	Kind  Kind
	Rate  float64       // share of bytes (Flip, Drop, Noise) or calls (Late, Mute); 0 means all
	Delay time.Duration // of Late
}

// Faulty is a port in front of another that injects one fault at a time.
type Faulty struct {
	port serial.Port

	mu       sync.Mutex
	rand     *rand.Rand
	fault    Fault
	pending  []byte // received and not yet read: echo and what followed noise
	injected int
	write    time.Time // deadline
	closed   chan struct{}
	once     sync.Once
}

// NewFaulty returns a port that passes everything on until a fault is set. Equal
// seeds and traffic make equal faults.
func NewFaulty(port serial.Port, seed uint64) *Faulty {
	return &Faulty{port: port, rand: rand.New(rand.NewPCG(seed, 0x5E41)), closed: make(chan struct{})}
}

// Set replaces the present fault.
func (f *Faulty) Set(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// Clear removes the present fault.
func (f *Faulty) Clear() { f.Set(Fault{}) }

// Injected returns how many bytes or calls were made to fail.
func (f *Faulty) Injected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.injected
}

// hit decides whether the fault strikes now. f.mu is held.
func (f *Faulty) hit() bool {
	if f.fault.Rate > 0 && f.rand.Float64() >= f.fault.Rate {
		return false
	}
	f.injected++
	return true
}

// String returns the name of the port behind.
func (f *Faulty) String() string { return f.port.String() }

// Read satisfies [serial.Port].
func (f *Faulty) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		if n, err, ok := f.early(b); ok {
			return n, err
		}
		in := make([]byte, len(b))
		n, err := f.port.Read(in)
		if err != nil {
			return 0, err
		}
		f.late()
		if n := f.spoil(b, in[:n]); n > 0 {
			return n, nil
		}
		// Every byte was lost: wait for more, as the deadline allows.
	}
}

// early answers a Read without the port: from what is pending, or with an error.
func (f *Faulty) early(b []byte) (int, error, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault.Kind == Gone {
		f.injected++
		return 0, fmt.Errorf("serial port %q: read: %w", f.port, serial.ErrGone), true
	}
	if len(f.pending) > 0 {
		if f.fault.Kind == Short {
			b = b[:1]
		}
		n := copy(b, f.pending)
		f.pending = f.pending[n:]
		return n, nil, true
	}
	return 0, nil, false
}

// late waits if the fault says so.
func (f *Faulty) late() {
	f.mu.Lock()
	d := time.Duration(0)
	if f.fault.Kind == Late && f.hit() {
		d = f.fault.Delay
	}
	f.mu.Unlock()
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-f.closed:
		}
	}
}

// spoil hands on what arrived, changed, and keeps what there is no room for.
func (f *Faulty) spoil(b, in []byte) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]byte, 0, 2*len(in))
	for _, c := range in {
		switch {
		case f.fault.Kind == Flip && f.hit():
			c ^= 1 << f.rand.IntN(8)
		case f.fault.Kind == Drop && f.hit():
			continue
		case f.fault.Kind == Noise && f.hit():
			out = append(out, byte(f.rand.Uint32()))
		}
		out = append(out, c)
	}
	if f.fault.Kind == Short && len(out) > 1 {
		f.injected++
		b = b[:1]
	}
	n := copy(b, out)
	f.pending = append(f.pending, out[n:]...)
	return n
}

// Write satisfies [serial.Port].
func (f *Faulty) Write(b []byte) (int, error) {
	f.mu.Lock()
	kind, deadline := f.fault.Kind, f.write
	struck := kind >= Mute && f.hit()
	if kind == Echo && struck {
		f.pending = append(f.pending, b...)
	}
	f.mu.Unlock()
	switch {
	case struck && kind == Gone:
		return 0, fmt.Errorf("serial port %q: write: %w", f.port, serial.ErrGone)
	case struck && kind == Mute:
		return len(b), nil
	case struck && kind == Hang:
		return 0, f.hang(deadline)
	}
	return f.port.Write(b)
}

func (f *Faulty) hang(deadline time.Time) error {
	var expired <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-expired:
		return fmt.Errorf("serial port %q: write: %w", f.port, os.ErrDeadlineExceeded)
	case <-f.closed:
		return fmt.Errorf("serial port %q: write: %w", f.port, os.ErrClosed)
	}
}

// SetReadDeadline satisfies [serial.Port].
func (f *Faulty) SetReadDeadline(t time.Time) error { return f.port.SetReadDeadline(t) }

// SetWriteDeadline satisfies [serial.Port].
func (f *Faulty) SetWriteDeadline(t time.Time) error {
	f.mu.Lock()
	f.write = t
	f.mu.Unlock()
	return f.port.SetWriteDeadline(t)
}

// Discard satisfies [serial.Port].
func (f *Faulty) Discard() error {
	f.mu.Lock()
	gone := f.fault.Kind == Gone
	f.pending = nil
	f.mu.Unlock()
	if gone {
		return fmt.Errorf("serial port %q: discard input: %w", f.port, serial.ErrGone)
	}
	return f.port.Discard()
}

// WaitSent satisfies [serial.Port].
func (f *Faulty) WaitSent(ctx context.Context) error { return f.port.WaitSent(ctx) }

// Close satisfies [serial.Port].
func (f *Faulty) Close() error {
	f.once.Do(func() { close(f.closed) })
	return f.port.Close()
}

var _ serial.Port = (*Faulty)(nil)
