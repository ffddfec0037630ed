package i2ctest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"holdfast/drivers/i2c"
)

// mostOps is how many transactions a recorder keeps.
const mostOps = 1 << 16

// A Recorder passes transactions on to a bus and keeps them. It may be used from
// many goroutines.
//
// It keeps the first 65,536 and counts the rest: a recording is good only from
// its beginning.
type Recorder struct {
	bus i2c.Bus

	mu     sync.Mutex
	ops    []Op
	missed int
}

// NewRecorder returns a recorder in front of bus.
func NewRecorder(bus i2c.Bus) *Recorder { return &Recorder{bus: bus} }

// String returns the name of the bus behind.
func (r *Recorder) String() string { return r.bus.String() }

// Tx satisfies [i2c.Bus].
func (r *Recorder) Tx(ctx context.Context, addr uint16, w, in []byte) error {
	err := r.bus.Tx(ctx, addr, w, in)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ops) >= mostOps {
		r.missed++
		return err
	}
	o := Op{Addr: addr, W: slices.Clone(w), Err: err}
	if err == nil {
		o.R = slices.Clone(in)
	}
	r.ops = append(r.ops, o)
	return err
}

// Ops returns what has been recorded, and how many later transactions there
// was no room for.
func (r *Recorder) Ops() (ops []Op, missed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ops), r.missed
}

// A Playback is a bus that answers from a recording. Transactions must come in
// the recorded order with the recorded bytes. It may be used from many
// goroutines.
type Playback struct {
	mu   sync.Mutex
	ops  []Op
	next int
	errs []string
}

// NewPlayback returns a bus that plays ops.
func NewPlayback(ops []Op) *Playback {
	p := &Playback{}
	for _, o := range ops {
		p.ops = append(p.ops, o.clone())
	}
	return p
}

// String returns "playback".
func (p *Playback) String() string { return "playback" }

// Tx satisfies [i2c.Bus]. A transaction that was not recorded at this place is
// an error, here and in Close; the recording does not move on then.
func (p *Playback) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next >= len(p.ops) {
		return p.fail("transaction %d: recording has ended, got %s", p.next, Op{Addr: addr, W: w})
	}
	o := p.ops[p.next]
	if o.Addr != addr || !bytes.Equal(o.W, w) || o.Err == nil && len(o.R) != len(r) {
		return p.fail("transaction %d: recorded %s, got %s with %d bytes to read", p.next, o, Op{Addr: addr, W: w}, len(r))
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
	return fmt.Errorf("i2c playback: %s", text)
}

// Close returns an error if a transaction differed from the recording or if
// some of the recording is left over.
func (p *Playback) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.errs) > 0 {
		return fmt.Errorf("i2c playback: %s", strings.Join(p.errs, "; "))
	}
	if left := len(p.ops) - p.next; left > 0 {
		return fmt.Errorf("i2c playback: %d of %d transactions left over, the next is %s", left, len(p.ops), p.ops[p.next])
	}
	return nil
}

var (
	_ i2c.Bus       = (*Recorder)(nil)
	_ i2c.BusCloser = (*Playback)(nil)
)
