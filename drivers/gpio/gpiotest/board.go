// Package gpiotest has lines for tests and for the bench.
//
//   - [Board] is a board in memory, whose inputs a test drives and whose outputs
//     it sees, with faults.
//   - [Recorder] wraps lines and keeps what was done with them; [Playback] gives
//     a recording back and fails when what is done differs or is left over.
//
// None of it needs the testing package, so that a simulated plant can use it.
package gpiotest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/gpio"
)

// Board is a board of named lines in memory. A line exists as soon as it is
// named. It satisfies [gpio.Lines] and may be used from many goroutines.
//
// Bias is not modelled: an input that nobody drives is at a low voltage. Debounce
// is: a level that does not last so long on the board's clock is not seen.
type Board struct {
	clock clock.Clock
	start time.Time

	mu    sync.Mutex
	lines map[string]*pin
}

// New returns a board whose events are stamped by c; nil is the machine's own.
func New(c clock.Clock) *Board { return &Board{clock: c, start: time.Now(), lines: map[string]*pin{}} }

// pin is one line of a board. Its fields are guarded by Board.mu.
type pin struct {
	volt    gpio.Level // at the pin, whatever its user calls active
	err     error
	hang    chan struct{} // closed when accesses go on; nil if they do not hang
	glitch  float64       // share of reads that return the wrong level
	rand    *rand.Rand
	user    *handle
	seen    gpio.Level    // the level after debouncing
	changed time.Duration // when volt became other than seen, on the clock
	change  chan struct{} // closed and replaced on each change
}

// handle is an open line.
type handle struct {
	board     *Board
	name      string
	activeLow bool
	debounce  time.Duration
	edges     gpio.EdgeConfig // Edges 0 if edges are not watched
	closed    bool
	queue     []gpio.Event // full, it drops the oldest
	counts    gpio.Counts
}

func (b *Board) elapsed() time.Duration {
	if b.clock != nil {
		return b.clock.Elapsed()
	}
	return time.Since(b.start)
}

func (b *Board) now() time.Time {
	if b.clock != nil {
		return b.clock.Now()
	}
	return time.Now()
}

// pin returns a line, made if need be. b.mu is held.
func (b *Board) pin(name string) *pin {
	p, ok := b.lines[name]
	if !ok {
		p = &pin{change: make(chan struct{})}
		b.lines[name] = p
	}
	return p
}

// Drive puts a voltage on a line from outside.
func (b *Board) Drive(name string, volt gpio.Level) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drive(name, volt)
}

// Pulse drives a line high and low again, n times. With debouncing, the pulses
// are too short to be seen.
func (b *Board) Pulse(name string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range n {
		b.drive(name, gpio.High)
		b.drive(name, gpio.Low)
	}
}

// At returns the voltage at a line.
func (b *Board) At(name string) gpio.Level {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pin(name).volt
}

// Fail makes every access to a line fail with err, or succeed again if it is nil.
func (b *Board) Fail(name string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pin(name)
	p.err = err
	p.announce()
}

// Hang makes every access to a line wait for its context, or go on again.
func (b *Board) Hang(name string, hang bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pin(name)
	if p.hang != nil {
		close(p.hang)
		p.hang = nil
	}
	if hang {
		p.hang = make(chan struct{})
	}
}

// Glitch makes a share of the reads of a line return the wrong level. Equal seeds
// and reads make equal glitches.
func (b *Board) Glitch(name string, share float64, seed uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pin(name)
	p.glitch, p.rand = share, rand.New(rand.NewPCG(seed, 0x6110))
}

// Settle lets the debounced lines see what has lasted long enough. A board sees
// by itself whenever a line is driven or used; only a Next that waits while the
// clock moves needs it.
func (b *Board) Settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range b.lines {
		b.settle(name)
	}
}

// announce wakes everybody who waits. Board.mu is held.
func (p *pin) announce() {
	close(p.change)
	p.change = make(chan struct{})
}

// drive changes the voltage. b.mu is held.
func (b *Board) drive(name string, volt gpio.Level) {
	b.settle(name)
	p := b.pin(name)
	if p.volt == volt {
		return
	}
	p.volt = volt
	p.changed = b.elapsed()
	b.settle(name)
}

// settle makes a level seen that has lasted for the debounce time. b.mu is held.
func (b *Board) settle(name string) {
	p := b.pin(name)
	if p.seen == p.volt {
		return
	}
	debounce := time.Duration(0)
	if p.user != nil {
		debounce = p.user.debounce
	}
	if b.elapsed()-p.changed < debounce {
		return
	}
	p.seen = p.volt
	if p.user != nil {
		p.user.edge(p.seen != gpio.Level(p.user.activeLow), p.changed+debounce)
	}
	p.announce()
}

// edge counts and queues a change to level. Board.mu is held.
func (h *handle) edge(level gpio.Level, stamp time.Duration) {
	e := gpio.Falling
	if level {
		e = gpio.Rising
	}
	if h.edges.Edges&e == 0 {
		return
	}
	if e == gpio.Rising {
		h.counts.Rising++
	} else {
		h.counts.Falling++
	}
	ev := gpio.Event{Edge: e, Stamp: stamp, Time: h.board.now().Add(stamp - h.board.elapsed())}
	if len(h.queue) >= h.edges.Queue {
		lost := h.queue[0].Lost + 1
		if h.queue = h.queue[1:]; len(h.queue) > 0 {
			h.queue[0].Lost += lost
		} else {
			ev.Lost = lost
		}
	}
	h.queue = append(h.queue, ev)
}

// Input satisfies [gpio.Lines].
func (b *Board) Input(ctx context.Context, line string, c gpio.InputConfig) (gpio.Input, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("gpio line %q: %w", line, err)
	}
	h := &handle{board: b, name: line, activeLow: c.ActiveLow, debounce: c.Debounce}
	if err := b.open(ctx, h); err != nil {
		return nil, err
	}
	return h, nil
}

// Edges satisfies [gpio.Lines].
func (b *Board) Edges(ctx context.Context, line string, c gpio.EdgeConfig) (gpio.EdgeInput, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("gpio line %q: %w", line, err)
	}
	h := &handle{board: b, name: line, activeLow: c.ActiveLow, debounce: c.Debounce, edges: c.WithDefaults()}
	if err := b.open(ctx, h); err != nil {
		return nil, err
	}
	return h, nil
}

// Output satisfies [gpio.Lines].
func (b *Board) Output(ctx context.Context, line string, c gpio.OutputConfig) (gpio.Output, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("gpio line %q: %w", line, err)
	}
	h := &handle{board: b, name: line, activeLow: c.ActiveLow}
	if err := b.open(ctx, h); err != nil {
		return nil, err
	}
	if err := h.Set(ctx, c.Initial); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func (b *Board) open(ctx context.Context, h *handle) error {
	if _, err := gpio.ParseRef(h.name); err != nil {
		return err
	}
	p, err := b.access(ctx, h, "open")
	if err != nil {
		return err
	}
	defer b.mu.Unlock()
	if p.user != nil {
		return fmt.Errorf("open gpio line %q: %w", h.name, gpio.ErrBusy)
	}
	p.user, p.seen = h, p.volt
	return nil
}

// access waits for a hung line and returns it with b.mu held, or an error without.
func (b *Board) access(ctx context.Context, h *handle, action string) (*pin, error) {
	for {
		if ctx.Err() != nil {
			return nil, h.fault(action, ctx.Err())
		}
		b.mu.Lock()
		p := b.pin(h.name)
		switch {
		case h.closed:
			b.mu.Unlock()
			return nil, h.fault(action, gpio.ErrClosed)
		case p.err != nil:
			err := p.err
			b.mu.Unlock()
			return nil, h.fault(action, err)
		case p.hang == nil:
			b.settle(h.name)
			return p, nil
		}
		hang := p.hang
		b.mu.Unlock()
		select {
		case <-hang:
		case <-ctx.Done():
		}
	}
}

func (h *handle) fault(action string, err error) error {
	return fmt.Errorf("gpio line %s: %s: %w", h.name, action, err)
}

func (h *handle) String() string { return "gpio line " + h.name }

// Read satisfies [gpio.Input].
func (h *handle) Read(ctx context.Context) (gpio.Level, error) {
	p, err := h.board.access(ctx, h, "read")
	if err != nil {
		return gpio.Low, err
	}
	defer h.board.mu.Unlock()
	wrong := p.glitch > 0 && p.rand.Float64() < p.glitch
	return p.seen != gpio.Level(h.activeLow) != gpio.Level(wrong), nil
}

// Set satisfies [gpio.Output].
func (h *handle) Set(ctx context.Context, l gpio.Level) error {
	_, err := h.board.access(ctx, h, "set "+l.String())
	if err != nil {
		return err
	}
	defer h.board.mu.Unlock()
	h.board.drive(h.name, l != gpio.Level(h.activeLow))
	return nil
}

// Next satisfies [gpio.EdgeInput].
func (h *handle) Next(ctx context.Context) (gpio.Event, error) {
	for {
		p, err := h.board.access(ctx, h, "wait for edge")
		if err != nil {
			return gpio.Event{}, err
		}
		if len(h.queue) > 0 {
			ev := h.queue[0]
			h.queue = h.queue[1:]
			h.board.mu.Unlock()
			return ev, nil
		}
		change := p.change
		h.board.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
			return gpio.Event{}, h.fault("wait for edge", ctx.Err())
		}
	}
}

// Counts satisfies [gpio.EdgeInput].
func (h *handle) Counts() (gpio.Counts, error) {
	h.board.mu.Lock()
	defer h.board.mu.Unlock()
	switch p := h.board.pin(h.name); {
	case h.closed:
		return gpio.Counts{}, h.fault("count edges", gpio.ErrClosed)
	case p.err != nil:
		return gpio.Counts{}, h.fault("count edges", p.err)
	}
	h.board.settle(h.name)
	return h.counts, nil
}

// Close satisfies [gpio.Input]. The line can be opened again.
func (h *handle) Close() error {
	h.board.mu.Lock()
	defer h.board.mu.Unlock()
	if h.closed {
		return h.fault("close", gpio.ErrClosed)
	}
	h.closed = true
	p := h.board.pin(h.name)
	p.user = nil
	p.announce()
	return nil
}

var (
	_ gpio.Lines     = (*Board)(nil)
	_ gpio.EdgeInput = (*handle)(nil)
	_ gpio.Output    = (*handle)(nil)
)
