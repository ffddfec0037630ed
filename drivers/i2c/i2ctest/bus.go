package i2ctest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"holdfast/drivers/i2c"
)

// A Chip is the far end of a bus. Its methods are called one at a time.
type Chip interface {
	// Write takes the bytes of one write message. An error means that the chip
	// stopped acknowledging.
	Write(b []byte) error
	// Read fills b with the bytes of one read message. A chip cannot refuse.
	Read(b []byte)
}

// A Bus is an I2C bus in memory. It may be used from many goroutines.
type Bus struct {
	name string

	mu    sync.Mutex
	chips map[uint16]Chip
	txs   int
}

// NewBus returns a bus without chips.
func NewBus(name string) *Bus { return &Bus{name: name, chips: map[uint16]Chip{}} }

// Put connects a chip, in place of the one that was at that address. A nil chip
// leaves the place empty.
func (b *Bus) Put(addr uint16, c Chip) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c == nil {
		delete(b.chips, addr)
		return
	}
	b.chips[addr] = c
}

// String returns the name given to NewBus.
func (b *Bus) String() string { return b.name }

// Transactions returns how many transactions there have been, failed ones
// included.
func (b *Bus) Transactions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.txs
}

// Tx satisfies [i2c.Bus].
func (b *Bus) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	if err := i2c.CheckTx(addr, w, r); err != nil {
		return fmt.Errorf("i2c %s: %w", b.name, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("i2c %s 0x%02x: %w", b.name, addr, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.txs++
	c, ok := b.chips[addr]
	if !ok {
		return fmt.Errorf("i2c %s 0x%02x: %w", b.name, addr, i2c.ErrNACK)
	}
	if len(w) > 0 {
		if err := c.Write(w); err != nil {
			return fmt.Errorf("i2c %s 0x%02x: %w", b.name, addr, err)
		}
	}
	if len(r) > 0 {
		c.Read(r)
	}
	return nil
}

// Close does nothing and returns nil.
func (b *Bus) Close() error { return nil }

// A Stopwatch returns the time since some fixed moment. The emulated chips time
// their conversions with one.
type Stopwatch func() time.Duration

// realTime is the stopwatch of a chip that was given none.
func realTime() Stopwatch {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

var _ i2c.BusCloser = (*Bus)(nil)
