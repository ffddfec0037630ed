// Package spitest has SPI connections for tests and for the bench.
//
//   - [Func] is a connection that a function answers, such as that of an emulated
//     chip, [MAX31865].
//   - [Recorder] wraps a connection and keeps its traffic; [Playback] gives
//     recorded traffic back and fails when the traffic differs or is left over.
//   - [Faulty] wraps a connection and injects faults, seeded.
//
// None of it needs the testing package, so that a simulated plant can use it.
package spitest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/drivers/spi"
)

// Func is a connection that the function answers: it gets what was sent and fills
// r. Calls come one at a time.
func Func(name string, answer func(w, r []byte) error) spi.Conn {
	return &fn{name: name, answer: answer}
}

type fn struct {
	name   string
	mu     sync.Mutex
	answer func(w, r []byte) error
}

func (f *fn) String() string { return f.name }

func (f *fn) Tx(ctx context.Context, w, r []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("spi %s: %w", f.name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.answer(w, r); err != nil {
		return fmt.Errorf("spi %s: %w", f.name, err)
	}
	return nil
}

// An Op is one recorded transfer.
type Op struct {
	W, R []byte
	Err  error
}

// String returns "w 9f 00 r ff c2".
func (o Op) String() string {
	s := fmt.Sprintf("w % x r % x", o.W, o.R)
	if o.Err != nil {
		s += " err " + o.Err.Error()
	}
	return s
}

// mostOps is how many transfers a recorder keeps.
const mostOps = 1 << 16

// A Recorder passes transfers on to a connection and keeps the first 65,536; it
// counts the rest, because a recording is good only from its beginning.
type Recorder struct {
	conn spi.Conn

	mu     sync.Mutex
	ops    []Op
	missed int
}

// NewRecorder returns a recorder in front of conn.
func NewRecorder(conn spi.Conn) *Recorder { return &Recorder{conn: conn} }

// String returns the name of the connection behind.
func (r *Recorder) String() string { return r.conn.String() }

// Tx satisfies [spi.Conn].
func (r *Recorder) Tx(ctx context.Context, w, in []byte) error {
	err := r.conn.Tx(ctx, w, in)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ops) >= mostOps {
		r.missed++
		return err
	}
	o := Op{W: slices.Clone(w), Err: err}
	if err == nil {
		o.R = slices.Clone(in)
	}
	r.ops = append(r.ops, o)
	return err
}

// Ops returns what has been recorded, and how many later transfers there was no
// room for.
func (r *Recorder) Ops() (ops []Op, missed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ops), r.missed
}

// A Playback is a connection that answers from a recording. Transfers must come
// in the recorded order with the recorded bytes.
type Playback struct {
	mu   sync.Mutex
	ops  []Op
	next int
	errs []string
}

// NewPlayback returns a connection that plays ops.
func NewPlayback(ops []Op) *Playback { return &Playback{ops: slices.Clone(ops)} }

// String returns "playback".
func (p *Playback) String() string { return "playback" }

// Tx satisfies [spi.Conn]. A transfer that was not recorded at this place is an
// error, here and in Close; the recording does not move on then.
func (p *Playback) Tx(ctx context.Context, w, r []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next >= len(p.ops) {
		return p.fail("transfer %d: recording has ended, got w % x", p.next, w)
	}
	o := p.ops[p.next]
	if !bytes.Equal(o.W, w) || o.Err == nil && len(r) > 0 && len(o.R) != len(r) {
		return p.fail("transfer %d: recorded %s, got w % x with %d bytes to receive", p.next, o, w, len(r))
	}
	p.next++
	copy(r, o.R)
	return o.Err
}

func (p *Playback) fail(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if len(p.errs) < 10 { // the first ones tell the story
		p.errs = append(p.errs, text)
	}
	return fmt.Errorf("spi playback: %s", text)
}

// Close returns an error if a transfer differed from the recording or if some of
// the recording is left over.
func (p *Playback) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.errs) > 0 {
		return fmt.Errorf("spi playback: %s", strings.Join(p.errs, "; "))
	}
	if left := len(p.ops) - p.next; left > 0 {
		return fmt.Errorf("spi playback: %d of %d transfers left over, the next is %s", left, len(p.ops), p.ops[p.next])
	}
	return nil
}

// A Kind is a way in which a connection fails.
type Kind int

// The kinds of fault.
const (
	None    Kind = iota
	Stuck        // every byte received is Fault.Byte: no chip, or a line held
	Flip         // one bit of the bytes received is inverted
	Garbage      // the bytes received are random
	Shift        // everything received is one bit late: a clock edge missed
	Slow         // the transfer takes Fault.Delay longer
	Hang         // the transfer does not end before its context does
)

var kindNames = [...]string{"none", "stuck", "flip", "garbage", "shift", "slow", "hang"}

// String returns the kind's name in lower case.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return kindNames[k]
}

// A Fault says what goes wrong and how often.
type Fault struct {
	Kind  Kind
	Every int           // each nth transfer; 0 and 1 mean all
	Rate  float64       // a share of them, 0 to 1, drawn at random; 0 means all
	Delay time.Duration // of Slow
	Byte  byte          // of Stuck
}

// Faulty is a connection in front of another that injects one fault at a time.
type Faulty struct {
	conn spi.Conn

	mu       sync.Mutex
	rand     *rand.Rand
	fault    Fault
	cleared  chan struct{} // closed when the present fault is replaced
	matching int
	total    int
	injected int
}

// NewFaulty returns a connection that passes everything on until a fault is set.
// Equal seeds and transfers make equal faults.
func NewFaulty(conn spi.Conn, seed uint64) *Faulty {
	return &Faulty{conn: conn, rand: rand.New(rand.NewPCG(seed, 0x591)), cleared: make(chan struct{})}
}

// Set replaces the present fault. A transfer that hangs because of the old one
// goes on.
func (f *Faulty) Set(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.matching = fault, 0
	close(f.cleared)
	f.cleared = make(chan struct{})
}

// Clear removes the present fault.
func (f *Faulty) Clear() { f.Set(Fault{}) }

// Counts returns how many transfers there have been, and how many of them were
// made to fail.
func (f *Faulty) Counts() (total, injected int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total, f.injected
}

// String returns the name of the connection behind.
func (f *Faulty) String() string { return f.conn.String() }

// Tx satisfies [spi.Conn].
func (f *Faulty) Tx(ctx context.Context, w, r []byte) error {
	fault, cleared := f.draw()
	var delay <-chan time.Time
	if fault.Kind == Slow {
		t := time.NewTimer(fault.Delay)
		defer t.Stop()
		delay = t.C
	}
	if fault.Kind == Slow || fault.Kind == Hang {
		select {
		case <-delay:
		case <-cleared:
		case <-ctx.Done():
			return fmt.Errorf("spi %s: %w: %w", f.conn, spi.ErrTimeout, ctx.Err())
		}
	}
	if err := f.conn.Tx(ctx, w, r); err != nil {
		return err
	}
	if len(r) > 0 {
		f.spoil(fault, r)
	}
	return nil
}

// draw decides whether the next transfer fails, and how.
func (f *Faulty) draw() (Fault, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total++
	if f.fault.Kind == None {
		return Fault{}, f.cleared
	}
	f.matching++
	if f.fault.Every > 1 && f.matching%f.fault.Every != 0 || f.fault.Rate > 0 && f.rand.Float64() >= f.fault.Rate {
		return Fault{}, f.cleared
	}
	f.injected++
	return f.fault, f.cleared
}

// spoil changes the bytes received.
func (f *Faulty) spoil(fault Fault, r []byte) {
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
	case Shift:
		carry := byte(0)
		for i, b := range r {
			r[i], carry = b>>1|carry<<7, b&1
		}
	}
}

var (
	_ spi.Conn       = (*Recorder)(nil)
	_ spi.ConnCloser = (*Playback)(nil)
	_ spi.Conn       = (*Faulty)(nil)
)
